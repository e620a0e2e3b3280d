"""Amazon Bedrock's side of Converse on a loopback port: signatures, event stream frames, exceptions in them.

Built from AWS's published model of the service alone; no live service was recorded. It checks signatures
(version 4) by itself, and what the service is known to refuse: blank text, turns that do not alternate.

    async with FakeBedrock() as upstream:
        upstream.reply("Hello", " there")
        ...                                     # base URL upstream.root
        assert upstream.asked[0]["messages"] == [...]
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import struct
from binascii import crc32
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from modelway.testing.fake_upstream import END_OF_CHUNKS, FakeUpstream, Received, Step
from modelway.types import ToolCall
from tests.canary import key

KEY = key("bedrock")
ACCESS_KEY, SECRET_KEY, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", key("session")
REGION = "eu-central-1"
USAGE = {"inputTokens": 5, "outputTokens": 3, "totalTokens": 31, "cacheReadInputTokens": 20}
USAGE |= {"cacheWriteInputTokens": 3}
MODELS = [
    {
        "modelId": "amazon.nova-1:0",
        "providerName": "Amazon",
        "inferenceTypesSupported": ["ON_DEMAND"],
        "modelLifecycle": {"status": "ACTIVE"},
    },
    {
        "modelId": "amazon.old",
        "inferenceTypesSupported": ["ON_DEMAND"],
        "modelLifecycle": {"status": "LEGACY"},
    },
    {
        "modelId": "anthropic.claude",
        "inferenceTypesSupported": ["INFERENCE_PROFILE"],
        "modelLifecycle": {"status": "ACTIVE"},
    },
]
PROFILES = {
    "": ([{"inferenceProfileId": "eu.anthropic.claude", "status": "ACTIVE"}], "page-2"),
    "page-2": ([{"inferenceProfileId": "global.anthropic.claude", "status": "ACTIVE"}], ""),
}

_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n"
    b"transfer-encoding: chunked\r\nx-amzn-requestid: r-1\r\n\r\n"
)


class FakeBedrock(FakeUpstream):
    """See the module. `asked` holds the bodies of the requests, `asked_models` whom they were for."""

    @property
    def root(self) -> str:
        """The base URL, as the provider is configured with it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests."""
        return [request.json for request in self.requests if request.body]

    @property
    def asked_models(self) -> list[str]:
        """The models that the requests were for."""
        return [unquote(request.path.split("/")[2]) for request in self.requests if request.body]

    def reply(self, *pieces: str | asyncio.Event, calls: Sequence[ToolCall] = (), **_: object) -> None:
        """Answer with these pieces of text, and calls; an asyncio.Event among the pieces is waited for."""
        gates: list[Step] = [piece for piece in pieces if isinstance(piece, asyncio.Event)]
        text = "".join(piece for piece in pieces if isinstance(piece, str))
        reason = "tool_use" if calls else "end_turn"
        uses = [_use(call) for call in calls]

        def script(request: Received) -> Sequence[Step]:
            if not _streams(request):
                blocks = [{"text": text}] if text else []
                return [*gates, _json(200, answer(*blocks, *uses, reason=reason))]
            said = [_chunk(delta(0, text=piece)) if isinstance(piece, str) else piece for piece in pieces]
            first = _chunk(event("messageStart", role="assistant"))
            last = (event("contentBlockStop", contentBlockIndex=0), *_called(calls), *ending(reason))
            return [_STREAM_HEAD, first, *said, *map(_chunk, last), END_OF_CHUNKS]

        self._scripts.append(script)

    def show(self, *frames: bytes, cut_at: int = 0) -> None:
        """Stream exactly these frames; `cut_at` bytes at a time where it is not 0."""
        stream = b"".join(frames)
        size = cut_at or len(stream)
        self.play(
            _STREAM_HEAD,
            *(_chunk(stream[at : at + size]) for at in range(0, len(stream), size)),
            END_OF_CHUNKS,
        )

    def answer_whole(self, body: dict[str, Any]) -> None:
        """Answer in one piece."""
        self.play(_json(200, body))

    def refuse_with(self, status: int, kind: str, message: str) -> None:
        """Answer with an error."""
        self.play(_json(status, {"message": message}, kind))

    def _script_for(self, request: Received) -> Sequence[Step]:
        if fault := _credential_fault(request):
            return [_json(403, {"message": fault}, "AccessDeniedException")]
        path, _, query = request.path.partition("?")
        if path == "/foundation-models":
            return [_json(200, {"modelSummaries": MODELS})]
        if path == "/inference-profiles":
            found, token = PROFILES[dict(parse_qsl(query)).get("nextToken", "")]
            return [
                _json(200, {"inferenceProfileSummaries": found, **({"nextToken": token} if token else {})})
            ]
        if not path.startswith("/model/") or path.count("/") != 3:
            return [_json(404, {"message": "no such operation"}, "UnknownOperationException")]
        if fault := _fault(request.json):
            return [_json(400, {"message": fault}, "ValidationException")]
        return super()._script_for(request)


def event(kind: str, **fields: Any) -> bytes:
    """A frame with an event."""
    headers = {":message-type": "event", ":event-type": kind, ":content-type": "application/json"}
    return frame(headers, json.dumps(fields).encode())


def exception(kind: str, message: str) -> bytes:
    """A frame with an exception."""
    return frame(
        {":message-type": "exception", ":exception-type": kind}, json.dumps({"message": message}).encode()
    )


def delta(index: int, **piece: Any) -> bytes:
    """A frame with a piece of a block."""
    return event("contentBlockDelta", contentBlockIndex=index, delta=piece)


def ending(reason: str) -> tuple[bytes, bytes]:
    """The last frames."""
    return event("messageStop", stopReason=reason), event("metadata", usage=USAGE, metrics={"latencyMs": 1})


def answer(*blocks: dict[str, Any], reason: str = "end_turn") -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": list(blocks)}
    return {"output": {"message": message}, "stopReason": reason, "usage": USAGE, "metrics": {"latencyMs": 1}}


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """A message of an event stream; all headers are strings (type 7)."""
    written = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(written) + len(payload), len(written))
    message = prelude + struct.pack("!I", crc32(prelude)) + written + payload
    return message + struct.pack("!I", crc32(message))


def _use(call: ToolCall) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": call.id, "name": call.name, "input": json.loads(call.arguments)}}


def _called(calls: Sequence[ToolCall]) -> list[bytes]:
    """The frames of calls, after a block of text."""
    frames: list[bytes] = []
    for index, call in enumerate(calls, 1):
        start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
        frames.append(event("contentBlockStart", contentBlockIndex=index, start=start))
        frames.append(delta(index, toolUse={"input": call.arguments}))
        frames.append(event("contentBlockStop", contentBlockIndex=index))
    return frames


def _fault(fields: dict[str, Any]) -> str:
    """What the service would refuse; "" where it is fine."""
    roles = [turn["role"] for turn in fields["messages"]]
    if any(role == after for role, after in itertools.pairwise(roles)):
        return "A conversation must alternate between user and assistant roles."
    blocks = [block for turn in fields["messages"] for block in turn["content"]]
    if any("text" in block and not block["text"].strip() for block in blocks):
        return "The text field in the ContentBlock object is blank."
    if any("toolUse" in block for block in blocks) and "toolConfig" not in fields:
        return "The toolConfig field must be defined when using toolUse and toolResult content blocks."
    return ""


def _credential_fault(request: Received) -> str:
    authorization = request.headers.get("authorization", "")
    if authorization == f"Bearer {KEY}":
        return ""
    if not authorization.startswith("AWS4-HMAC-SHA256 "):
        return "Missing Authentication Token"
    return "" if authorization == _signed(request) else "The signature does not match the one calculated."


def _signed(request: Received) -> str:
    """The header that a caller with our secret must send. Source: AWS, "Signature Version 4"."""
    time = request.headers["x-amz-date"]
    names = "content-type;host;x-amz-date;x-amz-security-token"
    path, _, query = request.path.partition("?")
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in parse_qsl(query))
    canonical = "\n".join(
        [
            request.method,
            quote(path, safe="/~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{request.headers[name]}" for name in names.split(";")),
            "",
            names,
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    scope = f"{time[:8]}/{REGION}/bedrock/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + SECRET_KEY.encode()
    for part in (*scope.split("/"), to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={key.hex()}"


def _streams(request: Received) -> bool:
    return request.path.endswith("/converse-stream")


def _json(status: int, body: object, kind: str = "") -> bytes:
    content = json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} Scripted",
        "content-type: application/json",
        f"content-length: {len(content)}",
    ]
    lines += [f"x-amzn-errortype: {kind}:http://internal/"] if kind else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

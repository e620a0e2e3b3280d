"""The Gemini API (and Vertex AI's part of it) on a loopback port, as Google's reference describes it.

    async with FakeGemini() as gemini:
        gemini.reply("Hello", " there")
        ...                                     # base URL gemini.base
        assert gemini.asked[0]["contents"] == [...]

Like the real one it refuses a wrong key, a model that it does not have, contents without parts, results that
do not follow their calls, and, for Gemini 3, a call of the current turn without its thought signature. Its
stream ends without a marker.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from modelway.testing.fake_upstream import END_OF_CHUNKS, USAGE, FakeUpstream, Received, Step
from modelway.types import FinishReason, ToolCall, Usage
from tests.canary import key

KEY = key("AIza")
NO_SIGNATURE = "skip_thought_signature_validator"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_REASONS = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}


class FakeGemini(FakeUpstream):
    """See the module. `served` are the models, `issued` the signatures of calls that it has given."""

    def __init__(self) -> None:
        super().__init__()
        self.served = ["gemini-3-flash", "gemini-2.5-flash", "model-a"]
        self.issued: set[str] = set()
        self.gives_ids = True
        self.token = KEY

    @property
    def base(self) -> str:
        """The base URL of the Gemini API."""
        return f"http://127.0.0.1:{self.port}/v1beta"

    @property
    def asked(self) -> list[Any]:
        """The bodies of the requests for an answer so far."""
        return [request.json for request in self.requests if request.body]

    def reply(
        self,
        *pieces: str | asyncio.Event,
        reasoning: str = "",
        calls: Sequence[ToolCall] = (),
        reason: FinishReason | None = None,
        usage: Usage = USAGE,
        one_byte_at_a_time: bool = False,
    ) -> None:
        """Answer with these pieces of text, an event each; an asyncio.Event among them is waited for."""
        parts: list[Any] = [{"text": reasoning, "thought": True}] if reasoning else []
        parts += [{"text": piece} if isinstance(piece, str) else piece for piece in pieces]
        parts += [self._call(position, call) for position, call in enumerate(calls)]
        end = _chunk_of([{"text": ""}], _REASONS.get(reason or "", "STOP"), _usage(usage))

        def script(request: Received) -> Sequence[Step]:
            if ":streamGenerateContent" not in request.path:
                gates: list[Step] = [part for part in parts if isinstance(part, asyncio.Event)]
                said = [part for part in parts if not isinstance(part, asyncio.Event)]
                return [*gates, _json(200, {**end, **_chunk_of(said, end["candidates"][0]["finishReason"])})]
            events = [part if isinstance(part, asyncio.Event) else _chunk_of([part]) for part in parts]
            return _streamed([*events, end], 1 if one_byte_at_a_time else 1 << 20)

        self._scripts.append(script)

    def say(self, *chunks: object) -> None:
        """Answer with exactly these chunks; bytes among them are no events but go out as they are."""
        self._scripts.append(lambda request: self._exactly(request, chunks))

    def refuse_with(self, code: int, status: str, message: str = "no", *details: object) -> None:
        """Answer with an error of Google's."""
        self.play(_error(code, status, message, *details))

    def fail(self, status: int, message: str = "no", code: str = "", **headers: str) -> None:
        """Answer with an error of Google's."""
        self.play(_error(status, code or "INTERNAL", message))

    def _exactly(self, request: Received, chunks: Sequence[object]) -> Sequence[Step]:
        if ":streamGenerateContent" not in request.path:
            return [_json(200, chunks[0])]
        return _streamed(chunks, 1 << 20)

    def _call(self, position: int, call: ToolCall) -> dict[str, Any]:
        function: dict[str, Any] = {"name": call.name, "args": json.loads(call.arguments)}
        if self.gives_ids and call.id:
            function["id"] = call.id
        part: dict[str, Any] = {"functionCall": function}
        # Of calls side by side only the first has one.
        if position == 0:
            signature = b64encode(f"signature {len(self.issued)}".encode()).decode()
            self.issued.add(signature)
            part["thoughtSignature"] = signature
        return part

    def _script_for(self, request: Received) -> Sequence[Step]:
        path, _, query = request.path.partition("?")
        if fault := self._refusal(request):
            return [fault]
        if path.startswith("/v1beta/openai/"):
            return super()._script_for(request)
        if path.endswith("/models"):
            return [_json(200, self._listed(query))]
        model, _, method = path.rpartition("/")[2].partition(":")
        assert method == "generateContent" or (method, query) == ("streamGenerateContent", "alt=sse")
        if model not in self.served:
            return [_error(404, "NOT_FOUND", f"models/{model} is not found for API version v1beta")]
        if fault_of := _fault(model, request.json, self.issued):
            return [_error(400, "INVALID_ARGUMENT", fault_of)]
        if not self._scripts and self._last is None:
            self.reply("Hello")
        return super()._script_for(request)

    def _refusal(self, request: Received) -> bytes | None:
        """Google tells of a wrong key with 400, of a wrong token with 401."""
        if (bearer := request.headers.get("authorization")) is not None:
            if bearer == f"Bearer {self.token}":
                return None
            return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if request.headers.get("x-goog-api-key") == KEY:
            return None
        reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        return _error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", reason)

    def _listed(self, query: str) -> dict[str, Any]:
        """Two pages: what answers chats, then what does not."""
        if "pageToken=next" in query:
            return {"models": [{"name": "models/embedder", "supportedGenerationMethods": ["embedContent"]}]}
        models = [
            {
                "name": f"models/{name}",
                "inputTokenLimit": 1_048_576,
                "supportedGenerationMethods": ["generateContent"],
            }
            for name in self.served
        ]
        return {"models": models, "nextPageToken": "next"}


class FakeVertex(FakeGemini):
    """Vertex AI, and the server that gives its tokens: `fetched` counts them.

    `accepts_tokens` False lets it refuse what it has given itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.token = "ya29.none-yet"
        self.fetched = 0
        self.lifetime_s = 3600
        self.refuses_tokens = False
        self.accepts_tokens = True
        self.hold_token: asyncio.Event | None = None

    @property
    def base(self) -> str:
        """The base URL, before /projects."""
        return f"http://127.0.0.1:{self.port}/v1beta1"

    @property
    def token_address(self) -> str:
        """Where tokens are given."""
        return f"http://127.0.0.1:{self.port}/token"

    @property
    def asked(self) -> list[Any]:
        """The bodies of the requests for an answer so far."""
        return [request.json for request in self.requests if ":" in request.path]

    def _script_for(self, request: Received) -> Sequence[Step]:
        if request.path != "/token":
            return super()._script_for(request)
        assert b"assertion=" in request.body
        if self.refuses_tokens:
            return [_json(400, {"error": "invalid_grant", "error_description": "Invalid JWT of modelway@x"})]
        self.fetched += 1
        self.token = f"ya29.token-{self.fetched}"
        held: list[Step] = [self.hold_token] if self.hold_token else []
        granted = {"access_token": self.token, "expires_in": self.lifetime_s, "token_type": "Bearer"}
        return [*held, _json(200, granted)]

    def _refusal(self, request: Received) -> bytes | None:
        if self.accepts_tokens and "authorization" in request.headers:
            return super()._refusal(request)
        return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")


def service_account(token_address: str) -> str:
    """The JSON key of a service account, whose tokens are given at this address."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "other",
            "private_key_id": "1",
            "private_key": _private_key(),
            "client_email": "modelway@other.iam.gserviceaccount.com",
            "token_uri": token_address,
        }
    )


@cache
def _private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _fault(model: str, body: Any, issued: set[str]) -> str:
    """What the API would not take, in its words."""
    contents = body["contents"]
    calls: list[str] = []
    for content in contents:
        if content["role"] not in ("user", "model"):
            return "Please use a valid role: user, model."
        if not content["parts"]:
            return "contents.parts must not be empty."
        results = [
            part["functionResponse"]["name"] for part in content["parts"] if "functionResponse" in part
        ]
        if results != calls:
            return "the number of function response parts must be equal to that of function call parts."
        calls = [part["functionCall"]["name"] for part in content["parts"] if "functionCall" in part]
    if model.startswith("gemini-3"):
        return _unsigned(contents, issued)
    return ""


def _unsigned(contents: list[Any], issued: set[str]) -> str:
    said = [
        position
        for position, content in enumerate(contents)
        if content["role"] == "user" and any("functionResponse" not in part for part in content["parts"])
    ]
    for content in contents[said[-1] :]:
        calls = [part for part in content["parts"] if "functionCall" in part]
        if calls and calls[0].get("thoughtSignature") not in issued | {NO_SIGNATURE}:
            return "Function call is missing a thought_signature in functionCall parts."
    return ""


def _chunk_of(parts: Sequence[object], reason: str = "", usage: object = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    chunk: dict[str, Any] = {"candidates": [candidate], "modelVersion": "model-a", "responseId": "r-1"}
    return chunk | ({"usageMetadata": usage} if usage else {})


def _usage(usage: Usage) -> dict[str, int]:
    """The tokens of thoughts stand beside those of the answer, not in them."""
    return {
        "promptTokenCount": usage.input_tokens,
        "cachedContentTokenCount": usage.cached_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }


def _streamed(chunks: Sequence[object], size: int) -> list[Step]:
    steps: list[Step] = [_STREAM_HEAD]
    for chunk in chunks:
        if isinstance(chunk, asyncio.Event):
            steps.append(chunk)
            continue
        event = chunk if isinstance(chunk, bytes) else b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n"
        steps += [_sized(event[at : at + size]) for at in range(0, len(event), size)]
    return [*steps, END_OF_CHUNKS]


def _error(code: int, status: str, message: str, *details: object) -> bytes:
    error: dict[str, object] = {"code": code, "message": message, "status": status}
    return _json(code, {"error": error | ({"details": list(details)} if details else {})})


def _json(status: int, body: object) -> bytes:
    content = json.dumps(body, indent=2).encode()
    head = f"HTTP/1.1 {status} Scripted\r\ncontent-type: application/json; charset=UTF-8\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def _sized(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

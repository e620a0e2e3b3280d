"""Anthropic's side of its Messages API on a loopback port.

Built from the published reference and SDK alone; no live service was recorded. It demands the headers, the
required fields and alternating turns, and answers in the documented sequence, ping included.

    async with FakeAnthropic() as upstream:
        upstream.reply("Hello", " there")
        ...                                     # base URL upstream.root
        assert upstream.asked[0]["messages"] == [...]
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

from modelway.dialects import anthropic_messages
from modelway.dialects.envelope import Envelope
from modelway.testing.fake_upstream import END_OF_CHUNKS, USAGE, FakeUpstream, Received, Script, Step
from modelway.types import (
    Event,
    Finish,
    FinishReason,
    Model,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    collect,
)
from tests.canary import key

KEY = key("sk-ant")
VERSIONS = ("2023-06-01", "2026-10-21")
SAMPLING = {"temperature", "top_p", "top_k"}
COUNTED = {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}
COUNTED |= {"cache_control", "context_management", "mcp_servers", "prefill", "speed"}
PING = b'event: ping\ndata: {"type": "ping"}\n\n'

_ENVELOPE = Envelope(id="msg_fake", created=1_700_000_000, model="model-a", provider="Fake")
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\nrequest-id: req_1\r\n\r\n"
)


class FakeAnthropic(FakeUpstream):
    """See the module. `asked` holds the bodies of the messages that were sent."""

    def __init__(self) -> None:
        super().__init__()
        self.models = [Model("model-a", created=1_700_000_000, context_length=200_000), Model("model-b")]

    @property
    def root(self) -> str:
        """The base URL, as the provider is configured with it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the messages that were sent."""
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
        """Answer with these pieces of text; an asyncio.Event among them is waited for."""
        finish = Finish(reasons=(reason or ("tool_calls" if calls else "stop"),), usage=usage)
        events: list[Event | asyncio.Event] = [ReasoningDelta(text=reasoning)] if reasoning else []
        events += [TextDelta(text=piece) if isinstance(piece, str) else piece for piece in pieces]
        events += [
            ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
            for index, call in enumerate(calls)
        ]
        self._scripts.append(_script([*events, finish]))

    def reply_with_blocks(self, *blocks: dict[str, Any], stop_reason: str = "tool_use") -> None:
        """Answer in one piece, or streamed, with exactly these content blocks."""

        def script(request: Received) -> Sequence[Step]:
            message = {"content": list(blocks), "model": "model-a", "stop_reason": stop_reason}
            if not request.wants_stream:
                return [_whole(json.dumps(message).encode())]
            started = {"type": "message_start", "message": {**message, "content": [], "usage": {}}}
            sent = [_event(started), PING]
            for index, block in enumerate(blocks):
                start = {"type": "content_block_start", "index": index, "content_block": block}
                sent += [_event(start), _event({"type": "content_block_stop", "index": index})]
            stop = {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {}}
            sent += [_event(stop), _event({"type": "message_stop"})]
            return [_STREAM_HEAD, *map(_chunk, sent), END_OF_CHUNKS]

        self._scripts.append(script)

    def refuse_with(self, status: int, kind: str, message: str = "no", **headers: str) -> None:
        """Answer with an error; `retry_after="3"` becomes the header Retry-After."""
        self.play(_error(status, kind, message, **headers))

    def break_off(self, kind: str, message: str, *texts: str) -> None:
        """Stream some text, then an error."""
        encoder = anthropic_messages.EventEncoder(_ENVELOPE)
        sent = [encoder.encode(TextDelta(text=text)) for text in texts]
        error = {"type": "error", "error": {"type": kind, "message": message}}
        self.stream(*sent, _event(error))

    def _script_for(self, request: Received) -> Sequence[Step]:
        if request.headers.get("x-api-key") != KEY:
            return [_error(401, "authentication_error", "invalid x-api-key")]
        if request.headers.get("anthropic-version") not in VERSIONS:
            return [_error(400, "invalid_request_error", "anthropic-version: header is required")]
        path = request.path.partition("?")[0]
        if path == "/v1/models":
            return [_whole(anthropic_messages.encode_models(self.models))]
        if path == "/v1/messages/count_tokens":
            return [_counted(request)]
        if path != "/v1/messages":
            return [_error(404, "not_found_error", "Not found")]
        if fault := _fault(request):
            return [_error(400, "invalid_request_error", fault)]
        return super()._script_for(request)


def _counted(request: Received) -> bytes:
    """As many tokens as the body has words; what is no part of the prompt is refused."""
    if extra := set(request.json) - COUNTED:
        return _error(400, "invalid_request_error", f"{sorted(extra)[0]}: Extra inputs are not permitted")
    return _whole(json.dumps({"input_tokens": len(request.body.split())}).encode())


def _fault(request: Received) -> str:
    """What the service would refuse; "" where it is fine."""
    fields = request.json
    missing = [name for name in ("model", "max_tokens", "messages") if name not in fields]
    if missing:
        return f"{missing[0]}: Field required"
    if request.headers["anthropic-version"] == VERSIONS[1] and (extra := SAMPLING & set(fields)):
        return f"{extra.pop()}: Extra inputs are not permitted"
    roles = [message["role"] for message in fields["messages"]]
    if any(role == after for role, after in itertools.pairwise(roles)):
        return "messages: roles must alternate"
    for message in fields["messages"]:
        content = message["content"] if isinstance(message["content"], list) else []
        if any(block["type"] == "text" and not block["text"].strip() for block in content):
            return "messages: text content blocks must be non-empty"
    return ""


def _script(events: Sequence[Event | asyncio.Event]) -> Script:
    def script(request: Received) -> Sequence[Step]:
        if request.wants_stream:
            return _streamed(events)
        gates: list[Step] = [event for event in events if isinstance(event, asyncio.Event)]
        completion = collect(event for event in events if not isinstance(event, asyncio.Event))
        return [*gates, _whole(anthropic_messages.encode_completion(completion, _ENVELOPE))]

    return script


def _streamed(events: Sequence[Event | asyncio.Event]) -> list[Step]:
    encoder = anthropic_messages.EventEncoder(_ENVELOPE)
    steps: list[Step] = [_STREAM_HEAD]
    for event in events:
        if isinstance(event, asyncio.Event):
            steps.append(event)
        else:
            steps.append(_chunk(encoder.encode(event)))
    return [*steps, _chunk(encoder.end()), END_OF_CHUNKS]


def _event(fields: dict[str, Any]) -> bytes:
    return f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()


def _error(status: int, kind: str, message: str, **headers: str) -> bytes:
    fields = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return _whole(json.dumps(fields).encode(), status, **headers)


def _whole(body: bytes, status: int = 200, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", "content-type: application/json"]
    lines += [f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

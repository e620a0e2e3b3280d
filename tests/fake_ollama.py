"""Ollama on a loopback port: /api/chat, /api/tags and /api/ps, as its documents describe them.

    async with FakeOllama() as ollama:
        ollama.reply("Hello", " there")
        ...                                     # base URL ollama.root
        assert ollama.requests[0].json["messages"] == [...]

Like the real one it answers 404 for a model that has not been pulled, gives calls whole and without a
`done_reason` of their own, and tells of an error in the middle in a line of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from modelway.dialects import ollama_chat
from modelway.dialects.envelope import Envelope
from modelway.testing.fake_upstream import END_OF_CHUNKS, USAGE, FakeUpstream, Received, Step
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

_ENVELOPE = Envelope(id="1", created=1_700_000_000, model="model-a", provider="")
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"


class FakeOllama(FakeUpstream):
    """See the module. `models` have been pulled, `loaded` are in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.models = [Model(id="model-a", created=1_760_000_000), Model(id="model-b:7b")]
        self.loaded = [Model(id="model-a")]

    @property
    def root(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def reply(
        self,
        *pieces: str | asyncio.Event,
        reasoning: str = "",
        calls: Sequence[ToolCall] = (),
        reason: FinishReason | None = None,
        usage: Usage = USAGE,
        one_byte_at_a_time: bool = False,
    ) -> None:
        """Answer with these pieces of text, a line each; an asyncio.Event among them is waited for."""
        events: list[Event | asyncio.Event] = [ReasoningDelta(text=reasoning)] if reasoning else []
        events += [TextDelta(text=piece) if isinstance(piece, str) else piece for piece in pieces]
        events += [
            ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
            for index, call in enumerate(calls)
        ]
        finish = Finish(reasons=(reason or "stop",), usage=usage, model="model-a")

        def script(request: Received) -> Sequence[Step]:
            if not request.wants_stream:
                return _whole([*events, finish])
            size = 1 if one_byte_at_a_time else 1 << 20
            return _streamed([*events, finish], size)

        self._scripts.append(script)

    def say_lines(self, *lines: dict[str, Any]) -> None:
        """Answer with exactly these lines."""
        self.play(_STREAM_HEAD, *(_chunk(json.dumps(line).encode() + b"\n") for line in lines), END_OF_CHUNKS)

    def fail(self, status: int, message: str = "no", code: str = "", **headers: str) -> None:
        """Answer with an error in Ollama's shape."""
        self.play(_json(status, {"error": message}, **headers))

    def _script_for(self, request: Received) -> Sequence[Step]:
        match request.path:
            case "/api/tags":
                return [_body(ollama_chat.encode_models(self.models))]
            case "/api/ps":
                return [_body(ollama_chat.encode_models(self.loaded))]
            case "/api/chat":
                model = request.json["model"]
                if model not in {known.id for known in self.models}:
                    return [_json(404, {"error": f"model '{model}' not found"})]
                if not self._scripts and self._last is None:
                    self.reply("Hello")
                return super()._script_for(request)
            case path if path.startswith("/v1/"):
                return super()._script_for(request)
            case _:
                return [_json(404, "404 page not found")]


def _streamed(events: Sequence[Event | asyncio.Event], size: int) -> list[Step]:
    encoder = ollama_chat.EventEncoder(_ENVELOPE)
    steps: list[Step] = [_STREAM_HEAD]
    for event in events:
        if isinstance(event, asyncio.Event):
            steps.append(event)
        elif line := encoder.encode(event).replace(b',"provider":""', b""):
            steps += [_chunk(line[at : at + size]) for at in range(0, len(line), size)]
    return [*steps, END_OF_CHUNKS]


def _whole(events: Sequence[Event | asyncio.Event]) -> list[Step]:
    gates: list[Step] = [event for event in events if isinstance(event, asyncio.Event)]
    completion = collect(event for event in events if not isinstance(event, asyncio.Event))
    return [*gates, _body(ollama_chat.encode_completion(completion, _ENVELOPE))]


def _json(status: int, body: object, **headers: str) -> bytes:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return _body(content, status, **headers)


def _body(content: bytes, status: int = 200, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", "content-type: application/json; charset=utf-8"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"content-length: {len(content)}"]).encode() + b"\r\n\r\n" + content


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

"""A real upstream on a loopback port that plays scripts, for tests: good answers, and faults on demand.

    async with FakeUpstream() as upstream:
        upstream.reply("Hello", " there")
        ...                                     # call upstream.url with any client
        assert upstream.requests[0].json["messages"] == [...]

Each call of `reply`, `fail`, `play` and so on queues the script of one chat request; when there are no
more, the last is played again. With nothing queued it says "Hello". GET /models lists `models`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import zlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from modelway.bench.loopback import LoopbackConnection
from modelway.dialects import openai_chat
from modelway.dialects.envelope import Envelope
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


class End(Enum):
    """How a script may end the connection; without one it is kept alive."""

    CLOSE = "close it in order"
    RESET = "reset it"


Step = bytes | asyncio.Event | End
Script = Callable[["Received"], Sequence[Step]]

USAGE = Usage(input_tokens=7, output_tokens=3)
END_OF_CHUNKS = b"0\r\n\r\n"


class Received(Struct, frozen=True):
    """A request as the upstream got it. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def wants_stream(self) -> bool:
        """Whether the caller asked for a stream."""
        return bool(self.body) and self.json.get("stream", False) is True


class FakeUpstream:
    """See the module. `hung_up` is set when a client closes a connection before its script is over.

    `choked` is set when a client reads so slowly that writing has to wait. `connections` counts those
    that are open, `connected` all that ever were.
    """

    def __init__(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.models = [Model(id="model-a"), Model(id="model-b", context_length=8192)]
        self.hung_up = asyncio.Event()
        self.choked = asyncio.Event()
        self.connected = 0
        self.port = 0
        self._host = host
        self._tls = tls
        self._scripts: list[Script] = []
        self._last: Script | None = None
        self._open: set[LoopbackConnection] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The base URL, as a provider is configured with it."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http{'s' if self._tls else ''}://{host}:{self.port}/v1"

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), self._host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        for connection in list(self._open):
            await connection.end()

    def refuse(self) -> None:
        """Take no more connections; open ones stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def drop_connections(self) -> None:
        """Close all open connections, idle ones too."""
        for connection in list(self._open):
            await connection.end()

    # Good answers.

    def reply(
        self,
        *pieces: str | asyncio.Event,
        reasoning: str = "",
        calls: Sequence[ToolCall] = (),
        reason: FinishReason | None = None,
        usage: Usage = USAGE,
        one_byte_at_a_time: bool = False,
    ) -> None:
        """Answer with these pieces of text, one event each; an asyncio.Event among them is waited for.

        The answer is streamed, or whole, as the request asks.
        """
        finish = Finish(
            reasons=(reason or ("tool_calls" if calls else "stop"),), usage=usage, model="model-a"
        )
        events: list[Event | asyncio.Event] = [ReasoningDelta(text=reasoning)] if reasoning else []
        events += [TextDelta(text=piece) if isinstance(piece, str) else piece for piece in pieces]
        events += [
            ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
            for index, call in enumerate(calls)
        ]

        def script(request: Received) -> Sequence[Step]:
            if not request.wants_stream:
                return _whole([*events, finish])
            steps = _streamed([*events, finish], include_usage=_wants_usage(request))
            return list(_bytewise(steps)) if one_byte_at_a_time else steps

        self._scripts.append(script)

    def decide(self, choose: Callable[[Received], None]) -> None:
        """Call `choose` with each request from now on: it queues the script of this one."""

        def script(request: Received) -> Sequence[Step]:
            choose(request)
            return self._scripts.pop()(request)

        self._scripts.append(script)

    def reply_with(self, body: bytes, *, kind: str = "text/event-stream", status: int = 200) -> None:
        """Answer with exactly this body, with its length in the head."""
        self.play(_head(status, {"content-type": kind, "content-length": str(len(body))}) + body)

    def stream(self, *events: bytes | asyncio.Event | End, terminated: bool = True) -> None:
        """Answer with these bytes as an event stream; `terminated` adds the end of the body."""
        chunked = [_chunk(event) if isinstance(event, bytes) else event for event in events]
        self.play(_STREAM_HEAD, *chunked, *([END_OF_CHUNKS] if terminated else []))

    def play(self, *steps: Step) -> None:
        """Play raw steps: bytes are written as they are, an asyncio.Event is waited for."""
        self._scripts.append(lambda _: steps)

    # Faults.

    def fail(self, status: int, message: str = "no", code: str = "", **headers: str) -> None:
        """Answer with an error; `retry_after="3"` becomes the header Retry-After."""
        body = json.dumps({"error": {"message": message, "type": "error", "code": code or None}}).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        length = {"content-type": "application/json", "content-length": str(len(body))}
        self.play(_head(status, {**length, **named}) + body)

    def redirect(self, location: str) -> None:
        """Send the client elsewhere."""
        self.play(_head(302, {"location": location, "content-length": "0"}))

    def be_silent(self) -> None:
        """Take the request and never say a word."""
        self.play(asyncio.Event())

    def stall(self, *texts: str) -> None:
        """Stream some text, then fall silent."""
        self.stream(*map(text_event, texts), asyncio.Event())

    def reset(self, *texts: str) -> None:
        """Reset the connection: at once, or after some text."""
        if texts:
            self.stream(*map(text_event, texts), End.RESET, terminated=False)
        else:
            self.play(End.RESET)

    def cut(self, *texts: str) -> None:
        """End the stream in good order, but without a finish reason or [DONE]."""
        self.stream(*map(text_event, texts))

    def speak_gibberish(self) -> None:
        """Stream an event that is not JSON."""
        self.stream(text_event("so"), b"data: {not json\n\n")

    def report_error(self, message: str, code: str = "", *texts: str) -> None:
        """Stream some text, then an error object."""
        error = json.dumps({"error": {"message": message, "code": code or None}}).encode()
        self.stream(*map(text_event, texts), b"data: " + error + b"\n\n")

    def show_web_page(self) -> None:
        """Answer 200 with HTML, as captive portals do."""
        self.reply_with(b"<!doctype html><title>Welcome</title>", kind="text/html; charset=utf-8")

    def bomb(self, size: int = 1 << 30) -> None:
        """Answer with gzip that grows to `size` bytes."""
        self.play(
            _head(200, {"content-type": "text/event-stream", "content-encoding": "gzip"}, keep=False),
            *_squeezed(size),
            End.CLOSE,
        )

    def send_huge_header(self, size: int = 5 * 1024 * 1024) -> None:
        """Answer with one header of this size."""
        self.play(b"HTTP/1.1 200 OK\r\nx-huge: ", *[b"a" * 65536] * (size // 65536), b"\r\n\r\n")

    def _script_for(self, request: Received) -> Sequence[Step]:
        if request.path.partition("?")[0].endswith("/models"):
            body = openai_chat.encode_models(self.models)
            return [_head(200, {"content-type": "application/json", "content-length": str(len(body))}) + body]
        if self._scripts:
            self._last = self._scripts.pop(0)
        elif self._last is None:
            self.reply("Hello")
            self._last = self._scripts.pop()
        return self._last(request)


def text_event(text: str) -> bytes:
    """A chat completion chunk with some text, as a server-sent event."""
    return openai_chat.EventEncoder(_ENVELOPE).encode(TextDelta(text=text))


def closed_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


_ENVELOPE = Envelope(
    id="chatcmpl-fake", created=1_700_000_000, model="model-a", provider="Fake", include_usage=True
)


class _Connection(LoopbackConnection):
    def __init__(self, upstream: FakeUpstream) -> None:
        super().__init__(upstream._open)
        self._upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._upstream.connected += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task is not None and not self.task.done():
            self._upstream.hung_up.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._upstream.choked.set()

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> Coroutine[Any, Any, None]:
        request = Received(method, target, headers, body)
        self._upstream.requests.append(request)
        return self._play(self._upstream._script_for(request))

    async def _play(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case bytes():
                    self.transport.write(step)
                    # Two turns of the loop: a client in the same loop reads each step by itself.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    await self.writable.wait()
                case asyncio.Event():
                    await step.wait()
                case End.CLOSE:
                    self.transport.close()
                case End.RESET:
                    self.reset()


def _streamed(events: Sequence[Event | asyncio.Event], *, include_usage: bool) -> list[Step]:
    envelope = _ENVELOPE if include_usage else _ENVELOPE_WITHOUT_USAGE
    encoder = openai_chat.EventEncoder(envelope)
    steps: list[Step] = [_STREAM_HEAD]
    steps += [
        event if isinstance(event, asyncio.Event) else _chunk(encoder.encode(event)) for event in events
    ]
    return [*steps, _chunk(encoder.end()), END_OF_CHUNKS]


def _whole(events: Sequence[Event | asyncio.Event]) -> list[Step]:
    gates: list[Step] = [event for event in events if isinstance(event, asyncio.Event)]
    completion = collect(event for event in events if not isinstance(event, asyncio.Event))
    body = openai_chat.encode_completion(completion, _ENVELOPE)
    head = _head(200, {"content-type": "application/json", "content-length": str(len(body))})
    return [*gates, head + body]


def _bytewise(steps: Sequence[Step]) -> Iterable[Step]:
    for step in steps:
        if isinstance(step, bytes):
            yield from (step[at : at + 1] for at in range(len(step)))
        else:
            yield step


def _squeezed(size: int) -> list[bytes]:
    """A gzip of `size` zero bytes; a fully flushed block may be repeated, so that it is made quickly."""
    zeros = bytes(1 << 24)
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    return [first, *[again] * ((size >> 24) - 1)]


def _wants_usage(request: Received) -> bool:
    return bool((request.json.get("stream_options") or {}).get("include_usage"))


def _head(status: int, headers: Mapping[str, str], *, keep: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
    if not keep:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_ENVELOPE_WITHOUT_USAGE = Envelope(
    id="chatcmpl-fake", created=1_700_000_000, model="model-a", provider="Fake"
)
_STREAM_HEAD = _head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

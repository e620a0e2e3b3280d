"""A fast upstream on loopback: it answers chat completions with bytes that were made beforehand.

What it answers stands in the message's text, so that it travels through any gateway unchanged:
`bench:sse:50` is a stream of 50 events at once, `bench:paced:20:100` an event every 20 ms, 100 of them.
Without such a mark, or where no stream is asked for, the answer is one JSON object of 1 KB. The text of a
paced event says when it was sent, so that its reader knows how long it was on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, cast

import httptools

from modelway.bench.loop import run

MODEL = "bench"
END_OF_TEXT = "End of answer."
STAMP = b"sent at "
STAMP_DIGITS = 16
MAX_EVENTS = 100_000
MAX_INTERVAL_MS = 60_000
_JSON_BYTES = 1024
_MARK = re.compile(rb"bench:(?:sse:(\d{1,6})|paced:(\d{1,6}):(\d{1,6}))")
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_LAST_CHUNK = b"0\r\n\r\n"


class Plan(NamedTuple):
    """What to answer: `events` 0 is one JSON object, `interval_ms` 0 is all events at once."""

    events: int = 0
    interval_ms: int = 0
    usage: bool = False


def plan_for(body: bytes) -> Plan:
    """Read from a request's body what it asks for; the last mark counts, as history comes first."""
    if not _STREAM.search(body):
        return Plan()
    usage = _USAGE.search(body) is not None
    marks = _MARK.findall(body)
    if not marks:
        return Plan(events=50, usage=usage)
    at_once, interval, paced = marks[-1]
    events = min(max(int(at_once or paced), 2), MAX_EVENTS)
    return Plan(events, min(int(interval or 0), MAX_INTERVAL_MS), usage)


def due_time(started: float, interval_ms: int, index: int) -> float:
    """When event `index` of a paced stream is due; counted from the start, so that delays do not add up.

    The event that names the role comes with the first text, as model servers send it.
    """
    return started + max(0, index - 1) * interval_ms / 1000


def plain_response(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole response with its length."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def completion_body() -> bytes:
    """A chat completion of exactly 1 KB."""
    empty = json.dumps(_completion("")).encode()
    return json.dumps(_completion(_filled(_JSON_BYTES - len(empty)))).encode()


@functools.lru_cache(maxsize=16)
def stream_chunks(plan: Plan) -> tuple[bytes, ...]:
    """The events of a stream, each an HTTP chunk; the last holds the end marker and the end of the body.

    The first event names the role, the last the finish reason; usage comes only where it was asked for.
    """
    middle = [_event(_delta({"content": f"word{index:04d} "})) for index in range(plan.events - 2)]
    events = [_event(_delta({"role": "assistant", "content": ""})), *middle, _event(_delta({}, "stop"))]
    tail = b""
    if plan.usage:
        tail = _event({**_delta({}), "choices": [], "usage": _usage()})
    return (*events[:-1], events[-1] + tail + _http_chunk(b"data: [DONE]\n\n") + _LAST_CHUNK)


@functools.lru_cache(maxsize=1)
def paced_event() -> tuple[bytes, bytes]:
    """What stands before and behind the time in a paced event."""
    nought = "0" * STAMP_DIGITS
    before, _, behind = _event(_delta({"content": f"{STAMP.decode()}{nought} "})).partition(nought.encode())
    return before, behind


def stamp() -> bytes:
    """The time in microseconds of the clock that all processes of a machine share."""
    return b"%0*d" % (STAMP_DIGITS, time.monotonic_ns() // 1000)


@functools.lru_cache(maxsize=16)
def whole_stream(plan: Plan) -> bytes:
    """Head and events of a stream that is sent at once."""
    return _STREAM_HEAD + b"".join(stream_chunks(plan))


def _filled(length: int) -> str:
    words = "The quick brown fox jumps over the lazy dog. " * (length // 45 + 1)
    return words[: length - len(END_OF_TEXT)] + END_OF_TEXT


def _completion(text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(),
    }


def _usage() -> dict[str, int]:
    return {"prompt_tokens": 20, "completion_tokens": 50, "total_tokens": 70}


def _delta(delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
    }


def _event(value: dict[str, object]) -> bytes:
    return _http_chunk(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")


def _http_chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


_COMPLETION = plain_response(completion_body())
_WELL = plain_response(b"ok", kind="text/plain")
_PAGES = {
    # Some gateways only ask an upstream that is well.
    b"/healthz": _WELL,
    b"/health": _WELL,
    b"/v1/models": plain_response(
        json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": MODEL}]}).encode()
    ),
}
_NOT_FOUND = plain_response(b'{"error":{"message":"no such page"}}', "404 Not Found")
_BAD_REQUEST = plain_response(b'{"error":{"message":"not HTTP"}}', "400 Bad Request")


class UpstreamProtocol(asyncio.Protocol):
    """One connection. Requests are answered one after another; pipelining behind a paced stream is not."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._url = b""
        self._body = b""
        self._stays = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse; what is not HTTP ends the connection."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(_BAD_REQUEST)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop a stream whose reader is gone."""
        if self._timer:
            self._timer.cancel()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        """The target, possibly in pieces."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """The body, possibly in pieces."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        self._stays = self._parser.should_keep_alive()
        plan = plan_for(self._body)
        if self._timer:
            self._transport.abort()
        elif self._url != b"/v1/chat/completions":
            self._end(_PAGES.get(self._url.partition(b"?")[0], _NOT_FOUND))
        elif not plan.events:
            self._end(_COMPLETION)
        elif not plan.interval_ms:
            self._end(whole_stream(plan))
        else:
            chunks = stream_chunks(plan)
            self._transport.write(_STREAM_HEAD + chunks[0])
            self._send_paced(plan, chunks, time.monotonic(), 1)

    def _send_paced(self, plan: Plan, chunks: tuple[bytes, ...], started: float, index: int) -> None:
        if index == len(chunks) - 1:
            self._timer = None
            self._end(chunks[index])
            return
        before, behind = paced_event()
        self._transport.write(before + stamp() + behind)
        index += 1
        delay = due_time(started, plan.interval_ms, index) - time.monotonic()
        self._timer = self._loop.call_later(max(0.0, delay), self._send_paced, plan, chunks, started, index)

    def _end(self, last: bytes) -> None:
        self._transport.write(last)
        if not self._stays:
            self._transport.close()


async def serve(port: int, announce: Callable[[int], None]) -> None:
    """Listen on 127.0.0.1 until the process is told to end; `announce` is told the port (0: any free one).

    Raises OSError where the port is taken: the port is never shared.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(
        lambda: UpstreamProtocol(loop), "127.0.0.1", port, reuse_port=False, backlog=4096
    )
    async with server:
        announce(server.sockets[0].getsockname()[1])
        await stop.wait()


def announce_on_stdout(port: int) -> None:
    """Tell the process that started this one where to connect."""
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run(serve(int(sys.argv[1]), announce_on_stdout))

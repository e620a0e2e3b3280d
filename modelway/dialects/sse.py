"""Server-sent events (WHATWG HTML, section 9.2) and newline-delimited JSON: encode and decode."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from msgspec import Struct

T = TypeVar("T")

_LINE_END = re.compile(rb"\r\n|\n|\r")

KEEP_ALIVE = b": keep-alive\n\n"
STREAM_TYPE = b"text/event-stream; charset=utf-8"


class ServerEvent(Struct, frozen=True):
    """One event of a stream. `data` has its lines joined by a newline; `id` is "" where none came."""

    data: bytes
    event: str = "message"
    id: str = ""


class Decoder:
    """Turns bytes, cut anywhere, into events.

    Understands LF, CRLF and CR, comments, several `data:` lines, a byte order mark, and a value with or
    without a space after the colon. An event that the end of the stream cuts off before its blank line
    is given by `close()`, against the letter of the standard: some upstreams omit the last blank line.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []
        self._event = ""
        self._id = ""
        self._started = False

    @property
    def pending(self) -> int:
        """Bytes that are held because their event is not complete."""
        return len(self._buffer) + sum(map(len, self._data))

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Take the next bytes and give the events that they complete."""
        data = self._buffer + chunk
        if not self._started:
            if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
                self._buffer = data
                return []
            data = data.removeprefix(b"\xef\xbb\xbf")
            self._started = True
        events: list[ServerEvent] = []
        start = 0
        for match in _LINE_END.finditer(data):
            # A CR at the very end may be the first half of a CRLF: wait for what follows.
            if match.group() == b"\r" and match.end() == len(data):
                break
            self._line(data[start : match.start()], events)
            start = match.end()
        self._buffer = data[start:]
        return events

    def close(self) -> list[ServerEvent]:
        """Give what the end of the stream left unfinished."""
        events: list[ServerEvent] = []
        if self._buffer:
            self._line(self._buffer.removesuffix(b"\r"), events)
            self._buffer = b""
        self._dispatch(events)
        return events

    def _line(self, line: bytes, events: list[ServerEvent]) -> None:
        if not line:
            self._dispatch(events)
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._event = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")

    def _dispatch(self, events: list[ServerEvent]) -> None:
        if self._data:
            events.append(ServerEvent(b"\n".join(self._data), self._event or "message", self._id))
        self._data = []
        self._event = ""


def encode(data: bytes, *, event: str = "", id: str = "") -> bytes:
    """One event as bytes; every line of `data` becomes a `data:` line."""
    lines = []
    if event:
        lines.append(f"event: {event}".encode())
    if id:
        lines.append(f"id: {id}".encode())
    lines.extend(b"data: " + line for line in _LINE_END.split(data))
    return b"\n".join(lines) + b"\n\n"


class LineDecoder:
    """Turns bytes, cut anywhere, into the non-empty lines of a newline-delimited stream."""

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def pending(self) -> int:
        """Bytes that are held because their line is not complete."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and give the lines that they complete."""
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return [stripped for line in lines if (stripped := line.strip())]

    def close(self) -> list[bytes]:
        """Give the last line where no newline ended it."""
        rest, self._buffer = self._buffer.strip(), b""
        return [rest] if rest else []


def then_raise(given: Iterable[T], error: Exception) -> Iterable[T]:
    """What was read before a mistake in a stream, and then the error."""
    yield from given
    raise error

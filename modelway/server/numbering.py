"""Numbers the events of a stream, so that a client that lost its connection can ask for the rest."""

from __future__ import annotations

from modelway.dialects import sse
from modelway.errors import GatewayError, InvalidRequest, TurnInterrupted
from modelway.server.dialect import Dialect, Encoder
from modelway.types import Event

BEFORE_ALL = -1
# Without a blank line: once an event has had an id, OpenAI's and Anthropic's SDKs take a comment with one
# for an event without data, and fail to read it.
END_OF_COMMENT = b"\n"
_MOST_DIGITS = 15


class Numbered:
    """Gives each server-sent event that an encoder writes an `id:`, and leaves out the first ones.

    Numbers begin with 0, as the `sequence_number` of OpenAI's responses does. `after` is the last one that
    the client has.
    """

    __slots__ = ("_after", "_encoder", "_number")

    def __init__(self, encoder: Encoder, after: int = BEFORE_ALL) -> None:
        self._encoder = encoder
        self._after = after
        self._number = 0

    def begin(self) -> bytes:
        """The bytes that may come before the first event."""
        return self._numbered(self._encoder.begin())

    def encode(self, event: Event) -> bytes:
        """The bytes for one event."""
        return self._numbered(self._encoder.encode(event))

    def end(self) -> bytes:
        """The bytes after the last event."""
        return self._numbered(self._encoder.end())

    def error(self, error: GatewayError) -> bytes:
        """The bytes that tell of an error in the middle.

        Where a gateway died, its client may have more than was kept: the error comes after that.
        """
        written = self._encoder.error(error)
        events = written.count(b"\n\n")
        if isinstance(error, TurnInterrupted) and self._number + events <= self._after + 1:
            self._number = self._after + 1
        return self._numbered(written)

    def _numbered(self, written: bytes) -> bytes:
        if not written:
            return written
        are_new = self._number > self._after
        if are_new and 0 < written.find(b"\n\n") == len(written) - 2 and not written.startswith(b":"):
            number, self._number = self._number, self._number + 1
            return b"id: %d\n%b" % (number, written)
        events = written[:-2].split(b"\n\n")
        if are_new and not written.startswith(b":") and b"\n\n:" not in written:
            first, self._number = self._number, self._number + len(events)
            return b"".join([b"id: %d\n%b\n\n" % numbered for numbered in enumerate(events, first)])
        return b"".join([self._one(event) for event in events])

    def _one(self, event: bytes) -> bytes:
        """One event with its number; a comment is none, and belongs to the one that follows."""
        is_new = self._number > self._after
        if event.startswith(b":"):
            return event + END_OF_COMMENT if is_new else b""
        numbered = b"id: %d\n%b\n\n" % (self._number, event) if is_new else b""
        self._number += 1
        return numbered


def can_be_numbered(dialect: Dialect) -> bool:
    """Whether a stream in this format is one of server-sent events."""
    return dialect.STREAM_TYPE == sse.STREAM_TYPE


def number_of(text: str, name: str) -> int:
    """The number of the last event that a client has, -1 where it has none; `name` is where it says so."""
    if not text:
        return BEFORE_ALL
    if not text.isdecimal() or not text.isascii() or len(text) > _MOST_DIGITS:
        raise InvalidRequest(f"`{name}` must be the number of an event", param=name)
    return int(text)

"""Counts the tokens of a reply that is passed on: as the upstream tells them, else by the text that came."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from modelway.prices.estimate import tokens_of_characters
from modelway.types import Usage

_FIRST_ERROR = 400
_TAIL_BYTES = 4096
_HELD_BYTES = 65_536
_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
# What upstreams call the text that they write; vectors, pictures and sounds have other names.
_TEXT = re.compile(rb'"(?:text|content|delta|reasoning|reasoning_content|refusal)"\s*:\s*"((?:[^"\\]|\\.)*+)')
_EVENTS = "text/event-stream"
_JSON = "application/json"
# In anything else, such as a file that its caller has sent, "usage" may say what it likes.
_TELLING = (_EVENTS, _JSON)


class _Tokens(Struct):
    prompt_tokens: int = 0
    input_tokens: int = 0
    completion_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


class Meter:
    """Reads along with one reply of this type of content; without any, nothing has come."""

    def __init__(self, content_type: str = "", status: int = 200) -> None:
        self.is_error = status >= _FIRST_ERROR
        self._kind = _kind(content_type)
        self._told = b""
        self._tail = b""
        self._held = b""
        self._characters = 0

    @property
    def is_events(self) -> bool:
        """Whether the reply is a stream of events."""
        return self._kind == _EVENTS

    def ends_event(self) -> bool:
        """Whether what has come so far ends with a whole event, or is nothing."""
        return ends_event(self._tail)

    def read(self, piece: bytes) -> None:
        """The next piece of the reply."""
        seen = self._tail + piece
        self._tail = seen[-_TAIL_BYTES:]
        if self._kind in _TELLING and b'"usage"' in seen and (found := _USAGE.findall(seen)):
            self._told = found[-1]
        if self._kind in _TELLING:
            self._hold(piece)
        elif self._kind == "text/plain":
            self._characters += len(piece)

    def told(self) -> Usage | None:
        """The tokens that the upstream told of, if it did."""
        try:
            tokens = msgspec.json.decode(self._told, type=_Tokens) if self._told else _Tokens()
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        asked = tokens.prompt_tokens or tokens.input_tokens
        written = tokens.completion_tokens or tokens.output_tokens
        if not (asked or written or tokens.total_tokens):
            return None
        found = Usage(asked, written) if asked or written else Usage(tokens.total_tokens, 0)
        return found if found.is_plausible else None

    def written(self) -> int:
        """About how many tokens have come."""
        self._count()
        return tokens_of_characters(self._characters)

    def _hold(self, piece: bytes) -> None:
        """Keep what may be half a line, within reason."""
        self._held += piece
        if len(self._held) > _HELD_BYTES or (self.is_events and self._held.endswith(b"\n")):
            self._count()

    def _count(self) -> None:
        self._characters += sum(len(text) for text in _TEXT.findall(self._held))
        self._held = b""


def is_events(content_type: str) -> bool:
    """Whether this is the type of a stream of events."""
    return _kind(content_type) == _EVENTS


def ends_event(tail: bytes) -> bool:
    """Whether a stream that ends so ends with a whole event, or is nothing."""
    return not tail or tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()

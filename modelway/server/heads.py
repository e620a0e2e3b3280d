"""Knows the head of a request again: on a connection it is repeated, but for the length of the body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from modelway.auth import Found
from modelway.server.cycle import CYCLE

Header = tuple[bytes, bytes]

# Under this name of the scope the head is found, where it may come again.
HEAD = "modelway.head"
# A longer one is not worth its place in the memory of every connection.
MOST_BYTES = 2048
_MOST_DIGITS = 9
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*(?=\r\n)", re.IGNORECASE).finditer
# What in the scope belongs to one request.
_OF_ONE = (CYCLE, "state")
_UNLIKE = frozenset({b"expect", b"transfer-encoding", b"upgrade"})


class Head(Struct):
    """A head that was parsed: its bytes before and after the length of the body, and what ASGI calls it.

    `place` is that of the length among the headers. `is_usual`: whoever answers has looked at it, and found
    nothing in it that must be looked at again. `key` is the one in it, once it was found.
    """

    before: bytes
    after: bytes
    url: bytes
    scope: Mapping[str, Any]
    place: int
    is_usual: bool = False
    key: Found | None = None

    def read(self, received: bytes) -> tuple[list[Header], bytes] | None:
        """The headers and the body of a read that is one whole request with this head; None for any other."""
        before = len(self.before)
        if not received.startswith(self.before):
            return None
        end = received.find(b"\r", before, before + _MOST_DIGITS + 1)
        digits = received[before:end]
        if end < 0 or not digits.isdigit() or not received.startswith(self.after, end):
            return None
        body = received[end + len(self.after) :]
        if len(body) != int(digits):
            return None
        headers = list(self.scope["headers"])
        headers[self.place] = (b"content-length", digits)
        return headers, body


def head_of(received: bytes, url: bytes, scope: Mapping[str, Any]) -> Head | None:
    """The head of a read that the parser has found to be one whole request; None where it is none to keep.

    It has to say the length of a body, once, and ask for nothing but the answer.
    """
    end = received.find(b"\r\n\r\n") + 4
    headers = scope["headers"]
    names = [name for name, _ in headers]
    if end > MOST_BYTES or not _UNLIKE.isdisjoint(names):
        return None
    lengths = list(_LENGTH(received, 0, end - 2))
    if len(lengths) != 1 or len(received) - end != int(lengths[0][1]):
        return None
    digits = lengths[0].span(1)
    said = {name: value for name, value in scope.items() if name not in _OF_ONE}
    head = Head(received[: digits[0]], received[digits[1] : end], url, said, names.index(b"content-length"))
    return head if head.read(received) is not None else None

"""Keeps a secret of a call, such as a key or a token, out of all that is said about the call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from modelway.errors import GatewayError

MIN_HALF = 8


class Secret:
    """A key or token, which an upstream may repeat as it is, or escaped as JSON and URLs permit."""

    def __init__(self, text: str) -> None:
        self._text = text

    def out_of(self, data: bytes) -> bytes:
        """The bytes without the secret, also where they end in the middle of it: messages are cut to size."""
        if not self._text:
            return data
        kept, done = [], 0
        for found in self._letters[0].finditer(data):
            if found.start() >= done and (end := self._end_in(data, found.end())):
                kept += [data[done : found.start()], b"***"]
                done = end
        return b"".join([*kept, data[done:]])

    def out_of_text(self, text: str) -> str:
        """The text without the secret."""
        return self.out_of(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    @contextmanager
    def kept_out_of_errors(self) -> Iterator[None]:
        """Take the secret out of an error that passes."""
        try:
            yield
        except GatewayError as error:
            self.out_of_error(error)
            raise

    def out_of_error(self, error: GatewayError) -> GatewayError:
        """The error without the secret."""
        error.message = self.out_of_text(error.message)
        error.hint = self.out_of_text(error.hint)
        error.args = (error.message,)
        return error

    @cached_property
    def _letters(self) -> list[re.Pattern[bytes]]:
        """What each letter may look like: itself, percent-encoded, or escaped as JSON permits."""
        encoded = self._text.encode()
        forms = dict.fromkeys(encoded, rb"\\*%b|(?i:%%%02x)|\\+(?i:u%04x)")
        known = {
            byte: re.compile(form % (re.escape(bytes([byte])), byte, byte)) for byte, form in forms.items()
        }
        return [known[byte] for byte in encoded]

    def _end_in(self, data: bytes, at: int) -> int:
        """Where the secret ends whose first letter ends there; 0 where this is another text."""
        for number, letter in enumerate(self._letters[1:], 1):
            if (found := letter.match(data, at)) is None:
                # An escaped letter may itself be cut.
                is_cut = number >= MIN_HALF and len(data) - at < 8
                return len(data) if is_cut else 0
            at = found.end()
        return at


NO_SECRET = Secret("")

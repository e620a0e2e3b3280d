"""A key that travels in a URL, and its way out of everything that is said about the call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from modelway.errors import GatewayError


class Secret:
    """The key, which an upstream may repeat as it is or in a form of its URL."""

    def __init__(self, key: str) -> None:
        # Each letter may stand there percent-encoded, or escaped as JSON permits.
        letters = ((re.escape(bytes([byte])), byte, byte) for byte in key.encode())
        forms = (rb"(?:\\?%b|(?i:%%%02x)|(?i:\\u%04x))" % letter for letter in letters)
        self._pattern = re.compile(b"".join(forms)) if key else None

    def out_of(self, data: bytes) -> bytes:
        """The bytes without the key. Messages are cut to size later, which might leave half of it."""
        return self._pattern.sub(b"***", data) if self._pattern else data

    @contextmanager
    def kept_out_of_errors(self) -> Iterator[None]:
        """Take the key out of an error that passes."""
        try:
            yield
        except GatewayError as error:
            error.message = self.out_of(error.message.encode()).decode()
            error.args = (error.message,)
            raise

"""A key that travels in a URL, and its way out of everything that is said about the call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from modelway.errors import GatewayError


class Secret:
    """The key, which an upstream may repeat as it is or as it stands in the URL."""

    def __init__(self, key: str) -> None:
        self._forms = sorted({form for form in (key, quote(key, safe=""), quote(key)) if form}, key=len)

    def out_of(self, data: bytes) -> bytes:
        """The bytes without the key. Messages are cut to size later, which might leave half of it."""
        for form in reversed(self._forms):
            data = data.replace(form.encode(), b"***")
        return data

    @contextmanager
    def kept_out_of_errors(self) -> Iterator[None]:
        """Take the key out of an error that passes."""
        try:
            yield
        except GatewayError as error:
            error.message = self.out_of(error.message.encode()).decode()
            error.args = (error.message,)
            raise

"""What a second parser finds of a request whose head another one has read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelway.server.protocol import Protocol


class AfterHead:
    """Passes on what a parser finds, without the head of the first request."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._in_head = True
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        """Another request begins."""
        if not self._in_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of an address."""
        if not self._in_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        if not self._in_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is complete: the first one, or another request's."""
        if self._in_head:
            self._in_head = False
        else:
            self._protocol.on_headers_complete()

"""Another protocol on a connection: taken up where there is one, declined without losing the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from modelway.server.protocol import Protocol

_FRAMING = (b"content-length", b"transfer-encoding")


def become_socket(protocol: Protocol, data: bytes) -> None:
    """Hand the connection over to the protocol of WebSockets, which is loaded with the first one."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    protocol.stop_timers()
    protocol.connections.discard(protocol)
    lines = [b"%b: %b\r\n" % header for header in protocol.scope["headers"]]
    head = b"".join((b"GET ", protocol.url, b" HTTP/1.1\r\n", *lines, b"\r\n"))
    socket = WebSocketsSansIOProtocol(protocol.config, protocol.server_state, protocol.app_state)
    socket.connection_made(protocol.transport)
    protocol.transport.set_protocol(socket)
    socket.data_received(head + data)


def decline_upgrade(protocol: Protocol) -> None:
    """Go on in HTTP/1.1. The parser takes the body for the other protocol; a second one reads it."""
    framing = [header for header in protocol.scope["headers"] if header[0] in _FRAMING]
    if framing:
        protocol.cycle.more_body = True
        protocol.cycle.message_event.clear()
        protocol.parser = httptools.HttpRequestParser(AfterHead(protocol))
        lines = [b"%b: %b\r\n" % header for header in framing]
        protocol.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(lines) + b"\r\n")


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

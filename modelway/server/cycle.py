"""One request and its reply on a connection: uvicorn's, with a shorter way for our own endpoints."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from modelway.server.corking import CorkedTransport

_Headers = list[tuple[bytes, bytes]]

# Under this name of the scope the cycle is found.
CYCLE = "modelway.cycle"


class Cycle(RequestResponseCycle):
    """uvicorn's, which speaks ASGI; an endpoint may also begin, write and take the body without its messages.

    A message for each step, with a check of each header, costs more than many a step of the gateway. Names of
    headers are in lower case here.
    """

    transport: CorkedTransport  # type: ignore[assignment] # uvicorn knows no other one than asyncio's
    # HTTP/1.0 knows no chunks: without a length, the end of the connection is the end of the body.
    _until_closed = False

    async def send(self, message: Any) -> None:
        """Speak ASGI."""
        if self.scope["http_version"] != "1.0" or self.scope["method"] == "HEAD":
            await super().send(message)
            return
        await self.keep_up()
        if message["type"] == "http.response.start":
            self.begin(message["status"], list(message.get("headers", ())))
        else:
            self.write(message.get("body", b""), last=not message.get("more_body", False))

    def take_body(self) -> bytes | None:
        """The body where all of it has come; None where it has to be waited for, in ASGI's way."""
        if self.more_body or self.disconnected or self.waiting_for_100_continue:
            return None
        self.flow.resume_reading()
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return body

    @property
    def is_slow(self) -> bool:
        """Whether the client does not keep up: what follows has to wait."""
        return self.flow.write_paused and not self.disconnected

    async def keep_up(self) -> None:
        """Wait until the client has taken enough of what was sent."""
        if self.is_slow:
            await self.flow.drain()

    def begin(self, status: int, headers: _Headers) -> None:
        """Send the status and the headers."""
        if not self.disconnected:
            self.transport.write(self._head(status, headers))

    def write(self, body: bytes, *, last: bool) -> None:
        """Send a piece of the body, together with what else is written before the loop turns."""
        if not self.disconnected:
            self.transport.write(self._framed(body, last))
            if last:
                self._complete()

    def write_now(self, body: bytes, *, last: bool) -> None:
        """As write(), for who has nothing more to write before the loop turns."""
        if not self.disconnected:
            self.transport.write_now(self._framed(body, last))
            if last:
                self._complete()

    def reply(self, status: int, headers: _Headers, body: bytes) -> None:
        """Send a whole answer at once."""
        if not self.disconnected:
            self.transport.write_now(self._head(status, headers) + self._framed(body, last=True))
            self._complete()

    def _head(self, status: int, headers: _Headers) -> bytes:
        if self.response_started:
            raise RuntimeError("the reply has begun")
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [b"%b: %b\r\n" % header for header in headers]
        for name, value in headers:
            if name == b"content-length":
                self.chunked_encoding = False
                self.expected_content_length = int(value)
            elif name == b"connection" and value.lower() == b"close":
                self.keep_alive = False
        if not self.keep_alive and b"connection: close\r\n" not in lines:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and status not in {204, 304}:
            self._until_closed = self.scope["http_version"] == "1.0"
            self.chunked_encoding = not self._until_closed
            if self.chunked_encoding:
                lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join((STATUS_LINE[status], *lines, b"\r\n"))
        # A line break or a NUL in a header would split the reply.
        if head.count(b"\n") != len(lines) + 2 or head.count(b"\0") or head.count(b"\r") != len(lines) + 2:
            raise RuntimeError("a header of the reply has a line break in it")
        return head

    def _framed(self, body: bytes, last: bool) -> bytes:
        if not self.response_started or self.response_complete:
            raise RuntimeError("the reply has not begun, or has ended")
        if self.chunked_encoding:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return piece + b"0\r\n\r\n" if last else piece
        if self._until_closed:
            return body
        self.expected_content_length -= len(body)
        if self.expected_content_length < 0 or (last and self.expected_content_length):
            raise RuntimeError("the body is not as long as it was said to be")
        return body

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

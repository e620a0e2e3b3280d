"""One HTTP/1.1 connection to an upstream: bytes go out as they are, answers come in through httptools."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

import httptools

from modelway.errors import UpstreamError, UpstreamProtocolError, UpstreamUnreachable

MAX_BUFFERED_BYTES = 32 * 1024
READ_BYTES = 32 * 1024
MAX_HEAD_BYTES = 64 * 1024
SETTLE_S = 1.0


class Connection(asyncio.BufferedProtocol):
    """One connection and the one exchange on it at a time.

    It is read into `buffer`, of READ_BYTES, which any number of connections share: what has come is parsed at
    once. So a caller who does not read holds no more than these two sizes of each stage of the relay.

    `on_settled` is called when an exchange that the client has left (`settle`) came to its end,
    `on_lost` when the connection is gone. Reading stops while more than MAX_BUFFERED_BYTES wait.

    What comes is waited for (`wait_for_head`, `read`), or else told of (`listen`) and taken (`take`).
    """

    def __init__(
        self,
        host: str,
        loop: asyncio.AbstractEventLoop,
        buffer: memoryview,
        *,
        on_settled: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.host = host
        self.idle_since = 0.0
        self.lost = False
        self._loop = loop
        self._buffer = buffer
        self._on_settled = on_settled
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf
        self._deadline = 0.0
        self._waiter: asyncio.Future[bool] | None = None
        self._listener: Callable[[], None] | None = None
        self._pieces: list[bytes] = []
        # The parser's callback for each piece of a body, 50 of them in a busy read: it never sees Python.
        self.on_body: Callable[[bytes], None] = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.answered = False
        self._head_complete = False
        self._keep_alive = False
        self._dirty = False
        self._ends_with_connection = False
        self._settling = False
        self._paused = False
        self._error: UpstreamError | None = None
        self._pieces.clear()
        self._pieces_of_answer = 0
        self._buffered = 0
        self._framing = 0

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: the last answer came whole and nothing followed it."""
        return (
            self.complete
            and self._keep_alive
            and not self._dirty
            and not self._paused
            and not self.lost
            and not self._transport.is_closing()
            and self._transport.get_write_buffer_size() == 0
        )

    @property
    def failed(self) -> bool:
        """Whether the answer was cut, or never came."""
        return self._error is not None

    @property
    def has_body(self) -> bool:
        """Whether some of the body is there to be taken."""
        return bool(self._pieces)

    @property
    def head_complete(self) -> bool:
        """Whether status and headers of the answer are there."""
        return self._head_complete

    def send(self, request: bytes) -> None:
        """Begin an exchange."""
        self._reset()
        self._transport.write(request)

    async def wait_for_head(self, deadline: float) -> bool:
        """Wait until status and headers are there; False: not before the deadline (of the loop's clock)."""
        while not self._head_complete:
            if self._error is not None:
                raise self._error
            if not await self._wait(deadline):
                return False
        return True

    async def read(self, deadline: float) -> bytes | None:
        """What has come of the body, b"" at its end, None where nothing came before the deadline."""
        while not self._pieces:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            if not await self._wait(deadline):
                return None
        return self.take()

    def listen(self, listener: Callable[[], None] | None, deadline: float = 0.0) -> None:
        """Tell of what comes, of the loss, and where nothing has come by the deadline; None: no longer."""
        self._listener = listener
        if listener is not None:
            self._arm(deadline)

    def expect(self, deadline: float) -> None:
        """The listener has something until then. One timer serves all: it looks again when it fires."""
        if deadline >= self._fires_at:
            self._deadline = deadline
        else:
            self._arm(deadline)

    def take(self) -> bytes:
        """What has come of the body, b"" where nothing has."""
        if not self._pieces:
            return b""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._pieces_of_answer = 0
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return body

    def settle(self) -> None:
        """The client has all that it wants: give the framing of the end a moment to arrive."""
        self._settling = True
        self._pieces.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._arm(self._loop.time() + SETTLE_S)

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next read goes."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what came; what came without a request spoils the connection."""
        self.answered = True
        data = self._buffer[:nbytes]
        pieces_before = len(self._pieces)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail_parsing(error)
            return
        if self._dirty:
            del self._pieces[self._pieces_of_answer :]
        if len(self._pieces) > pieces_before:
            self._framing = 0
            self._buffered += nbytes  # with its framing, so rather too much
        elif not self.complete:
            # One bound for headers, trailers, chunk extensions and endless 1xx replies.
            self._framing += nbytes
            if self._framing > MAX_HEAD_BYTES:
                self._fail(
                    UpstreamProtocolError(
                        f"{self.host} sent more than {MAX_HEAD_BYTES} bytes of headers",
                        code="upstream_too_large",
                    )
                )
        if self._settling:
            self._settle_further()
        elif self._buffered > MAX_BUFFERED_BYTES and not self._paused and not self.complete:
            self._paused = True
            self._transport.pause_reading()
        if (listener := self._listener) is not None:
            listener()
        else:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell apart an end, a cut answer, and a connection that was closed before it answered."""
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self.complete:
            pass
        elif self._ends_with_connection and exc is None:
            self.complete = True
        elif not self.answered:
            self._set_error(UpstreamUnreachable(f"{self.host} closed the connection without an answer"))
        else:
            self._set_error(UpstreamProtocolError(f"{self.host} cut the answer off", code="upstream_reset"))
        self._wake()
        self._on_lost(self)
        # It knows this connection: together they would stay until the garbage is collected.
        del self._parser

    # What the parser calls.

    def on_message_begin(self) -> None:
        """An answer begins; behind a whole one it has no business."""
        if self.complete:
            self._dirty = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; those of the same name are joined, trailers ignored."""
        if self._head_complete:
            return
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """The head is whole; an interim one (1xx) is forgotten."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self.headers = {}
            return
        self.status = status
        self._head_complete = True
        headers = self.headers
        if "content-length" not in headers and "chunked" not in headers.get("transfer-encoding", "").lower():
            self._ends_with_connection = status not in {204, 304}

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._head_complete and not self.complete:
            self.complete = True
            self._pieces_of_answer = len(self._pieces)
            self._keep_alive = self._parser.should_keep_alive()

    def _fail_parsing(self, error: Exception) -> None:
        if self.complete:
            self._dirty = True
            del self._pieces[self._pieces_of_answer :]
        else:
            failure = UpstreamProtocolError(f"{self.host} sent something that is not HTTP/1.1")
            failure.__cause__ = error
            self._fail(failure)
        self._wake()

    def _fail(self, error: UpstreamError) -> None:
        self._set_error(error)
        self._transport.abort()

    def _set_error(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error

    def _settle_further(self) -> None:
        self._pieces.clear()
        if self.complete:
            self._settling = False
            self._on_settled(self)
        elif self._buffered > MAX_BUFFERED_BYTES:
            self.abort()

    async def _wait(self, deadline: float) -> bool:
        """Wait for the next network read or the loss; False: the deadline came first."""
        self._arm(deadline)
        self._waiter = self._loop.create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._listener is not None:
            self._listener()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def _arm(self, deadline: float) -> None:
        """One timer serves all waits: a later deadline is only noted, and looked at when it fires."""
        self._deadline = deadline
        if self._timer is not None:
            if self._fires_at <= deadline:
                return
            self._timer.cancel()
        self._timer, self._fires_at = self._loop.call_at(deadline, self._on_timer), deadline

    def _on_timer(self) -> None:
        self._timer, self._fires_at = None, math.inf
        if self._waiter is None and self._listener is None and not self._settling:
            return
        if self._loop.time() < self._deadline:
            self._arm(self._deadline)
        elif self._settling:
            self.abort()
        elif self._listener is not None:
            self._listener()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(False)

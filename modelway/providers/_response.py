"""A request on its way to an upstream, and the answer to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from modelway.errors import UpstreamProtocolError, UpstreamTimeout, UpstreamUnreachable
from modelway.providers._connection import Connection
from modelway.providers._dial import Origin
from modelway.providers._inflate import Inflater

if TYPE_CHECKING:
    from modelway.providers.http import HTTPClient

STALE_WITHIN_S = 1.0
MAX_DECODED_BYTES = 16 * 1024 * 1024
MAX_ERROR_BODY_BYTES = 64 * 1024


class Prepared(Struct, frozen=True):
    """Where requests go, and their heads but for the length of the body."""

    origin: Origin
    head: bytes
    has_body: bool

    def message(self, body: bytes) -> bytes:
        """The whole request."""
        if body or self.has_body:
            return b"%bcontent-length: %d\r\n\r\n%b" % (self.head, len(body), body)
        return self.head + b"\r\n"


class Sending:
    """A request on its way: sent over a kept connection (`connection`), or about to be over a fresh one.

    A kept one that the upstream has closed meanwhile is replaced once; with `resend` False none is used.
    """

    __slots__ = ("_client", "_limit_s", "_loop", "_message", "_origin", "_resend", "_started", "connection")

    def __init__(
        self, client: HTTPClient, origin: Origin, message: bytes, limit_s: float, *, resend: bool = True
    ) -> None:
        self.connection: Connection | None = None
        self._client = client
        self._origin = origin
        self._message = message
        self._limit_s = limit_s
        self._resend = resend
        self._loop = asyncio.get_running_loop()
        self._started = 0.0

    @property
    def deadline(self) -> float:
        """When the head must be there, by the loop's clock."""
        return self._started + self._limit_s

    def at_once(self) -> bool:
        """Send it, if a kept connection is there; whether it was."""
        connection = self._client.take(self._origin)
        if connection is None:
            return False
        self._send(connection)
        return True

    @property
    def has_head(self) -> bool:
        """Whether status and headers of the answer are there."""
        return self.connection is not None and self.connection.head_complete

    @property
    def is_plain(self) -> bool:
        """Whether the head, which is there, is that of a good answer in no coding."""
        connection = self.connection
        return (
            connection is not None
            and connection.status == 200
            and "content-encoding" not in connection.headers
            and not connection.headers.get("content-type", "").lower().startswith("text/html")
        )

    @property
    def is_stuck(self) -> bool:
        """Whether no answer comes, or not in time."""
        return self.connection is None or self.connection.failed or self._loop.time() >= self.deadline

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Tell of everything that comes, and where nothing comes in time; None: no longer."""
        if self.connection is not None:
            self.connection.listen(listener, self.deadline)

    def answered(self) -> Response:
        """The response whose head is there."""
        connection, self.connection = self.connection, None
        assert connection is not None  # noqa: S101 - the caller has seen it
        return Response(self._client, connection, self._loop, self.deadline, self._limit_s)

    async def response(self) -> Response:
        """Wait for the head of the answer, whatever its status."""
        if self.connection is None and self._resend:
            self.at_once()
        if self.connection is not None:
            try:
                return await self._response(self.connection, reused=True)
            except _Stale:
                pass
        connection = await self._client.connect(self._origin)
        self._send(connection)
        return await self._response(connection, reused=False)

    def abort(self) -> None:
        """Give it up."""
        if self.connection is not None:
            self.connection.listen(None)
            self.connection.abort()

    def _send(self, connection: Connection) -> None:
        self.connection = connection
        self._started = self._loop.time()
        connection.send(self._message)

    async def _response(self, connection: Connection, *, reused: bool) -> Response:
        try:
            if await connection.wait_for_head(self.deadline):
                return self.answered()
            raise UpstreamTimeout(f"{connection.host} did not answer within {self._limit_s:g} s")
        except UpstreamUnreachable as error:
            connection.abort()
            # A close that comes later is the upstream giving up on a request that it took.
            if reused and self._loop.time() - self._started < STALE_WITHIN_S:
                raise _Stale from error
            raise
        except BaseException:
            connection.abort()
            raise


class Response:
    """An answer under way. Close it in every path (`aclosing`): that ends the upstream's work."""

    def __init__(
        self,
        client: HTTPClient,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        first_byte_deadline: float,
        first_byte_timeout_s: float,
    ) -> None:
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        self.host = connection.host
        self._client = client
        self._connection: Connection | None = connection
        self._loop = loop
        self._settings = client.settings
        self._first_byte_deadline = first_byte_deadline
        self._first_byte_timeout_s = first_byte_timeout_s
        self._received = 0
        self._last = 0.0
        self._was_listened_to = False
        self._most = client.settings.max_response_bytes
        self._inflater: Inflater | None = None
        encoding = self.headers.get("content-encoding", "")
        if encoding and encoding.lower() != "identity":
            self._inflater = Inflater(encoding.lower(), self.host)

    @property
    def content_type(self) -> str:
        """The media type, without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def read(self) -> bytes:
        """What has come of the body since the last read, decoded; b"" at its end.

        Raises UpstreamTimeout (`upstream_timeout` where no byte of the body has come yet, otherwise
        `upstream_stalled`) and UpstreamProtocolError (`upstream_reset`, `upstream_too_large`).
        """
        if self._inflater is None:
            data = await self._read()
            limit = self._most
        else:
            data = await self._inflate(self._inflater)
            limit = min(self._most, MAX_DECODED_BYTES)
        self._count(data, limit)
        return data

    async def body(self) -> bytes:
        """All of the body."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def error_body(self) -> bytes:
        """The beginning of the body, as much as the message of an error may need; what is cut is cut."""
        pieces: list[bytes] = []
        size = 0
        try:
            while size < MAX_ERROR_BODY_BYTES and (piece := await self.read()):
                pieces.append(piece)
                size += len(piece)
        except (UpstreamProtocolError, UpstreamTimeout):
            pass  # the status is what matters, and it is known
        return b"".join(pieces)[:MAX_ERROR_BODY_BYTES]

    @property
    def is_whole(self) -> bool:
        """Whether all of the body has been taken."""
        connection = self._connection
        return connection is None or (connection.complete and not connection.has_body and not self._inflater)

    @property
    def is_stuck(self) -> bool:
        """Whether no more of the body comes, or not in time."""
        connection = self._connection
        return connection is None or connection.failed or self._loop.time() >= self._deadline

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Tell of everything that comes, and where nothing comes in time; None: no longer."""
        if self._connection is not None:
            self._was_listened_to = True
            self._connection.listen(listener, self._deadline)

    def take(self) -> bytes:
        """What has come of a body that is not encoded, b"" where nothing has; raises as read() does."""
        connection = self._connection
        if connection is None:
            return b""
        if data := connection.take():
            self._count(data, self._most)
            if not connection.complete:
                connection.expect(self._last + self._settings.idle_timeout_s)
        return data

    def finish(self) -> None:
        """Nothing more is wanted of an answer that is whole but for its framing.

        The connection is kept if the end of the body comes within a second. `aclose()` does nothing then.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.listen(None)
        if connection.complete or connection.lost:
            self._client.release(connection)
        else:
            connection.settle()

    async def aclose(self) -> None:
        """Give the connection back where the answer came whole; otherwise close it at once."""
        self.close()

    def close(self) -> None:
        """As aclose(): nothing of it takes time."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.listen(None)
            self._client.release(connection)

    @property
    def _deadline(self) -> float:
        if self._received:
            return self._last + self._settings.idle_timeout_s
        return self._first_byte_deadline

    def _count(self, data: bytes, most: int) -> None:
        self._received += len(data)
        self._last = self._loop.time()
        if self._received > most:
            raise UpstreamProtocolError(
                f"{self.host} answered with more than {most} bytes", code="upstream_too_large"
            )

    async def _read(self) -> bytes:
        connection = self._connection
        if connection is None:
            return b""
        if not self._was_listened_to:
            # Who has not read for a while does not take it out on the upstream.
            self._last = self._loop.time()
        self._was_listened_to = False
        data = await connection.read(self._deadline)
        if data is None:
            raise self._silence()
        return data

    async def _inflate(self, inflater: Inflater) -> bytes:
        while True:
            if decoded := inflater.more():
                return decoded
            data = await self._read()
            if not data:
                return b""
            inflater.feed(data)

    def _silence(self) -> UpstreamTimeout:
        if not self._received:
            return UpstreamTimeout(
                f"{self.host} sent no part of an answer within {self._first_byte_timeout_s:g} s"
            )
        return UpstreamTimeout(
            f"{self.host} fell silent for {self._settings.idle_timeout_s:g} s inside its answer",
            code="upstream_stalled",
        )


class _Stale(Exception):
    """A kept connection turned out to be closed by the upstream."""

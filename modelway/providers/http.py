"""The HTTP/1.1 client for calls to upstreams: pooled connections, bounded answers, one table of errors.

Proxies, HTTP/2 and client certificates are out of its scope.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Mapping

from modelway._version import __version__
from modelway.config import UpstreamSettings
from modelway.errors import (
    ProviderNotConfigured,
    ShuttingDown,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelway.provider import CONNECT_LIMIT_S
from modelway.providers._calling import (
    errors_of,
    events_of,
    events_of_body,
    good_response,
    raise_for_status,
)
from modelway.providers._connection import READ_BYTES, Connection
from modelway.providers._dial import Origin, Resolve, dial, parse_url, resolve
from modelway.providers._inflate import Inflater
from modelway.providers._redaction import Secret

__all__ = [
    "HTTPClient",
    "Response",
    "Secret",
    "errors_of",
    "events_of",
    "events_of_body",
    "good_response",
    "parse_url",
    "raise_for_status",
]

MAX_IDLE_CONNECTIONS = 256
MAX_IDLE_S = 55.0
STALE_WITHIN_S = 1.0
MAX_DECODED_BYTES = 16 * 1024 * 1024
MAX_ERROR_BODY_BYTES = 64 * 1024

_FORBIDDEN_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
_IS_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch


class HTTPClient:
    """Calls upstreams; one for a process, shared by all providers.

    Connections are kept alive and taken again last in, first out. `tls` replaces the system's trust,
    `resolve` its way from names to addresses.
    """

    def __init__(
        self, settings: UpstreamSettings, *, tls: ssl.SSLContext | None = None, resolve: Resolve = resolve
    ) -> None:
        self.settings = settings
        self._tls = tls
        self._resolve = resolve
        self._idle: dict[Origin, deque[Connection]] = {}
        self._origins: dict[Connection, Origin] = {}
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._closed = False
        self._all_lost: asyncio.Future[None] | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        first_byte_timeout_s: float | None = None,
        resend: bool = True,
    ) -> Response:
        """Send a request and wait for the head of the answer, whatever its status.

        Header names are given in lower case. A kept connection that the upstream has closed meanwhile
        is replaced once by a fresh one; with `resend` False kept ones are not used at all, so that
        nothing is ever sent twice. HEAD is not supported: its answers would need another parser.
        """
        origin, target = parse_url(url)
        message = _encode_head(method, target, origin, headers, len(body)) + body
        limit = self.settings.first_byte_timeout_s if first_byte_timeout_s is None else first_byte_timeout_s
        connection = self._take(origin) if resend else None
        if connection is not None:
            try:
                return await self._exchange(connection, message, limit)
            except _Stale:
                pass
        return await self._exchange(await self._connect(origin), message, limit)

    async def aclose(self) -> None:
        """Close all connections, also those in use, and wait until they are gone."""
        self._closed = True
        for connection in list(self._origins):
            connection.abort()
        self._idle.clear()
        if self._origins:
            self._all_lost = asyncio.get_running_loop().create_future()
            await self._all_lost

    async def _exchange(self, connection: Connection, message: bytes, limit_s: float) -> Response:
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + limit_s
        reused = connection.idle_since > 0
        try:
            connection.send(message)
            if await connection.wait_for_head(deadline):
                return Response(self, connection, loop, deadline, limit_s)
            raise UpstreamTimeout(f"{connection.host} did not answer within {limit_s:g} s")
        except UpstreamUnreachable as error:
            connection.abort()
            # A close that comes later is the upstream giving up on a request that it took.
            if reused and loop.time() - started < STALE_WITHIN_S:
                raise _Stale from error
            raise
        except BaseException:
            connection.abort()
            raise

    async def _connect(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        self._refuse_if_closed()

        def make() -> Connection:
            return Connection(
                origin.authority, loop, self._buffer, on_settled=self.release, on_lost=self._forget
            )

        connection = await dial(
            origin,
            make,
            tls=self._trust,
            resolve=self._resolve,
            timeout_s=CONNECT_LIMIT_S.get() or self.settings.connect_timeout_s,
        )
        if not connection.lost:
            self._origins[connection] = origin
        try:
            self._refuse_if_closed()
        except ShuttingDown:
            connection.abort()
            raise
        return connection

    def _take(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        if not idle:
            return None
        oldest = asyncio.get_running_loop().time() - MAX_IDLE_S
        while idle:
            connection = idle.pop()
            if connection.reusable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    def release(self, connection: Connection) -> None:
        """Keep a connection for the next request if it can serve one, otherwise close it."""
        if self._closed or not connection.reusable:
            connection.abort()
            return
        idle = self._idle.setdefault(self._origins[connection], deque())
        now = asyncio.get_running_loop().time()
        connection.idle_since = now
        # The bottom of the stack is what grows old; one look at each return keeps it short.
        if idle and (len(idle) >= MAX_IDLE_CONNECTIONS or idle[0].idle_since < now - MAX_IDLE_S):
            idle.popleft().abort()
        idle.append(connection)

    def _forget(self, connection: Connection) -> None:
        self._origins.pop(connection, None)
        if self._all_lost is not None and not self._origins and not self._all_lost.done():
            self._all_lost.set_result(None)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ShuttingDown("the connections to upstreams are closed already")

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


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
            limit = self._settings.max_response_bytes
        else:
            data = await self._inflate(self._inflater)
            limit = min(self._settings.max_response_bytes, MAX_DECODED_BYTES)
        self._received += len(data)
        if self._received > limit:
            raise UpstreamProtocolError(
                f"{self.host} answered with more than {limit} bytes", code="upstream_too_large"
            )
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

    def finish(self) -> None:
        """Nothing more is wanted of an answer that is whole but for its framing.

        The connection is kept if the end of the body comes within a second. `aclose()` does nothing then.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.complete or connection.lost:
            self._client.release(connection)
        else:
            connection.settle()

    async def aclose(self) -> None:
        """Give the connection back where the answer came whole; otherwise close it at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.release(connection)

    async def _read(self) -> bytes:
        connection = self._connection
        if connection is None:
            return b""
        if self._received:
            data = await connection.read(self._loop.time() + self._settings.idle_timeout_s)
        else:
            data = await connection.read(self._first_byte_deadline)
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


def _encode_head(method: str, target: str, origin: Origin, headers: Mapping[str, str], length: int) -> bytes:
    lines = [f"{method} {target} HTTP/1.1\r\nhost: {origin.authority}\r\naccept-encoding: identity"]
    if "user-agent" not in headers:
        lines.append(f"user-agent: modelway/{__version__}")
    for name, value in headers.items():
        if not _IS_NAME(name) or _FORBIDDEN_IN_VALUE(value) or not value.isascii():
            raise ProviderNotConfigured(
                f"the value of the header {name!r} has characters that HTTP does not permit",
                hint="check the key and the headers in the configuration",
            )
        lines.append(f"{name}: {value}")
    if length or method == "POST":
        lines.append(f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

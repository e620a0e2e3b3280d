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
from modelway.errors import ProviderNotConfigured, ShuttingDown
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
from modelway.providers._redaction import Secret
from modelway.providers._response import Prepared, Response, Sending

__all__ = [
    "HTTPClient",
    "Prepared",
    "Response",
    "Secret",
    "Sending",
    "errors_of",
    "events_of",
    "events_of_body",
    "good_response",
    "parse_url",
    "raise_for_status",
]

MAX_IDLE_CONNECTIONS = 256
MAX_IDLE_S = 55.0

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
        limit = self.settings.first_byte_timeout_s if first_byte_timeout_s is None else first_byte_timeout_s
        prepared = self.prepare(method, url, headers)
        return await Sending(self, prepared.origin, prepared.message(body), limit, resend=resend).response()

    def prepare(self, method: str, url: str, headers: Mapping[str, str]) -> Prepared:
        """What requests to this address have in common; the arguments are those of request()."""
        origin, target = parse_url(url)
        return Prepared(origin, _encode_head(method, target, origin, headers), method == "POST")

    def sending(self, prepared: Prepared, body: bytes) -> Sending:
        """A request that is sent by its at_once(), or when its response() is waited for."""
        return Sending(self, prepared.origin, prepared.message(body), self.settings.first_byte_timeout_s)

    async def aclose(self) -> None:
        """Close all connections, also those in use, and wait until they are gone."""
        self._closed = True
        for connection in list(self._origins):
            connection.abort()
        self._idle.clear()
        if self._origins:
            self._all_lost = asyncio.get_running_loop().create_future()
            await self._all_lost

    async def connect(self, origin: Origin) -> Connection:
        """A fresh connection."""
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

    def take(self, origin: Origin) -> Connection | None:
        """A kept connection, if there is one that can be used."""
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


def _encode_head(method: str, target: str, origin: Origin, headers: Mapping[str, str]) -> bytes:
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
    return ("\r\n".join(lines) + "\r\n").encode("ascii")

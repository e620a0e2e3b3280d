"""From a URL to a connected socket: names, addresses, TLS, and what each failure means."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from modelway.errors import ProviderNotConfigured, UpstreamTimeout, UpstreamUnreachable
from modelway.providers._connection import Connection

# Cloud machines serve their credentials here; link-local addresses in general are refused for it.
_METADATA = ipaddress.ip_address("fd00:ec2::254")

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
Resolve = Callable[[str, int], Awaitable[Sequence[AddressInfo]]]


class Origin(Struct, frozen=True):
    """What connections are shared by: one scheme, host and port. `authority` is the value of Host."""

    secure: bool
    host: str
    port: int
    authority: str


@functools.lru_cache(maxsize=256)
def parse_url(url: str) -> tuple[Origin, str]:
    """The origin and the target (path and query) of a URL; raises ProviderNotConfigured for a bad one."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii") if parts.hostname else ""
    except ValueError as error:
        raise _bad_url("cannot be read") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise _bad_url("does not begin with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise _bad_url("holds a user name or a password")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or not target.isprintable() or " " in target:
        raise _bad_url("has characters that must be percent-encoded")
    secure = parts.scheme == "https"
    usual_port = 443 if secure else 80
    authority = f"[{host}]" if ":" in host else host
    if port not in {None, usual_port}:
        authority = f"{authority}:{port}"
    return Origin(secure, host, port or usual_port, authority), target


async def resolve(host: str, port: int) -> Sequence[AddressInfo]:
    """Ask the system for the addresses of a name."""
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def dial(
    origin: Origin,
    make: Callable[[], Connection],
    *,
    tls: Callable[[], ssl.SSLContext],
    resolve: Resolve,
    timeout_s: float,
) -> Connection:
    """Connect to an origin. Raises errors with `sent` False: the upstream certainly took nothing."""
    loop = asyncio.get_running_loop()
    context = tls() if origin.secure else None
    deadline = loop.time() + timeout_s
    try:
        async with asyncio.timeout_at(deadline):
            infos = await resolve(origin.host, origin.port)
        sock = await _connect_first(_allowed(origin, infos), deadline)
        return await _open(origin, make, sock, context, deadline)
    except TimeoutError as error:
        raise UpstreamTimeout(
            f"{origin.authority} took no connection within {timeout_s:g} s", sent=False
        ) from error
    except socket.gaierror as error:
        raise UpstreamUnreachable(
            f"the name {origin.host} has no address",
            hint="check base_url and the network",
            code="upstream_dns",
            sent=False,
        ) from error
    except ssl.SSLError as error:
        raise UpstreamUnreachable(
            f"no TLS connection with {origin.authority}: {_tls_reason(error)}",
            code="upstream_tls",
            sent=False,
        ) from error
    except OSError as error:
        raise UpstreamUnreachable(
            f"{origin.authority} cannot be reached: {error.strerror or 'connection failed'}",
            hint="check that it runs and that base_url is right",
            sent=False,
        ) from error


async def _open(
    origin: Origin,
    make: Callable[[], Connection],
    sock: socket.socket,
    context: ssl.SSLContext | None,
    deadline: float,
) -> Connection:
    loop = asyncio.get_running_loop()
    name = origin.host if context else None
    try:
        async with asyncio.timeout_at(deadline):
            _, connection = await loop.create_connection(make, sock=sock, ssl=context, server_hostname=name)
    except ConnectionError as error:
        # The connection was there: whoever hangs up now does so on the handshake.
        raise UpstreamUnreachable(
            f"no TLS connection with {origin.authority}: it hung up", code="upstream_tls", sent=False
        ) from error
    return connection


async def _connect_first(infos: Sequence[AddressInfo], deadline: float) -> socket.socket:
    """Try the addresses in turn. Each has its share of the time, so that a dead IPv6 leaves some for IPv4."""
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for index, (family, kind, protocol, _, address) in enumerate(infos):
        share = (deadline - loop.time()) / (len(infos) - index)
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(max(share, 0)):
                await loop.sock_connect(sock, address)
        except OSError as error:  # TimeoutError is one
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError("no address")


def _allowed(origin: Origin, infos: Sequence[AddressInfo]) -> list[AddressInfo]:
    """The addresses that may be dialled: checked here, after the name was resolved, and then used as such."""
    allowed = [info for info in infos if not _is_forbidden(info[4][0])]
    if not allowed:
        raise ProviderNotConfigured(
            f"{origin.host} is a link-local address, which providers must not have",
            hint="set another base_url",
            code="base_url_not_allowed",
        )
    return sorted(allowed, key=lambda info: _rank(info, allowed))


def _rank(info: AddressInfo, infos: Sequence[AddressInfo]) -> int:
    """Families take turns: the resolver's first of each, then the second of each."""
    return [other for other in infos if other[0] == info[0]].index(info)


def _is_forbidden(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_link_local
    return ip.is_link_local or ip == _METADATA


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    return (error.reason or "handshake failed").lower().replace("_", " ")


def _bad_url(reason: str) -> ProviderNotConfigured:
    return ProviderNotConfigured(
        f"the provider's address {reason}",
        hint="set base_url to an http or https URL",
        code="base_url_not_allowed",
    )

"""Refuses requests that no program of the user's sent: rebound host names, foreign web pages."""

from __future__ import annotations

import re
from collections.abc import Callable

from modelway.config import ServerSettings
from modelway.errors import (
    GatewayError,
    InvalidRequest,
    PermissionDenied,
    UnsupportedMediaType,
    WrongHost,
)
from modelway.server.exchange import Exchange, Scope

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")
_ALLOWED_METHODS = b"GET, POST, DELETE, OPTIONS"


class Guard:
    """Checks Host, Origin, Sec-Fetch-Site and the type of the body, before anything is executed.

    A name that an attacker lets point to 127.0.0.1 (DNS rebinding) fails by its Host; a foreign page
    fails by its Origin, or by having to declare a body type that browsers ask permission for.
    """

    def __init__(
        self, settings: ServerSettings, takes_forms: Callable[[str], bool] = lambda _: False
    ) -> None:
        """`takes_forms` says of an address whether files may be sent to it as a form."""
        self._takes_forms = takes_forms
        own = () if settings.host in ("0.0.0.0", "::") else (settings.host,)  # noqa: S104
        self._names = {name.lower() for name in (*LOOPBACK_NAMES, *own, *settings.allowed_hosts)}
        self._any_name = "*" in settings.allowed_hosts
        self._origins = set(settings.allowed_origins)
        self._known_hosts: set[bytes] = set()

    def check(self, exchange: Exchange) -> None:
        """Raise a GatewayError for a request that must not be executed."""
        host = self._single_host(exchange.scope)
        if host not in self._known_hosts:
            self._check_host(host)
            if len(self._known_hosts) < 256:
                self._known_hosts.add(host)
        if b"origin" in exchange.headers:
            self._check_origin(exchange)
        elif exchange.header(b"sec-fetch-site") == "cross-site" and not _is_navigation(exchange):
            raise _foreign()
        if exchange.method == "POST":
            self._check_body_type(exchange)

    def preflight(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """The headers that let a configured origin's page ask; the origin has been checked before."""
        wanted = exchange.headers.get(b"access-control-request-headers", b"")
        return [
            (b"access-control-allow-methods", _ALLOWED_METHODS),
            (b"access-control-allow-headers", wanted or b"authorization, content-type"),
            (b"access-control-max-age", b"600"),
        ]

    def _single_host(self, scope: Scope) -> bytes:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            raise InvalidRequest("the request must have exactly one Host header", code="invalid_host")
        host: bytes = hosts[0]
        return host

    def _check_host(self, value: bytes) -> None:
        text = value.decode("latin-1")
        match = _HOST.fullmatch(text)
        if match is None:
            raise InvalidRequest("the Host header is malformed", code="invalid_host")
        if not self._any_name and match[1].lower() not in self._names:
            raise WrongHost(
                "this server does not answer to that host name",
                hint="use localhost, or add the name to [server] allowed_hosts",
            )

    def _check_origin(self, exchange: Exchange) -> None:
        origin = exchange.header(b"origin")
        host = exchange.header(b"host")
        if origin in (f"http://{host}", f"https://{host}"):
            return
        if origin not in self._origins:
            raise _foreign()
        exchange.reply_headers += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", b"*"),
            (b"vary", b"Origin"),
        ]

    def _check_body_type(self, exchange: Exchange) -> None:
        declared = exchange.header(b"content-type").partition(";")[0].strip().lower()
        if not declared or declared == "application/json":
            return
        if declared == "multipart/form-data" and self._takes_forms(exchange.path):
            return
        raise UnsupportedMediaType(
            "the body must be JSON", hint='send the header "Content-Type: application/json"'
        )


def _foreign() -> GatewayError:
    return PermissionDenied(
        "pages of other origins may not use this server",
        code="origin_not_allowed",
        hint="add the origin to [server] allowed_origins",
    )


def _is_navigation(exchange: Exchange) -> bool:
    return exchange.method == "GET" and exchange.header(b"sec-fetch-mode") == "navigate"

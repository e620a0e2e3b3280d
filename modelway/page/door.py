"""Where requests for the page come in; what it is made of is loaded with the first one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from modelway.auth import Auth
from modelway.errors import AuthenticationError, MethodNotAllowed, NotFound
from modelway.gateway import Gateway
from modelway.page.signing import Badges, cookie, read_shown
from modelway.server.exchange import Exchange
from modelway.telemetry import Telemetry
from modelway.types import Caller

if TYPE_CHECKING:
    from modelway.page.building import Built

_PLACES = frozenset({"", "c", "figures", "login", "page", "providers", "static"})
# What is done there takes as long as an answer.
_ASKING = frozenset({"/page/send", "/page/test"})
_MOST_SHOWN = 4096


class Door:
    """Answers the addresses of the page, for whoever has a key where one is needed."""

    def __init__(self, gateway: Gateway, auth: Auth, telemetry: Telemetry, max_body_bytes: int) -> None:
        self._gateway = gateway
        self._auth = auth
        self._telemetry = telemetry
        self._max_body_bytes = max_body_bytes
        self._badges = Badges()
        self._loading = asyncio.Lock()
        self._built: Built | None = None
        self._router: Router | None = None

    def owns(self, path: str) -> bool:
        """Whether the address is one of the page's."""
        return path[1:].partition("/")[0] in _PLACES

    async def __call__(self, exchange: Exchange, make_room: Callable[[Exchange], None]) -> None:
        """Answer a request that the guard has let pass.

        `make_room` counts it among those that are answered, and raises Overloaded if it cannot.
        """
        is_open = exchange.path == "/login" or exchange.path.startswith("/static/")
        if not is_open and not await self._lets_in(exchange):
            return
        if exchange.path in _ASKING:
            make_room(exchange)
        built = await self._load()
        if exchange.path == "/login" and exchange.method == "POST":
            await self._log_in(exchange)
        elif exchange.path == "/page/logout" and exchange.method == "POST":
            self._badges.revoke(exchange)
            await exchange.reply(200, b"{}", [(b"set-cookie", cookie("", secure=False))])
        elif exchange.path == "/page/events" and exchange.method == "GET":
            await built.events(exchange, partial(self._knows, exchange))
        else:
            await self._route(exchange)

    @property
    def under_way(self) -> int:
        """How many answers are that were asked for on the page."""
        return 0 if self._built is None else self._built.frame.drafts.under_way

    def close_streams(self) -> None:
        """End what would otherwise go on for as long as a page is open."""
        if self._built is not None:
            self._built.events.close()

    async def aclose(self) -> None:
        """End the answers under way, and delete what waits to be deleted."""
        if self._built is not None:
            self.close_streams()
            await self._built.frame.drafts.aclose()
            await self._built.frame.trash.aclose()
            await self._built.watching.aclose()

    def _identify(self, exchange: Exchange) -> Caller:
        return self._auth.identify(exchange.api_key or self._badges.key(exchange))

    def _knows(self, exchange: Exchange) -> bool:
        """Whether somebody who was let in would be let in again."""
        try:
            return self._identify(exchange).name == exchange.caller.name
        except AuthenticationError:
            return False

    async def _lets_in(self, exchange: Exchange) -> bool:
        try:
            exchange.caller = self._identify(exchange)
        except AuthenticationError:
            if exchange.method == "GET" and b"text/html" in exchange.headers.get(b"accept", b""):
                await exchange.start(303, [(b"location", b"/login"), (b"content-length", b"0")])
                await exchange.write(b"", last=True)
                return False
            raise
        exchange.record.caller = exchange.caller.name
        return True

    async def _log_in(self, exchange: Exchange) -> None:
        key = read_shown(await exchange.body(_MOST_SHOWN))
        self._auth.identify(key)
        is_secure = exchange.scope.get("scheme") == "https"
        await exchange.reply(200, b"{}", [(b"set-cookie", cookie(self._badges.issue(key), secure=is_secure))])

    async def _route(self, exchange: Exchange) -> None:
        assert self._router is not None  # noqa: S101 - _load() has made it
        exchange.scope["modelway.exchange"] = exchange
        exchange.scope["app"] = self
        try:
            await self._router(exchange.scope, exchange.receive, exchange.send)
        except HTTPException as error:
            if error.status_code == 405:
                raise MethodNotAllowed(f"{exchange.method} is not possible here") from None
            raise NotFound("the page has nothing at this address", hint="it begins at /") from None

    async def _load(self) -> Built:
        """Load what the page is made of; in a thread, as the libraries take a moment."""
        if self._built is None:
            async with self._loading:
                if self._built is None:
                    self._built = await asyncio.to_thread(self._build)
                    self._router = Router(self._routes(self._built), redirect_slashes=False)
        return self._built

    def _build(self) -> Built:
        from modelway.page.building import build  # noqa: PLC0415 - loads what renders

        return build(self._gateway, self._telemetry, self._max_body_bytes)

    def _routes(self, built: Built) -> list[Route]:
        """Every address but the few that are answered here."""
        found: list[Any] = [
            Route(path, endpoint, methods=[method]) for method, path, endpoint in built.endpoints
        ]
        return found

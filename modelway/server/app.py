"""The ASGI application: guard, identify, find the route, and turn whatever fails into a reply."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import cast

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from modelway.auth import Auth
from modelway.config import ServerSettings
from modelway.errors import (
    GatewayError,
    InternalError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    ShuttingDown,
)
from modelway.gateway import Gateway
from modelway.server.addresses import addresses_of
from modelway.server.beside import Page
from modelway.server.chat import ChatEndpoint
from modelway.server.cycle import Cycle
from modelway.server.exchange import ClientGone, Exchange, Receive, Scope, Send
from modelway.server.following import DETACH_HEADER, LAST_HEADER
from modelway.server.formats import dialect_of, is_ollama_s
from modelway.server.guard import Guard
from modelway.server.heads import HEAD, Head
from modelway.server.keyed import KEY_HEADER
from modelway.server.keys import KeyWatch
from modelway.server.sockets import Socket, handshake
from modelway.server.straight_reply import StraightReply
from modelway.straight import Straight
from modelway.telemetry import Telemetry
from modelway.types import Caller, ChatRequest

# Starts a task that speaks ASGI.
Run = Callable[[Callable[[Scope, Receive, Send], Awaitable[None]]], None]

log = logging.getLogger("modelway.server")

# Headers that ask for more than an answer.
_UNUSUAL = frozenset(
    {
        b"origin",
        b"sec-fetch-site",
        KEY_HEADER,
        LAST_HEADER,
        DETACH_HEADER,
        b"x-modelway-provider",
        b"x-modelway-conversation-id",
    }
)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
LAST_WORDS_S = 0.5


class Application:
    """What the HTTP server calls for each request."""

    def __init__(
        self,
        gateway: Gateway,
        auth: Auth,
        telemetry: Telemetry,
        settings: ServerSettings,
        *,
        page: Page | None = None,
        preload: bool = False,
    ) -> None:
        self._gateway = gateway
        self._auth = auth
        self._telemetry = telemetry
        self._page = page
        self._preload = preload
        self._is_draining = False
        gateway.live.on_begin, gateway.live.on_end = telemetry.turn_begun, telemetry.turn_ended
        self._most_at_once = settings.max_concurrent_requests
        self._at_once = 0
        self._sockets: set[Socket] = set()
        self._keys = KeyWatch(auth, gateway.conversations.callers, gateway.accounts)

        addresses = addresses_of(gateway, auth, telemetry, settings)
        self.routes = addresses.routes
        self._chats = addresses.chats
        self._straight: dict[Exchange, StraightReply] = {}
        self._guard = Guard(settings, addresses.relay.has)
        self._router = Router(self.routes, redirect_slashes=False)

    @property
    def is_answering(self) -> bool:
        """Whether anything goes on in which no task of the server may be waiting."""
        return bool(self._straight) or self._gateway.live.is_answering or self._asked_on_page > 0

    def drain(self) -> None:
        """Take nothing new, and end what is open for as long as somebody looks at it; all else goes on."""
        self._is_draining = True
        if self._page is not None:
            self._page.close_streams()
        for socket in self._sockets:
            socket.leave()
        for reply in list(self._straight.values()):
            reply.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            exchange = Exchange(scope, receive, send, self._telemetry)
            await self._serve(exchange, partial(self._checked, exchange))
        elif scope["type"] == "websocket":
            await self._converse(scope, receive, send)

    def begin_at_once(self, scope: Scope, cycle: Cycle, run: Run) -> bool:
        """Begin to answer a request of which all has come; False, and nothing has happened: call the app.

        Requests for the busiest addresses have no task of their own, as long as nothing has to be waited for;
        `run` starts one for what comes then.
        """
        chat = self._chats.get(scope["path"])
        if chat is None or scope["method"] != "POST" or self._is_draining:
            return False
        exchange = Exchange(scope, cast("Receive", cycle.receive), cycle.send, self._telemetry)
        try:
            begun = self._begun(chat, exchange)
        except Exception:  # noqa: BLE001 - the task meets the same, and tells of it
            begun = None
        if begun is None:
            self._release(exchange)
            run(partial(self._serve_asgi, exchange, partial(self._checked, exchange)))
            return True

        def go_on(exchange: Exchange, work: Callable[[], Awaitable[None]]) -> None:
            self._straight.pop(exchange, None)
            run(partial(self._serve_asgi, exchange, work))

        reply = StraightReply(chat, exchange, *begun, go_on=go_on, on_end=self._end)
        self._straight[exchange] = reply
        reply.start()
        return True

    def _begun(self, chat: ChatEndpoint, exchange: Exchange) -> tuple[ChatRequest, Straight] | None:
        head: Head | None = exchange.scope.get(HEAD)
        if head is None or not head.is_usual:
            if exchange.scope["query_string"] or not _UNUSUAL.isdisjoint(exchange.headers):
                return None
            self._guard.check(exchange)
            if head is not None:
                head.is_usual = True
        exchange.encode_error = chat.encode_error
        self._admit(exchange)
        return chat.straight(exchange)

    async def _serve_asgi(
        self,
        exchange: Exchange,
        work: Callable[[], Awaitable[None]],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """As ASGI wants to call it."""
        del scope, receive, send
        await self._serve(exchange, work)

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer on a connection that stays open; each of its requests comes back as one over HTTP."""
        await receive()
        asked, refuse = handshake(scope, send)
        exchange = Exchange(asked, receive, refuse, self._telemetry)
        await self._serve(exchange, partial(self._let_in, exchange))
        if exchange.started:
            return
        socket = Socket(self, scope, receive, send)
        self._sockets.add(socket)
        try:
            await socket.run()
        finally:
            self._sockets.discard(socket)

    async def _let_in(self, exchange: Exchange) -> None:
        """Check a handshake: whoever comes from elsewhere, or without a key, is answered over HTTP."""
        self._guard.check(exchange)
        if self._is_draining:
            raise ShuttingDown("the server is going down", hint="connect again", retry_after=1)
        exchange.caller = self._auth.identify(exchange.api_key)
        exchange.record.caller, exchange.record.status = exchange.caller.name, 101

    async def _checked(self, exchange: Exchange) -> None:
        exchange.encode_error = dialect_of(exchange.path, exchange.headers).encode_error
        self._guard.check(exchange)
        await self._dispatch(exchange)

    async def _serve(self, exchange: Exchange, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work of a request; whatever fails becomes a reply."""
        try:
            await work()
        except ClientGone:
            exchange.note_gone()
        except GatewayError as error:
            await exchange.fail(error)
            _let_go(error)
        except HTTPException as error:
            await exchange.fail(_routing_error(exchange, error, self.routes))
        except asyncio.CancelledError:
            reason = _cancellation(exchange)
            # A client that does not read must not keep the process from ending.
            with suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await exchange.fail(reason)
        except Exception:
            # A bug in the path of a request ends here: the log has it, the client gets the id to ask for.
            log.exception("request %s failed", exchange.request_id)
            await exchange.fail(_bug(exchange))
        finally:
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        """A request is over."""
        self._straight.pop(exchange, None)
        self._release(exchange)
        self._telemetry.end(exchange.record)
        # It has the scope too: together they would stay until the garbage is collected.
        exchange.scope.pop("modelway.exchange", None)

    def _release(self, exchange: Exchange) -> None:
        if exchange.release is not None:
            exchange.release()
            exchange.release = None

    async def _dispatch(self, exchange: Exchange) -> None:
        if exchange.method == "OPTIONS" and b"access-control-request-method" in exchange.headers:
            await exchange.reply(204, b"", self._guard.preflight(exchange))
            return
        if self._is_draining and exchange.path != "/healthz":
            exchange.reply_headers.append((b"connection", b"close"))
            raise ShuttingDown("the server is going down", hint="send the request again", retry_after=1)
        if self._page is not None and self._page.owns(exchange.path):
            await self._page(exchange, self._make_room)
            return
        self._admit(exchange)
        if exchange.path == "/v1/chat/completions" and exchange.method == "POST":
            # The busiest address skips the search through the list of routes.
            await self._chats[exchange.path](exchange)
            return
        exchange.scope["modelway.exchange"] = exchange
        exchange.scope["app"] = self
        await self._router(exchange.scope, exchange.receive, exchange.send)

    def _admit(self, exchange: Exchange) -> None:
        """Find out who asks, and whether there is room for one more."""
        if exchange.path not in OPEN_PATHS:
            exchange.caller = self._caller(exchange)
            exchange.record.caller = exchange.caller.name
        if self._most_at_once and exchange.method == "POST":
            self._make_room(exchange)

    def _caller(self, exchange: Exchange) -> Caller:
        head: Head | None = exchange.scope.get(HEAD)
        if head is None:
            return self._auth.identify(exchange.api_key)
        # A head that is known again has the same key in it.
        caller = self._auth.recall(head.key) if head.key is not None else None
        if caller is None:
            head.key = self._auth.find(exchange.api_key)
            caller = self._auth.caller(head.key)
        return caller

    def _make_room(self, exchange: Exchange) -> None:
        """Count a request among those that are answered at the same time; raises Overloaded."""
        if not self._most_at_once:
            return
        if self._at_once + self._gateway.live.under_way + self._asked_on_page >= self._most_at_once:
            raise Overloaded(
                f"{self._most_at_once} requests are being answered, which is the most",
                hint="wait, or raise [server] max_concurrent_requests",
                retry_after=1,
            )
        self._at_once += 1
        exchange.release = self._count_out

    @property
    def _asked_on_page(self) -> int:
        return 0 if self._page is None else self._page.under_way

    def _count_out(self) -> None:
        self._at_once -= 1

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            try:
                await self._keys.start()
                if self._preload:
                    await self._gateway.preload()
            except GatewayError as error:
                await send({"type": "lifespan.startup.failed", "message": error.explanation})
                return
            await send({"type": "lifespan.startup.complete"})
            # A second Ctrl-C cancels this instead of sending the message.
            with suppress(asyncio.CancelledError):
                await receive()
        finally:
            await self._keys.aclose()
            if self._page is not None:
                await self._page.aclose()
            await self._gateway.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def _bug(exchange: Exchange) -> GatewayError:
    return InternalError("internal error", hint=f"the log has it under {exchange.request_id}")


def _cancellation(exchange: Exchange) -> GatewayError:
    """Why a request was cancelled: by the end of the grace time or, if by nobody, by a bug."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return ShuttingDown("the server is going down", hint="send the request again")
    log.exception("request %s waited for something that was called off", exchange.request_id)
    return _bug(exchange)


def _let_go(error: GatewayError) -> None:
    """Empty the frames that it has come through.

    They hold the error, and it holds them: with the body of the request in them they would stay until the
    garbage is collected.
    """
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__context__


def _routing_error(exchange: Exchange, error: HTTPException, routes: list[Route]) -> GatewayError:
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        exchange.reply_headers.append((b"allow", allowed.encode()))
        return MethodNotAllowed(f"{exchange.method} is not possible here", hint=f"use {allowed}")
    if is_ollama_s(exchange.path):
        return NotFound(
            "Modelway does not have this address of Ollama's", hint="docs/api.md lists the others"
        )
    there = ", ".join(dict.fromkeys(route.path.replace(":path", "") for route in routes))
    return NotFound("there is nothing at this address", hint=f"there are {there}")

"""The ASGI application: guard, identify, find the route, and turn whatever fails into a reply."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import cast

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from modelway.auth import Auth
from modelway.config import ServerSettings
from modelway.dialects import ollama_chat, openai_chat, openai_responses
from modelway.dialects.ollama_chat import generate
from modelway.dialects.openai_chat import completions as openai_completions
from modelway.errors import (
    GatewayError,
    InternalError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    ShuttingDown,
)
from modelway.gateway import Gateway
from modelway.page.door import Door
from modelway.server.anthropic import AnthropicEndpoints
from modelway.server.catalogue import Catalogue
from modelway.server.chat import ChatEndpoint, Resolve
from modelway.server.compacting import Compacting
from modelway.server.completions import CompletionsEndpoint
from modelway.server.conversation_items import ItemEndpoints
from modelway.server.conversations import ConversationEndpoints
from modelway.server.counting import Counting
from modelway.server.cycle import Cycle
from modelway.server.dialect import Dialect
from modelway.server.embeddings import EmbeddingEndpoints
from modelway.server.exchange import ClientGone, Exchange, Receive, Scope, Send
from modelway.server.figures import FigureEndpoints
from modelway.server.following import DETACH_HEADER, LAST_HEADER
from modelway.server.formats import CHATS, dialect_of, is_ollama_s
from modelway.server.guard import Guard
from modelway.server.hosted import HostedTools
from modelway.server.keyed import KEY_HEADER
from modelway.server.keys import KeyWatch
from modelway.server.loading import LoadingEndpoint
from modelway.server.ollama import OllamaEndpoints
from modelway.server.openapi import openapi_endpoint
from modelway.server.references import References
from modelway.server.relay import RELAYED_METHODS, RelayEndpoint
from modelway.server.responses import ResponseEndpoints
from modelway.server.sockets import Socket, handshake
from modelway.server.straight import StraightReply
from modelway.server.streams import StreamEndpoints
from modelway.server.usage import UsageEndpoint
from modelway.straight import Straight
from modelway.telemetry import Telemetry
from modelway.types import ChatRequest

Endpoint = Callable[[Exchange], Awaitable[None]]

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


class _FromExchange:
    """Lets an endpoint that answers an exchange stand in the list of routes."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(scope["modelway.exchange"])


def routes(
    chat: ChatEndpoint,
    others: Mapping[str, Endpoint],
    catalogue: Catalogue,
    conversations: ConversationEndpoints,
    items: ItemEndpoints,
    responses: ResponseEndpoints,
    ollama: OllamaEndpoints,
    figures: FigureEndpoints,
    usage: UsageEndpoint,
    streams: StreamEndpoints,
) -> list[Route]:
    """Every address that the server answers by itself; `others` answer POSTs in other formats."""
    completions = _FromExchange(chat)
    return [
        Route("/v1/chat/completions", completions, methods=["POST"]),
        Route("/api/{provider}/chat/completions", completions, methods=["POST"]),
        Route("/api/{provider}/{conversation_id}/chat/completions", completions, methods=["POST"]),
        *(Route(path, _FromExchange(other), methods=["POST"]) for path, other in others.items()),
        Route("/v1/responses/{id}", _FromExchange(streams.response), methods=["GET"]),
        Route("/v1/responses/{id}", responses.delete, methods=["DELETE"]),
        Route("/v1/responses/{id}/cancel", responses.cancel, methods=["POST"]),
        Route("/v1/responses/{id}/input_items", responses.input_items),
        Route("/api/tags", ollama.tags),
        Route("/api/ps", ollama.ps),
        Route("/api/show", ollama.show, methods=["POST"]),
        Route("/api/version", ollama.version),
        Route("/v1/models", catalogue.models),
        Route("/v1/models/{id:path}", catalogue.model),
        Route("/v1/providers", catalogue.providers),
        Route("/v1/providers/{name}", catalogue.provider),
        Route("/v1/routes", catalogue.routes),
        Route("/v1/routes/{name:path}", catalogue.route),
        Route("/v1/conversations", conversations.list),
        Route("/v1/conversations", items.create, methods=["POST"]),
        Route("/v1/conversations/{id}", conversations.show),
        Route("/v1/conversations/{id}", items.update, methods=["POST"]),
        Route("/v1/conversations/{id}", conversations.delete, methods=["DELETE"]),
        Route("/v1/conversations/{id}/stream", _FromExchange(streams.conversation), methods=["GET"]),
        Route("/v1/conversations/{id}/cancel", _FromExchange(streams.stop), methods=["POST"]),
        Route("/v1/conversations/{id}/export", conversations.export),
        Route("/v1/conversations/{id}/fork", conversations.fork, methods=["POST"]),
        Route("/v1/conversations/{id}/items", items.page),
        Route("/v1/conversations/{id}/items", items.add, methods=["POST"]),
        Route("/v1/conversations/{id}/items/{item_id}", items.item),
        Route("/v1/figures", figures.figures),
        Route("/v1/usage", usage.usage),
        Route("/metrics", figures.metrics),
        Route("/openapi.json", openapi_endpoint),
        Route("/healthz", catalogue.health),
        Route("/readyz", catalogue.ready),
    ]


class Application:
    """What the HTTP server calls for each request."""

    def __init__(
        self,
        gateway: Gateway,
        auth: Auth,
        telemetry: Telemetry,
        settings: ServerSettings,
        *,
        preload: bool = False,
    ) -> None:
        self._gateway = gateway
        self._auth = auth
        self._telemetry = telemetry
        self._preload = preload
        self._is_draining = False
        gateway.live.on_begin, gateway.live.on_end = telemetry.turn_begun, telemetry.turn_ended
        self._most_at_once = settings.max_concurrent_requests
        self._at_once = 0
        self._sockets: set[Socket] = set()
        self._keys = KeyWatch(auth, gateway.conversations.callers, gateway.accounts)

        references = References(gateway.conversations)

        def chat(dialect: Dialect) -> ChatEndpoint:
            return ChatEndpoint(
                dialect,
                gateway,
                max_body_bytes=settings.max_body_bytes,
                keep_alive_s=settings.keep_alive_s,
                resolve=references.resolved if dialect is openai_responses else None,
            )

        self._chat = chat(openai_chat)
        self._straight_chats = {"/v1/chat/completions": self._chat}
        self._straight: dict[Exchange, StraightReply] = {}
        chats = {path: chat(dialect) for path, dialect in CHATS.items()}
        others = _in_other_formats(gateway, chats, references.resolved, settings.max_body_bytes)
        endpoints = ConversationEndpoints(gateway.conversations, max_body_bytes=settings.max_body_bytes)
        items = ItemEndpoints(gateway.conversations, max_body_bytes=settings.max_body_bytes)
        responses = ResponseEndpoints(gateway.conversations, gateway.live)
        ollama = OllamaEndpoints(gateway)
        figures = FigureEndpoints(telemetry, gateway.breakers)
        streams = StreamEndpoints(gateway, responses, keep_alive_s=settings.keep_alive_s)
        usage = UsageEndpoint(gateway.conversations.callers, auth)
        catalogue = Catalogue(gateway)
        own = routes(
            self._chat, others, catalogue, endpoints, items, responses, ollama, figures, usage, streams
        )
        relay = RelayEndpoint(
            gateway,
            own,
            max_body_bytes=settings.max_body_bytes,
            max_reply_bytes=gateway.conversations.max_reply_bytes,
        )
        completing = CompletionsEndpoint(
            gateway, chat(openai_completions), relay, max_body_bytes=settings.max_body_bytes
        )
        hosted = HostedTools(gateway, chats["/v1/responses"], relay, max_body_bytes=settings.max_body_bytes)
        # The relay is told of it too, so that what is only wrong in its method is not passed on.
        own.append(Route("/v1/responses", _FromExchange(hosted), methods=["POST"]))
        own_too = Route("/v1/completions", _FromExchange(completing), methods=["POST"])
        self.routes = [*own, own_too, Route("/v1/{path:path}", _FromExchange(relay), methods=RELAYED_METHODS)]
        self._guard = Guard(settings, relay.has)
        self._door = Door(gateway, auth, telemetry, settings.max_body_bytes, self._make_room)
        self._router = Router(self.routes, redirect_slashes=False)

    @property
    def is_answering(self) -> bool:
        """Whether anything goes on in which no task of the server may be waiting."""
        return bool(self._straight) or self._gateway.live.is_answering or self._door.under_way > 0

    def drain(self) -> None:
        """Take nothing new, and end what is open for as long as somebody looks at it; all else goes on."""
        self._is_draining = True
        self._door.close_streams()
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
        """Begin to answer a request of which all has come; False: in the usual way, nothing has happened.

        The busiest addresses have no task of their own, as long as nothing has to be waited for: `run` starts
        one for what comes then.
        """
        chat = self._straight_chats.get(scope["path"])
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
        reply.begin()
        return True

    def _begun(self, chat: ChatEndpoint, exchange: Exchange) -> tuple[ChatRequest, Straight] | None:
        exchange.encode_error = dialect_of(exchange.path, exchange.headers).encode_error
        if exchange.scope["query_string"] or not _UNUSUAL.isdisjoint(exchange.headers):
            return None
        self._guard.check(exchange)
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
        if self._door.owns(exchange.path):
            await self._door(exchange)
            return
        self._admit(exchange)
        if exchange.path == "/v1/chat/completions" and exchange.method == "POST":
            # The busiest address skips the search through the list of routes.
            await self._chat(exchange)
            return
        exchange.scope["modelway.exchange"] = exchange
        exchange.scope["app"] = self
        await self._router(exchange.scope, exchange.receive, exchange.send)

    def _admit(self, exchange: Exchange) -> None:
        """Find out who asks, and whether there is room for one more."""
        if exchange.path not in OPEN_PATHS:
            exchange.caller = self._auth.identify(exchange.api_key)
            exchange.record.caller = exchange.caller.name
        if self._most_at_once and exchange.method == "POST":
            self._make_room(exchange)

    def _make_room(self, exchange: Exchange) -> None:
        """Count a request among those that are answered at the same time; raises Overloaded."""
        if not self._most_at_once:
            return
        if self._at_once + self._gateway.live.under_way + self._door.under_way >= self._most_at_once:
            raise Overloaded(
                f"{self._most_at_once} requests are being answered, which is the most",
                hint="wait, or raise [server] max_concurrent_requests",
                retry_after=1,
            )
        self._at_once += 1
        exchange.release = self._count_out

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
            await self._door.aclose()
            await self._gateway.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def _in_other_formats(
    gateway: Gateway, chats: Mapping[str, ChatEndpoint], resolve: Resolve, max_body_bytes: int
) -> dict[str, Endpoint]:
    """What answers POSTs in the formats of Anthropic, Ollama and OpenAI's Responses API."""
    anthropic = AnthropicEndpoints(gateway, chats["/v1/messages"])
    vectors = EmbeddingEndpoints(gateway, max_body_bytes=max_body_bytes)
    return {
        **{path: endpoint for path, endpoint in chats.items() if path != "/v1/responses"},
        "/v1/responses/input_tokens": Counting(gateway, chats["/v1/responses"]),
        "/v1/responses/compact": Compacting(
            gateway, chats["/v1/responses"], resolve, max_body_bytes=max_body_bytes
        ),
        "/v1/messages": anthropic.messages,
        "/v1/messages/count_tokens": anthropic.count_tokens,
        "/api/chat": LoadingEndpoint(gateway, chats["/api/chat"], ollama_chat.encode_loaded),
        "/api/generate": LoadingEndpoint(gateway, chats["/api/generate"], generate.encode_loaded),
        "/api/embed": vectors.embed,
        "/api/embeddings": vectors.embeddings,
    }


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

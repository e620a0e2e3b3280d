"""Every address of the server, and what answers there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct
from starlette.routing import Route

from modelway.auth import Auth
from modelway.config import ServerSettings
from modelway.dialects import anthropic_messages, ollama_chat, openai_chat, openai_responses
from modelway.dialects.ollama_chat import generate
from modelway.dialects.openai_chat import completions as openai_completions
from modelway.gateway import Gateway
from modelway.server.anthropic import AnthropicEndpoints, with_headers
from modelway.server.catalogue import Catalogue
from modelway.server.chat import ChatEndpoint, Resolve
from modelway.server.compacting import Compacting
from modelway.server.completions import CompletionsEndpoint
from modelway.server.conversation_items import ItemEndpoints
from modelway.server.conversations import ConversationEndpoints
from modelway.server.counting import Counting
from modelway.server.dialect import Dialect
from modelway.server.embeddings import EmbeddingEndpoints
from modelway.server.exchange import Exchange, Receive, Scope, Send
from modelway.server.figures import FigureEndpoints
from modelway.server.formats import CHATS
from modelway.server.hosted import HostedTools, is_plain
from modelway.server.loading import LoadingEndpoint
from modelway.server.ollama import OllamaEndpoints
from modelway.server.openapi import openapi_endpoint
from modelway.server.references import References
from modelway.server.relay import RELAYED_METHODS, RelayEndpoint
from modelway.server.responses import ResponseEndpoints
from modelway.server.streams import StreamEndpoints
from modelway.server.usage import UsageEndpoint
from modelway.telemetry import Telemetry

Endpoint = Callable[[Exchange], Awaitable[None]]


class Addresses(Struct, frozen=True):
    """All addresses in the order in which they are looked through; `chats` are those of the busiest."""

    routes: list[Route]
    chats: Mapping[str, ChatEndpoint]
    relay: RelayEndpoint


def addresses_of(gateway: Gateway, auth: Auth, telemetry: Telemetry, settings: ServerSettings) -> Addresses:
    """The addresses that a server has."""
    references = References(gateway.conversations)

    def chat(dialect: Dialect) -> ChatEndpoint:
        return ChatEndpoint(
            dialect,
            gateway,
            max_body_bytes=settings.max_body_bytes,
            keep_alive_s=settings.keep_alive_s,
            resolve=references.resolved if dialect is openai_responses else None,
            is_plain=is_plain if dialect is openai_responses else None,
            complete=with_headers if dialect is anthropic_messages else None,
        )

    completions = chat(openai_chat)
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
    own = routes(completions, others, catalogue, endpoints, items, responses, ollama, figures, usage, streams)
    relay = RelayEndpoint(
        gateway,
        own,
        max_body_bytes=settings.max_body_bytes,
        max_reply_bytes=gateway.conversations.max_reply_bytes,
    )
    completing = CompletionsEndpoint(
        gateway, chat(openai_completions), relay, max_body_bytes=settings.max_body_bytes
    )
    hosted = HostedTools(chats["/v1/responses"], relay, max_body_bytes=settings.max_body_bytes)
    # The relay is told of it too, so that what is only wrong in its method is not passed on.
    own.append(Route("/v1/responses", _FromExchange(hosted), methods=["POST"]))
    own_too = Route("/v1/completions", _FromExchange(completing), methods=["POST"])
    found = [*own, own_too, Route("/v1/{path:path}", _FromExchange(relay), methods=RELAYED_METHODS)]
    busy = {"/v1/chat/completions": completions}
    busy |= {path: chats[path] for path in ("/v1/responses", "/v1/messages")}
    return Addresses(found, busy, relay)


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

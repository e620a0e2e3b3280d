"""Ollama's chats; one without a message only asks for the model to be loaded."""

from __future__ import annotations

from collections.abc import Callable

from modelway.accounts import resolved
from modelway.gateway import Gateway
from modelway.server.chat import ChatEndpoint
from modelway.server.exchange import Exchange
from modelway.types import ChatRequest


class LoadingEndpoint:
    """Answers by itself where there is nothing to answer: upstreams load what they need when they need it.

    `encode_loaded` writes that a model is there, or that it may go.
    """

    def __init__(
        self, gateway: Gateway, chat: ChatEndpoint, encode_loaded: Callable[[ChatRequest], bytes]
    ) -> None:
        self._gateway = gateway
        self._chat = chat
        self._encode_loaded = encode_loaded

    async def __call__(self, exchange: Exchange) -> None:
        """Answer the chat, or say that the model is loaded; a 404 where there is no such model."""
        request = await self._chat.read(exchange)
        if request.messages:
            await self._chat.answer(exchange, request)
            return
        candidate = resolved(self._gateway.router, request, exchange.caller)[0]
        exchange.record.provider, exchange.record.model = candidate.name, candidate.model
        await exchange.reply(200, self._encode_loaded(request))

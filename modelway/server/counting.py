"""Counts of tokens, in the formats that ask for them."""

from __future__ import annotations

from modelway.dialects import openai_responses
from modelway.gateway import Gateway
from modelway.server.chat import ChatEndpoint
from modelway.server.exchange import Exchange, header_value, until_client_is_gone
from modelway.types import ChatRequest


class Counting:
    """Counts the tokens of requests for responses; `chat` reads them."""

    def __init__(self, gateway: Gateway, chat: ChatEndpoint) -> None:
        self._gateway = gateway
        self._chat = chat

    async def __call__(self, exchange: Exchange) -> None:
        """How many tokens the provider counts; NotFound where it counts none."""
        request = await self._chat.read(exchange)
        tokens = await counted(self._gateway, exchange, request)
        await exchange.reply(200, openai_responses.encode_count(tokens), named(exchange))


async def counted(gateway: Gateway, exchange: Exchange, request: ChatRequest) -> int:
    """How many tokens the provider of a request counts in it and what it follows."""
    record = exchange.record
    with until_client_is_gone(exchange):
        tokens = await gateway.counting.tokens_of(request, exchange.caller, record.attempts)
    record.provider, record.model = record.attempts[-1].provider, record.attempts[-1].model
    return tokens


def named(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    """The header that tells who has counted."""
    return [(b"x-modelway-provider", header_value(exchange.record.provider))]

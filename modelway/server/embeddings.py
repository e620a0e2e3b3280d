"""Vectors of texts for programs written for Ollama, from whoever answers /v1/embeddings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from modelway.accounts import Size
from modelway.dialects.ollama_chat import embeddings as codec
from modelway.errors import UpstreamProtocolError
from modelway.gateway import Gateway
from modelway.prices.estimate import tokens_of_fields
from modelway.provider import RelayReply, RelayRequest
from modelway.server.exchange import Exchange, addressed, header_value, until_client_is_gone
from modelway.server.unambiguous import refuse_ambiguous
from modelway.types import Usage

MAX_REPLY_BYTES = 256 * 1024 * 1024


class EmbeddingEndpoints:
    """Ollama's two addresses, which differ in what they call the texts and the vectors."""

    def __init__(self, gateway: Gateway, *, max_body_bytes: int) -> None:
        self._gateway = gateway
        self._max_body_bytes = max_body_bytes
        self.embed = self._endpoint(codec.decode_embed_request, codec.encode_embed)
        self.embeddings = self._endpoint(codec.decode_embeddings_request, codec.encode_embeddings)

    def _endpoint(
        self,
        decode: Callable[[bytes], codec.Asked],
        encode: Callable[[codec.Asked, codec.Vectors], bytes],
    ) -> Callable[[Exchange], Awaitable[None]]:
        async def endpoint(exchange: Exchange) -> None:
            body = await exchange.body(self._max_body_bytes)
            refuse_ambiguous(exchange, body)
            asked = decode(body)
            with until_client_is_gone(exchange):
                found = await self._find(exchange, asked)
            named = [(b"x-modelway-provider", header_value(exchange.record.provider))]
            await exchange.reply(200, encode(asked, found), named)

        return endpoint

    async def _find(self, exchange: Exchange, asked: codec.Asked) -> codec.Vectors:
        record = exchange.record
        record.dialect, record.path = "relay", "embeddings"
        wanted = addressed(exchange, "provider", b"x-modelway-provider", asked.provider)
        candidate = self._gateway.choose(exchange.caller, wanted, asked.model)
        provider, model = candidate.provider, candidate.model
        record.provider, record.model = provider.info.name, model
        request = RelayRequest(
            method="POST",
            path="embeddings",
            headers={"content-type": "application/json"},
            body=asked.for_openai(model),
        )
        guess = tokens_of_fields(list(asked.texts))
        permit = await self._gateway.admit(exchange.caller, candidate, Size(guess))
        estimated = False
        try:
            if not asked.texts:
                return codec.Vectors()
            reply = await self._gateway.relay(provider, model, request, record.attempts)
            async with aclosing(reply):
                found = codec.decode_vectors(await _whole(reply))
            is_told = found.tokens > 0 and Usage(found.tokens).is_plausible
            record.input_tokens, estimated = found.tokens if is_told else guess, not is_told
            return found
        finally:
            used = Usage(record.input_tokens)
            record.cost = self._gateway.charge(
                exchange.caller, permit, provider, model, used, estimated=estimated
            )


async def _whole(reply: RelayReply) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await reply.read():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_REPLY_BYTES:
            raise UpstreamProtocolError("the upstream's embeddings are too large", code="upstream_too_large")
    return b"".join(pieces)

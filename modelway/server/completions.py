"""POST /v1/completions: relayed to upstreams that have it, and answered by everybody else as a chat."""

from __future__ import annotations

from contextlib import aclosing

from modelway.dialects.openai_chat import completions
from modelway.dialects.reading import read_object
from modelway.errors import InvalidRequest
from modelway.gateway import Gateway
from modelway.server.chat import ChatEndpoint, with_address
from modelway.server.exchange import (
    Exchange,
    Headers,
    as_sent,
    header_value,
    until_client_is_gone,
)
from modelway.server.following import STREAM_HEADERS, must_follow
from modelway.server.kept import error_event
from modelway.server.keyed import KEY_HEADER
from modelway.server.prompts import Prompts
from modelway.server.relay import RelayEndpoint
from modelway.server.unambiguous import refuse_ambiguous

SUPPORTED = "completions"


class CompletionsEndpoint:
    """Completes prompts; `chat` answers one of them, `relay` passes on what an upstream answers itself."""

    def __init__(
        self, gateway: Gateway, chat: ChatEndpoint, relay: RelayEndpoint, *, max_body_bytes: int
    ) -> None:
        self._gateway = gateway
        self._chat = chat
        self._relay = relay
        self._max_body_bytes = max_body_bytes

    async def __call__(self, exchange: Exchange) -> None:
        """Relay the request, or answer each of its prompts in turn."""
        body = await exchange.body(self._max_body_bytes)
        refuse_ambiguous(exchange, body)
        if self._has_it(exchange, body):
            await self._relay.pass_on(exchange, SUPPORTED, body)
            return
        requests = [with_address(one, exchange) for one in completions.decode_requests(body)]
        exchange.telemetry.asked(exchange.record, requests[0])
        if len(requests) == 1:
            await self._chat.answer(exchange, requests[0])
            return
        if requests[0].conversation_id:
            raise InvalidRequest(
                "a conversation goes on with one prompt at a time", param="prompt", hint="send one text"
            )
        prompts = Prompts(self._gateway, exchange.caller, requests)
        if KEY_HEADER in exchange.headers:
            await self._relay.kept.answer(exchange, prompts, exchange.path, body)
            return
        if must_follow(exchange, requests[0]):
            raise InvalidRequest(
                "only one prompt can be answered without its client",
                param="prompt",
                hint="send one text, or an Idempotency-Key",
            )
        with until_client_is_gone(exchange):
            await self._pass_on(exchange, prompts)

    def _has_it(self, exchange: Exchange, body: bytes) -> bool:
        fields = read_object(body)
        said, model = fields.get("provider") or "", fields.get("model") or ""
        if not (isinstance(said, str) and isinstance(model, str)):
            return False
        return self._relay.finds(exchange, SUPPORTED, said, model)

    async def _pass_on(self, exchange: Exchange, prompts: Prompts) -> None:
        record = exchange.record
        async with aclosing(await prompts.begin(record.attempts)) as reply:
            record.provider, record.model = prompts.name, prompts.model
            exchange.encode_error_event = error_event
            streamed = STREAM_HEADERS if record.stream else []
            await exchange.start(200, [*as_sent(reply.headers.items()), *streamed, *_named(prompts)])
            while piece := await reply.read():
                await exchange.write(piece)
        await exchange.write(b"", last=True)
        if prompts.completion is not None:
            exchange.telemetry.answered(record, prompts.completion, prompts.cost)


def _named(prompts: Prompts) -> Headers:
    headers = [
        (b"x-modelway-provider", header_value(prompts.name)),
        (b"x-modelway-model", header_value(prompts.model)),
    ]
    if prompts.ignored:
        headers.append((b"x-modelway-ignored", header_value(", ".join(prompts.ignored))))
    return headers

"""POST /v1/responses/compact: a conversation made short enough to go on with."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from msgspec.structs import replace

from modelway.dialects import openai_responses
from modelway.errors import UpstreamFailed
from modelway.gateway import Gateway
from modelway.server.chat import ChatEndpoint, answer_headers
from modelway.server.exchange import Exchange, until_client_is_gone
from modelway.server.unambiguous import refuse_ambiguous
from modelway.types import Usage

# Puts into a body what it only refers to.
Resolve = Callable[[Exchange, bytes], Awaitable[bytes]]


class Compacting:
    """Lets the model that is named sum up what was said; nothing of it is kept."""

    def __init__(
        self, gateway: Gateway, chat: ChatEndpoint, resolve: Resolve, *, max_body_bytes: int
    ) -> None:
        self._gateway = gateway
        self._chat = chat
        self._resolve = resolve
        self._max_body_bytes = max_body_bytes

    async def __call__(self, exchange: Exchange) -> None:
        """Answer with the caller's own messages and the summary of everything."""
        body = await exchange.body(self._max_body_bytes)
        refuse_ambiguous(exchange, body)
        asked, own = openai_responses.decode_compaction(await self._resolve(exchange, body))
        request = openai_responses.decode_request(asked)
        exchange.telemetry.asked(exchange.record, request)
        with until_client_is_gone(exchange):
            # A long summary is long in coming: in pieces nobody takes that for silence.
            told = replace(request, stream=True)
            begun = await self._gateway.answer(told, exchange.caller, exchange.record.attempts)
            async with aclosing(begun) as answer:
                self._chat.note_begin(exchange, answer)
                await answer.collect()
        completion = answer.completion
        if not completion.text:
            raise UpstreamFailed("the model has written no summary", hint="ask again, or another model")
        compacted = openai_responses.encode_compaction(
            secrets.token_hex(12),
            int(time.time()),
            own,
            completion.text,
            completion.usage or Usage(0, 0),
            is_complete=completion.finish_reason != "length",
        )
        exchange.telemetry.answered(exchange.record, completion, answer.cost or 0.0)
        await exchange.reply(200, compacted, answer_headers(answer))

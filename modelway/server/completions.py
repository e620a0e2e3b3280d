"""POST /v1/completions: relayed to upstreams that have it, and answered by everybody else as a chat."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import aclosing

from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_chat import completions
from modelway.dialects.reading import read_object
from modelway.errors import InvalidRequest
from modelway.gateway import Gateway
from modelway.provider import Relays
from modelway.server.chat import ChatEndpoint, answer_headers, with_address
from modelway.server.exchange import Exchange, addressed, until_client_is_gone
from modelway.server.following import STREAM_HEADERS, must_follow
from modelway.server.relay import RelayEndpoint
from modelway.server.unambiguous import refuse_ambiguous
from modelway.types import ChatRequest, Completion, Finish, Usage

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
            await self._relay.pass_on(exchange, "completions", body)
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
        if must_follow(exchange, requests[0]):
            raise InvalidRequest(
                "only one prompt can be answered without its client", param="prompt", hint="send one text"
            )
        with until_client_is_gone(exchange):
            await (self._stream if requests[0].stream else self._whole)(exchange, requests)

    def _has_it(self, exchange: Exchange, body: bytes) -> bool:
        fields = read_object(body)
        said, model = fields.get("provider") or "", fields.get("model") or ""
        if not (isinstance(said, str) and isinstance(model, str)):
            return False
        asked = addressed(exchange, "provider", b"x-modelway-provider", said)
        provider = self._gateway.choose(exchange.caller, asked, model).provider
        return isinstance(provider, Relays) and SUPPORTED in provider.info.supports

    async def _whole(self, exchange: Exchange, requests: Sequence[ChatRequest]) -> None:
        answers: list[tuple[Completion, Envelope]] = []
        id, headers = _new_id(), []
        for request in requests:
            record = exchange.record
            async with aclosing(
                await self._gateway.answer(request, exchange.caller, record.attempts)
            ) as answer:
                record.provider, record.model = answer.provider, answer.model
                completion = await answer.collect()
                headers = answer_headers(answer)
                model = completion.model or answer.model
                answers.append((completion, _envelope(id, request, answer.provider, model, answer.ignored)))
        await exchange.reply(200, completions.encode_completions(answers), headers)
        exchange.telemetry.answered(exchange.record, _together([completion for completion, _ in answers]))

    async def _stream(self, exchange: Exchange, requests: Sequence[ChatRequest]) -> None:
        id, first = _new_id(), 0
        done: list[Completion] = []
        for request in requests:
            record = exchange.record
            async with aclosing(
                await self._gateway.answer(request, exchange.caller, record.attempts)
            ) as answer:
                record.provider, record.model = answer.provider, answer.model
                envelope = _envelope(id, request, answer.provider, answer.model, answer.ignored)
                encoder = completions.EventEncoder(envelope, first)
                exchange.encode_error_event = encoder.error
                if not exchange.started:
                    head = [(b"content-type", completions.STREAM_TYPE), *STREAM_HEADERS]
                    await exchange.start(200, head + answer_headers(answer))
                async for event in answer:
                    # The tokens of all prompts are told once, at the end.
                    bare = Finish(reasons=event.reasons) if isinstance(event, Finish) else event
                    if written := encoder.encode(bare):
                        await exchange.write(written)
                done.append(answer.completion)
            first += len(done[-1].choices)
        whole = _together(done)
        await exchange.write(encoder.usage(whole.usage or Usage()) + encoder.end(), last=True)
        exchange.telemetry.answered(exchange.record, whole)


def _new_id() -> str:
    return completions.ID_PREFIX + secrets.token_hex(12)


def _envelope(id: str, request: ChatRequest, provider: str, model: str, ignored: tuple[str, ...]) -> Envelope:
    return Envelope(
        id=id,
        created=int(time.time()),
        model=model,
        provider=provider,
        include_usage=request.include_usage,
        echo=request.echo or {},
        ignored=ignored,
    )


def _together(done: Sequence[Completion]) -> Completion:
    """All answers as one, for the log."""
    return Completion(
        choices=tuple(choice for completion in done for choice in completion.choices),
        usage=completions.total(completion.usage for completion in done),
        model=done[0].model,
    )

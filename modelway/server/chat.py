"""The endpoint behind every dialect: decode, answer, encode; streamed or whole."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing

from msgspec.structs import replace

from modelway.dialects.envelope import Envelope
from modelway.gateway import Answer, Gateway
from modelway.server.dialect import Dialect
from modelway.server.exchange import Exchange, Headers, addressed, header_value, until_client_is_gone
from modelway.telemetry import milliseconds_since
from modelway.types import ChatRequest, Finish

_STREAM_HEADERS: Headers = [
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class ChatEndpoint:
    """Answers a chat request in one dialect."""

    def __init__(
        self, dialect: Dialect, gateway: Gateway, *, max_body_bytes: int, keep_alive_s: float
    ) -> None:
        self._dialect = dialect
        self._gateway = gateway
        self._max_body_bytes = max_body_bytes
        self._keep_alive_s = keep_alive_s
        self._stream_headers = [(b"content-type", dialect.STREAM_TYPE), *_STREAM_HEADERS]

    async def __call__(self, exchange: Exchange) -> None:
        """Read the request, answer it, and stop when the client goes away."""
        body = await exchange.body(self._max_body_bytes)
        request = _with_address(self._dialect.decode_request(body), exchange)
        record = exchange.record
        exchange.telemetry.asked(record, request)
        with until_client_is_gone(exchange):
            answer = await self._gateway.answer(request, exchange.caller, record.attempts)
            async with aclosing(answer):
                await self._reply(exchange, request, answer)

    async def _reply(self, exchange: Exchange, request: ChatRequest, answer: Answer) -> None:
        record = exchange.record
        record.first_ms = milliseconds_since(record.time)
        record.provider, record.model = answer.provider, answer.model
        if request.stream:
            await self._stream(exchange, request, answer)
        else:
            await self._whole(exchange, request, answer)
        exchange.telemetry.answered(record, answer.completion)

    async def _whole(self, exchange: Exchange, request: ChatRequest, answer: Answer) -> None:
        completion = await answer.collect()
        envelope = self._envelope(request, answer, completion.model)
        body = self._dialect.encode_completion(completion, envelope)
        await exchange.reply(200, body, _answer_headers(answer))

    async def _stream(self, exchange: Exchange, request: ChatRequest, answer: Answer) -> None:
        encoder = self._dialect.EventEncoder(self._envelope(request, answer, ""))
        exchange.encode_error_event = encoder.error
        await exchange.start(200, self._stream_headers + _answer_headers(answer))
        with _KeepAlive(exchange, self._dialect.KEEP_ALIVE, self._keep_alive_s) as line:
            async for event in answer:
                encoded = encoder.encode(event)
                if isinstance(event, Finish):
                    await exchange.write(encoded + encoder.end(), last=True)
                elif encoded:
                    await exchange.write(encoded)
                    line.used()

    def _envelope(self, request: ChatRequest, answer: Answer, model: str) -> Envelope:
        return Envelope(
            id=self._dialect.ID_PREFIX + (answer.turn_id.removeprefix("turn_") or secrets.token_hex(12)),
            created=int(time.time()),
            model=model or answer.model,
            provider=answer.provider,
            conversation_id=answer.conversation_id,
            include_usage=request.include_usage,
        )


class _KeepAlive:
    """Sends `line`, which says nothing, whenever a stream has been silent for a while."""

    def __init__(self, exchange: Exchange, line: bytes, period_s: float) -> None:
        self._exchange = exchange
        self._line = line
        self._period_s = period_s
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> _KeepAlive:
        if self._line:
            self._timer = self._loop.call_later(self._period_s, self._tick)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def used(self) -> None:
        """Note that something was sent."""
        self._last = self._loop.time()

    def _tick(self) -> None:
        silent = self._loop.time() - self._last
        if silent >= self._period_s and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._exchange.write(self._line))
            self.used()
            silent = 0
        self._timer = self._loop.call_later(self._period_s - silent, self._tick)


def _with_address(request: ChatRequest, exchange: Exchange) -> ChatRequest:
    """Add what the client says outside the body, for clients that cannot add fields to it."""
    if exchange.path == "/v1/chat/completions" and not exchange.scope["query_string"]:
        named = (b"x-modelway-provider", b"x-modelway-conversation-id")
        if not any(name in exchange.headers for name in named):
            return request
    provider = addressed(exchange, "provider", b"x-modelway-provider", request.provider)
    conversation_id = addressed(
        exchange, "conversation_id", b"x-modelway-conversation-id", request.conversation_id
    )
    return replace(request, provider=provider, conversation_id=conversation_id)


def _answer_headers(answer: Answer) -> Headers:
    headers = [
        (b"x-modelway-provider", header_value(answer.provider)),
        (b"x-modelway-model", header_value(answer.model)),
    ]
    if answer.conversation_id:
        headers.append((b"x-modelway-conversation-id", answer.conversation_id.encode()))
    return headers

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
        await self.answer(exchange, await self.read(exchange))

    async def read(self, exchange: Exchange) -> ChatRequest:
        """The request, noted in the log."""
        body = await exchange.body(self._max_body_bytes)
        request = _with_address(self._dialect.decode_request(body), exchange)
        exchange.telemetry.asked(exchange.record, request)
        return request

    async def answer(self, exchange: Exchange, request: ChatRequest) -> None:
        """Answer a request that has been read."""
        with until_client_is_gone(exchange):
            if request.stream:
                await self._stream(exchange, request)
            else:
                await self._whole(exchange, request)

    async def _answer(self, exchange: Exchange, request: ChatRequest) -> Answer:
        record = exchange.record
        answer = await self._gateway.answer(request, exchange.caller, record.attempts)
        record.first_ms = milliseconds_since(record.time)
        record.provider, record.model = answer.provider, answer.model
        return answer

    async def _whole(self, exchange: Exchange, request: ChatRequest) -> None:
        async with aclosing(await self._answer(exchange, request)) as answer:
            completion = await answer.collect()
            # What can be asked for again must be told alike: there the store knows the name that was asked.
            model = completion.model if request.echo is None else ""
            envelope = self._envelope(request, answer, model)
            body = self._dialect.encode_completion(completion, envelope)
            await exchange.reply(200, body, _answer_headers(answer))
            exchange.telemetry.answered(exchange.record, completion)

    async def _stream(self, exchange: Exchange, request: ChatRequest) -> None:
        with _KeepAlive(exchange, self._dialect, self._stream_headers, self._keep_alive_s) as silence:
            async with aclosing(await self._answer(exchange, request)) as answer:
                encoder = self._dialect.EventEncoder(self._envelope(request, answer, ""))
                exchange.encode_error_event = encoder.error
                if not exchange.started:
                    await exchange.start(200, self._stream_headers + _answer_headers(answer))
                async for event in answer:
                    encoded = encoder.encode(event)
                    if isinstance(event, Finish):
                        await exchange.write(encoded + encoder.end(), last=True)
                    elif encoded:
                        await exchange.write(encoded)
                        silence.broken()
                exchange.telemetry.answered(exchange.record, answer.completion)

    def _envelope(self, request: ChatRequest, answer: Answer, model: str) -> Envelope:
        return Envelope(
            id=self._dialect.ID_PREFIX + (answer.turn_id.removeprefix("turn_") or secrets.token_hex(12)),
            created=int(answer.created_at),
            completed=int(time.time()),
            model=model or answer.model,
            provider=answer.provider,
            conversation_id=answer.conversation_id,
            include_usage=request.include_usage,
            echo=request.echo or {},
            ignored=answer.ignored,
        )


class _KeepAlive:
    """Sends what says nothing whenever a stream has been silent for a while.

    Before the first event that begins the reply: from then on nobody in between hangs up, and an error is an
    event of the stream.
    """

    def __init__(self, exchange: Exchange, dialect: Dialect, headers: Headers, period_s: float) -> None:
        self._exchange = exchange
        self._dialect = dialect
        self._headers = headers
        self._period_s = period_s
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> _KeepAlive:
        if self._dialect.KEEP_ALIVE:
            self._timer = self._loop.call_later(self._period_s, self._tick)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def broken(self) -> None:
        """Note that something was sent."""
        self._last = self._loop.time()

    def _tick(self) -> None:
        silent = self._loop.time() - self._last
        if silent >= self._period_s and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._say_nothing())
            self.broken()
            silent = 0
        self._timer = self._loop.call_later(self._period_s - silent, self._tick)

    async def _say_nothing(self) -> None:
        exchange = self._exchange
        if not exchange.started:
            nobody = Envelope(id="", created=0, model="", provider="")
            exchange.encode_error_event = self._dialect.EventEncoder(nobody).error
            await exchange.start(200, self._headers)
        await exchange.write(self._dialect.KEEP_ALIVE)


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
    if answer.ignored:
        headers.append((b"x-modelway-ignored", header_value(", ".join(answer.ignored))))
    return headers

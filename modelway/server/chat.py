"""The endpoint behind every dialect: decode, answer, encode; streamed or whole."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial

from msgspec.structs import replace

from modelway.answer import Answer
from modelway.dialects.envelope import Envelope
from modelway.gateway import Gateway
from modelway.server.dialect import Dialect, Encoder
from modelway.server.exchange import (
    Exchange,
    Headers,
    addressed,
    as_sent,
    header_value,
    until_client_is_gone,
)
from modelway.server.following import STREAM_HEADERS, Following, envelope_of, must_follow, reply_headers
from modelway.server.keep_alive import KeepAlive, nothing
from modelway.server.numbering import Numbered, can_be_numbered
from modelway.server.unambiguous import refuse_ambiguous
from modelway.straight import Straight
from modelway.telemetry import milliseconds_since
from modelway.types import ChatRequest, Finish

# Gives the answer as soon as it has begun.
Begin = Callable[[], Awaitable[Answer]]
# Puts into a body what it only refers to.
Resolve = Callable[[Exchange, bytes], Awaitable[bytes]]


class ChatEndpoint:
    """Answers chat requests in one dialect.

    In its bodies `resolve` finds what they only refer to; a body that `is_plain` refers to nothing, and
    anybody can answer it. `complete` adds to a request what the headers say.
    """

    def __init__(
        self,
        dialect: Dialect,
        gateway: Gateway,
        *,
        max_body_bytes: int,
        keep_alive_s: float,
        resolve: Resolve | None = None,
        is_plain: Callable[[bytes], bool] | None = None,
        complete: Callable[[ChatRequest, Exchange], ChatRequest] | None = None,
    ) -> None:
        self._dialect = dialect
        self._gateway = gateway
        self._max_body_bytes = max_body_bytes
        self.keep_alive_s = keep_alive_s
        self._resolve = resolve
        self._is_plain = is_plain
        self._complete = complete
        self._stream_headers = [(b"content-type", dialect.STREAM_TYPE), *STREAM_HEADERS]
        self._is_numbered = can_be_numbered(dialect)
        self.encode_error = dialect.encode_error
        self._following = Following(gateway, dialect, keep_alive_s=keep_alive_s)

    async def __call__(self, exchange: Exchange) -> None:
        """Read the request, answer it, and stop when the client goes away."""
        await self.answer(exchange, await self.read(exchange))

    async def read(self, exchange: Exchange) -> ChatRequest:
        """The request, noted in the log."""
        body = await exchange.body(self._max_body_bytes)
        refuse_ambiguous(exchange, body)
        if self._resolve is not None:
            body = await self._resolve(exchange, body)
        return self._completed(exchange, with_address(self._dialect.decode_request(body), exchange))

    def _completed(self, exchange: Exchange, request: ChatRequest) -> ChatRequest:
        if self._complete is not None:
            request = self._complete(request, exchange)
        exchange.telemetry.asked(exchange.record, request)
        return request

    async def answer(self, exchange: Exchange, request: ChatRequest) -> None:
        """Answer a request that has been read."""
        if must_follow(exchange, request):
            await self._following.answer(exchange, request)
            return
        record = exchange.record
        begin = partial(self._gateway.answer, request, exchange.caller, record.attempts)
        with until_client_is_gone(exchange):
            if request.stream:
                await self._stream(exchange, request, begin)
            else:
                await self._whole(exchange, request, begin)

    def straight(self, exchange: Exchange) -> tuple[ChatRequest, Straight] | None:
        """A request whose answer is on its way, where nothing has to be waited for.

        All that is asked must be said in the body. Where this gives None, or raises as read() does,
        nothing has happened.
        """
        body = exchange.body_now()
        if body is None or len(body) > self._max_body_bytes:
            return None
        if self._is_plain is not None and not self._is_plain(body):
            return None
        refuse_ambiguous(exchange, body)
        request = self._completed(exchange, self._dialect.decode_request(body))
        if must_follow(exchange, request):
            return None
        straight = self._gateway.straight(request, exchange.caller, exchange.record.attempts)
        return None if straight is None else (request, straight)

    async def rest(
        self,
        exchange: Exchange,
        request: ChatRequest,
        straight: Straight,
        encoder: Encoder | None,
        *,
        silent: bool,
    ) -> None:
        """Go on with an answer that came straight so far; `encoder` has written what has come of it."""
        with until_client_is_gone(exchange):
            if request.stream:
                await self._stream(exchange, request, straight.go_on, encoder, silent=silent)
            else:
                await self._whole(exchange, request, straight.go_on)

    async def _whole(self, exchange: Exchange, request: ChatRequest, begin: Begin) -> None:
        async with aclosing(await begin()) as answer:
            self.note_begin(exchange, answer)
            await answer.collect()
            await exchange.reply(200, *self._written(exchange, request, answer))
            self.note_end(exchange, answer)

    def reply(self, exchange: Exchange, request: ChatRequest, answer: Answer) -> None:
        """Send a whole answer, which has come to its end."""
        exchange.reply_now(200, *self._written(exchange, request, answer))
        self.note_end(exchange, answer)

    def _written(self, exchange: Exchange, request: ChatRequest, answer: Answer) -> tuple[bytes, Headers]:
        """The body of a whole answer, and its headers."""
        completion = answer.completion
        # What can be asked for again must be told alike: there the store knows the name that was asked.
        model = completion.model if request.echo is None else ""
        body = self._dialect.encode_completion(completion, self._envelope(request, answer, model))
        cost = answer.cost
        if cost is not None:
            exchange.reply_headers.append((b"x-modelway-cost", b"%.9f" % cost))
        return body, answer_headers(answer)

    async def _stream(
        self,
        exchange: Exchange,
        request: ChatRequest,
        begin: Begin,
        encoder: Encoder | None = None,
        *,
        silent: bool = False,
    ) -> None:
        with KeepAlive(exchange, self._dialect, self._stream_headers, self.keep_alive_s) as silence:
            if silent:
                silence.break_now()
            async with aclosing(await begin()) as answer:
                if encoder is None:
                    self.note_begin(exchange, answer)
                    encoder = self._encoder(request, answer)
                    exchange.encode_error_event = encoder.error
                    if not exchange.started:
                        await exchange.start(200, self._stream_headers + answer_headers(answer))
                silence.follows_ids = isinstance(encoder, Numbered)
                async for event in answer:
                    encoded = encoder.encode(event)
                    if isinstance(event, Finish):
                        await exchange.write(encoded + encoder.end(), last=True)
                    elif encoded:
                        await exchange.write(encoded)
                        silence.broken()
                self.note_end(exchange, answer)

    def start_stream(self, exchange: Exchange, request: ChatRequest, answer: Answer) -> Encoder:
        """Begin the stream of an answer; what writes it."""
        encoder = self._encoder(request, answer)
        exchange.encode_error_event = encoder.error
        exchange.start_now(200, self._stream_headers + answer_headers(answer))
        return encoder

    def break_silence(self, exchange: Exchange, encoder: Encoder) -> None:
        """Say nothing in a stream that has been silent for a while."""
        exchange.write_now(nothing(self._dialect, follows_ids=isinstance(encoder, Numbered)))

    def note_end(self, exchange: Exchange, answer: Answer) -> None:
        """Note how it has ended."""
        exchange.telemetry.answered(exchange.record, answer.completion, answer.cost or 0.0)

    def note_begin(self, exchange: Exchange, answer: Answer) -> None:
        """Note who has begun to answer; once."""
        record = exchange.record
        if record.provider:
            return
        record.first_ms = milliseconds_since(record.time)
        record.provider, record.model = answer.provider, answer.model
        if exchange.caller.rules is not None:
            exchange.reply_headers += as_sent(self._gateway.accounts.headers(exchange.caller))

    def _encoder(self, request: ChatRequest, answer: Answer) -> Encoder:
        if answer.log is None:
            return self._dialect.EventEncoder(self._envelope(request, answer, ""))
        encoder = self._dialect.EventEncoder(envelope_of(self._dialect, answer.log))
        return Numbered(encoder) if self._is_numbered else encoder

    def _envelope(self, request: ChatRequest, answer: Answer, model: str) -> Envelope:
        return Envelope(
            id=self._dialect.ID_PREFIX + (answer.turn_id.removeprefix("turn_") or secrets.token_hex(12)),
            created=int(answer.created_at),
            completed=int(answer.finished_at or time.time()),
            model=model or answer.model,
            provider=answer.provider,
            conversation_id=answer.conversation_id,
            include_usage=request.include_usage,
            echo=request.echo or {},
            ignored=answer.ignored,
        )


def with_address(request: ChatRequest, exchange: Exchange) -> ChatRequest:
    """Add what the client says outside the body, for clients that cannot add fields to it."""
    if not exchange.scope["query_string"] and not exchange.scope.get("path_params"):
        named = (b"x-modelway-provider", b"x-modelway-conversation-id")
        if not any(name in exchange.headers for name in named):
            return request
    provider = addressed(exchange, "provider", b"x-modelway-provider", request.provider)
    conversation_id = addressed(
        exchange, "conversation_id", b"x-modelway-conversation-id", request.conversation_id
    )
    return replace(request, provider=provider, conversation_id=conversation_id)


def answer_headers(answer: Answer) -> Headers:
    """Who has answered, where, and what was left out."""
    if answer.log is not None:
        return reply_headers(answer.log.head)
    headers = [
        (b"x-modelway-provider", header_value(answer.provider)),
        (b"x-modelway-model", header_value(answer.model)),
    ]
    if answer.conversation_id:
        headers.append((b"x-modelway-conversation-id", answer.conversation_id.encode()))
    if answer.ignored:
        headers.append((b"x-modelway-ignored", header_value(", ".join(answer.ignored))))
    return headers

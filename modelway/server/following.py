"""Answers out of the log of a turn, which goes on without its reader: streamed, the rest of it, or whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from modelway.conversations import Failed, Head, Item, Readable
from modelway.dialects.envelope import Envelope
from modelway.errors import InvalidRequest
from modelway.gateway import Gateway
from modelway.live import cut_off, events_of
from modelway.server.dialect import Dialect, Encoder
from modelway.server.exchange import Exchange, Headers, header_value, until_client_is_gone
from modelway.server.keep_alive import KeepAlive
from modelway.server.keyed import KEY_HEADER, key_of, tell_of_turn
from modelway.server.numbering import BEFORE_ALL, Numbered, can_be_numbered, number_of
from modelway.server.responses import written
from modelway.telemetry import milliseconds_since
from modelway.types import ChatRequest, Continued, Event, Finish, Opaque, collect

DETACH_HEADER = b"x-modelway-detach"
LAST_HEADER = b"last-event-id"
STREAM_HEADERS: Headers = [
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
# So many events are written at once to a client that comes late.
_AT_ONCE = 32
_encode = msgspec.json.Encoder().encode


class Following:
    """Writes what is in the logs of turns to clients, in one dialect."""

    def __init__(self, gateway: Gateway, dialect: Dialect, *, keep_alive_s: float) -> None:
        self._live = gateway.live
        self._accounts = gateway.accounts
        self._conversations = gateway.conversations
        self._dialect = dialect
        self._keep_alive_s = keep_alive_s
        self._stream_headers = [(b"content-type", dialect.STREAM_TYPE), *STREAM_HEADERS]

    async def answer(self, exchange: Exchange, request: ChatRequest) -> None:
        """Begin a turn that goes on without this client, or find the one of its key, and answer with it."""
        after = self._after(exchange, request)
        await tell_of_turn(
            exchange,
            self._accounts,
            partial(self._begin, exchange, request),
            partial(self._tell, exchange, request, after),
        )

    async def _tell(self, exchange: Exchange, request: ChatRequest, after: int, turn_id: str) -> None:
        if request.stream:
            await self.stream(exchange, turn_id, after)
        elif request.when_left == "finish":
            await self._promise(exchange, turn_id)
        else:
            await self.whole(exchange, turn_id, request)

    async def stream(self, exchange: Exchange, turn_id: str, after: int = BEFORE_ALL) -> None:
        """The events of a turn after one that the client has, to the end."""
        with (
            until_client_is_gone(exchange),
            self._live.reading(turn_id),
            KeepAlive(exchange, self._dialect, self._stream_headers, self._keep_alive_s) as silence,
        ):
            silence.follows_ids = can_be_numbered(self._dialect)
            is_told = await self._tell_early(exchange, turn_id, after)
            log = await self._begun(exchange, turn_id)
            encoder = self._encoder(log, after)
            beginning = encoder.begin()
            exchange.encode_error_event = encoder.error
            if log.ended_at is None:
                await self._start(exchange, log)
            if beginning and not is_told:
                await self._start(exchange, log)
                await exchange.write(beginning)
            place, is_foreign = 0, log.head.dialect != self._dialect.NAME
            while rest := await log.after(place):
                items = rest[:_AT_ONCE]
                place += len(items)
                if len(rest) > len(items):
                    # Others have their turn, and the connection can say that it is full.
                    await asyncio.sleep(0)
                if written := _written(encoder, items, is_foreign=is_foreign):
                    await self._start(exchange, log)
                    await exchange.write(written, last=isinstance(items[-1], Finish))
                    silence.broken()
                if isinstance(items[-1], Failed):
                    await self._start(exchange, log)
                    raise items[-1].error()
            if not isinstance(log.last, Finish):
                await self._start(exchange, log)
                raise cut_off(is_cancelled=log.is_cancelled)
            if not exchange.complete:
                if not exchange.started:
                    # This is what ends the attempts of a browser's EventSource.
                    await exchange.start(204, _told_of(exchange, log.head))
                await exchange.write(b"", last=True)

    async def whole(self, exchange: Exchange, turn_id: str, request: ChatRequest) -> None:
        """The answer of a turn, once it has come to its end."""
        with until_client_is_gone(exchange), self._live.reading(turn_id):
            log = await self._begun(exchange, turn_id)
            events = [event async for _, event in events_of(log)]
            completion = collect(events)
            head = _with_all_names(log.head, events)
            model = completion.model if request.echo is None else ""
            envelope = envelope_of(self._dialect, log)
            envelope = replace(envelope, model=model or head.model, provider=head.provider)
            named = replace(completion, provider=head.provider, conversation_id=head.conversation_id)
            body = self._dialect.encode_completion(named, envelope)
            await exchange.reply(200, body, _told_of(exchange, head))

    async def _start(self, exchange: Exchange, log: Readable) -> None:
        if not exchange.started:
            await exchange.start(200, self._stream_headers + _told_of(exchange, log.head))

    async def _tell_early(self, exchange: Exchange, turn_id: str, after: int) -> bool:
        """Begin the stream of a response that waits in the background, so that its client knows its id."""
        if not self._live.waits(exchange.caller, turn_id):
            return False
        await self._live.opened(turn_id)
        log = self._conversations.streams.here(exchange.caller.name, turn_id)
        if log is None:
            return False
        encoder = self._encoder(log, after)
        exchange.encode_error_event = encoder.error
        await exchange.start(200, [*self._stream_headers, (b"x-modelway-turn-id", turn_id.encode())])
        await exchange.write(encoder.begin())
        return True

    async def _promise(self, exchange: Exchange, turn_id: str) -> None:
        """Tell of a response in the background that it is there."""
        with until_client_is_gone(exchange):
            await self._live.opened(turn_id)
            await exchange.reply(200, written(await self._conversations.turn(exchange.caller.name, turn_id)))

    async def _begun(self, exchange: Exchange, turn_id: str) -> Readable:
        """The log with at least one event in it."""
        record = exchange.record
        record.turn, record.attempts = turn_id, self._live.attempts(turn_id)
        exchange.telemetry.stands_aside(record)
        log = await self._live.log(exchange.caller, turn_id)
        if not await log.after(0):
            raise cut_off(is_cancelled=log.is_cancelled)
        record.first_ms = milliseconds_since(record.time)
        record.provider, record.model = log.head.provider, log.head.model
        return log

    async def _begin(self, exchange: Exchange, request: ChatRequest) -> str:
        # In the background nobody waits for the whole; what comes in pieces is kept as it comes.
        is_background = request.when_left == "finish"
        lasting = replace(request, stream=True) if is_background else replace(request, when_left="grace")
        if KEY_HEADER in exchange.headers:
            fingerprint = blake2b(_encode((exchange.path, request)), digest_size=16).digest()
            return await self._live.begin_once(lasting, exchange.caller, key_of(exchange), fingerprint)
        if request.when_left != "finish" and not request.conversation_id:
            raise InvalidRequest(
                "x-modelway-detach needs a conversation_id, by which the answer is found again",
                hint="send one, or an Idempotency-Key",
            )
        return self._live.begin(lasting, exchange.caller).id

    def _after(self, exchange: Exchange, request: ChatRequest) -> int:
        text = exchange.header(LAST_HEADER)
        if text and not (request.stream and can_be_numbered(self._dialect)):
            raise InvalidRequest("Last-Event-ID is for streams of server-sent events", hint="leave it out")
        if text and KEY_HEADER not in exchange.headers:
            raise InvalidRequest(
                "Last-Event-ID needs the Idempotency-Key of the request whose rest is asked for",
                hint="or get /v1/conversations/{id}/stream",
            )
        return number_of(text, "Last-Event-ID")

    def _encoder(self, log: Readable, after: int) -> Encoder:
        encoder = self._dialect.EventEncoder(envelope_of(self._dialect, log))
        return Numbered(encoder, after) if can_be_numbered(self._dialect) else encoder


def must_follow(exchange: Exchange, request: ChatRequest) -> bool:
    """Whether the answer is to go on without its client, or has done so."""
    headers = exchange.headers
    if KEY_HEADER in headers or LAST_HEADER in headers or request.when_left != "cancel":
        return True
    return DETACH_HEADER in headers and _is_detached(exchange.header(DETACH_HEADER))


def _is_detached(said: str) -> bool:
    if said not in ("true", "false"):
        raise InvalidRequest('x-modelway-detach must be "true" or "false"')
    return said == "true"


def envelope_of(dialect: Dialect, log: Readable) -> Envelope:
    """What surrounds an answer with a log, always the same."""
    head = log.head
    return Envelope(
        id=dialect.ID_PREFIX + head.turn.removeprefix("turn_"),
        created=int(head.created_at),
        completed=int(log.ended_at or 0),
        model=head.model,
        provider=head.provider,
        conversation_id=head.conversation_id,
        include_usage=head.include_usage,
        echo=head.echo or {},
        ignored=head.ignored,
        now=lambda: log.ended_at or time.time(),
    )


def reply_headers(head: Head) -> Headers:
    """Who has answered, where, and how the rest can be asked for."""
    headers = [
        (b"x-modelway-provider", header_value(head.provider)),
        (b"x-modelway-model", header_value(head.model)),
        (b"x-modelway-turn-id", head.turn.encode()),
    ]
    if head.conversation_id:
        headers.append((b"x-modelway-conversation-id", head.conversation_id.encode()))
    if head.ignored:
        headers.append((b"x-modelway-ignored", header_value(", ".join(head.ignored))))
    return headers


def _told_of(exchange: Exchange, head: Head) -> Headers:
    """The headers of a reply: whoever reads again or elsewhere has not asked anybody, but somebody was."""
    if exchange.record.attempts or not head.trail:
        return reply_headers(head)
    return [*reply_headers(head), (b"x-modelway-attempts", head.trail.encode())]


def _with_all_names(head: Head, events: Iterable[Event]) -> Head:
    """The head of a whole answer: a log's own tells only who began it."""
    others = [event for event in events if isinstance(event, Continued)]
    provider = "+".join([head.provider, *(event.provider for event in others)])
    return replace(head, provider=provider, model="+".join([head.model, *(event.model for event in others)]))


def _written(encoder: Encoder, items: Sequence[Item], *, is_foreign: bool) -> bytes:
    """The bytes of some items; an error at their end is not written."""
    written: list[bytes] = []
    for item in items:
        if isinstance(item, Failed):
            break
        written.append(encoder.encode(_bare(item) if is_foreign else item))
        if isinstance(item, Finish):
            written.append(encoder.end())
    return b"".join(written)


def _bare(event: Event) -> Event:
    """An event without the bytes of another dialect."""
    if isinstance(event, Opaque):
        return Opaque(b"")
    return replace(event, raw=None) if getattr(event, "raw", None) is not None else event

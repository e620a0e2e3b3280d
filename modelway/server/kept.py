"""Relayed replies to requests with a key: asked for once, kept as they come, told to everybody who asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.conversations import Failed, Head, Readable, Turn
from modelway.dialects import openai_chat
from modelway.errors import GatewayError, InternalError, InvalidRequest, TurnInterrupted
from modelway.gateway import Gateway
from modelway.live import cut_off
from modelway.provider import RelayReply
from modelway.server.exchange import Exchange, Headers, header_value, until_client_is_gone
from modelway.server.keyed import key_of, tell_of_turn
from modelway.server.metering import Meter, ends_event, is_events
from modelway.telemetry import Attempt, milliseconds_since, trail
from modelway.types import Caller, ChatRequest, Completion, Event, Finish, Opaque, Usage

RELAY = "relay"
NOT_KEPT = "reply_not_kept"
_LAST_HEADER = b"last-event-id"
_TO_CALLER = (
    "content-type",
    "content-disposition",
    "content-length",
    "cache-control",
    "etag",
    "last-modified",
)
# A file that an upstream keeps may be a web page, which must not act as one of ours.
_HARMLESS: Headers = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox")]


class ReplyHead(Struct, frozen=True):
    """What comes before the body of a relayed reply."""

    status: int
    headers: dict[str, str]

    @classmethod
    def of(cls, reply: RelayReply) -> ReplyHead:
        """What a caller is told of a reply's head."""
        headers = {name: reply.headers[name] for name in _TO_CALLER if name in reply.headers}
        if reply.headers.get("content-encoding", "identity") != "identity":
            # What is read has been decoded, and its length is another one.
            headers.pop("content-length", None)
        return cls(reply.status, headers)

    @property
    def is_events(self) -> bool:
        """Whether the body is a stream of events."""
        return is_events(self.headers.get("content-type", ""))

    @property
    def length(self) -> int:
        """How long the body will be; 0 where nobody says."""
        said = self.headers.get("content-length", "")
        return int(said) if said.isdigit() else 0

    def told(self, provider: str, model: str) -> Headers:
        """The headers of a reply to a caller."""
        own = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        named: Headers = [(b"x-modelway-provider", header_value(provider))]
        if model:
            named.append((b"x-modelway-model", header_value(model)))
        return [*own, *_HARMLESS, *named]


class Call(Protocol):
    """What is asked for once; see RelayedCall. `ignored`: what of it was left out."""

    @property
    def name(self) -> str:
        """Who answers."""
        ...

    @property
    def model(self) -> str:
        """With which model."""
        ...

    @property
    def ignored(self) -> tuple[str, ...]:
        """What of the request was left out."""
        ...

    @property
    def meter(self) -> Meter | None:
        """Who counts the tokens of the reply; None where that is not needed."""
        ...

    async def admit(self) -> None:
        """Let it in."""
        ...

    async def begin(self, attempts: list[Attempt]) -> RelayReply:
        """The reply."""
        ...

    def was_left(self) -> None:
        """Nobody waits for the reply."""
        ...

    def settle(self) -> tuple[Usage, float]:
        """What it took and costs."""
        ...


class _Rest:
    """What is left of a reply that is too large to be kept: for one reader."""

    def __init__(self, reply: RelayReply, first: bytes) -> None:
        self.reply = reply
        self.first = first
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class KeptReplies:
    """Answers relayed requests that have a key; keeps replies of up to `max_bytes`."""

    def __init__(self, gateway: Gateway, *, max_bytes: int) -> None:
        self._gateway = gateway
        self._max_bytes = max_bytes
        self._rests: dict[str, _Rest] = {}

    async def answer(self, exchange: Exchange, call: Call, *said: str | bytes) -> None:
        """Ask the upstream, or find what it has answered to one that said the same, and reply with that."""
        if _LAST_HEADER in exchange.headers:
            raise InvalidRequest(
                "a relayed reply has no numbers, and is told from its beginning",
                hint="leave out Last-Event-ID",
            )
        await tell_of_turn(
            exchange,
            self._gateway.accounts,
            partial(self._begin, exchange, call, said),
            partial(self._tell, exchange),
        )

    async def _begin(self, exchange: Exchange, call: Call, said: tuple[str | bytes, ...]) -> str:
        fingerprint = blake2b(msgspec.msgpack.encode(said), digest_size=16).digest()
        request = ChatRequest(messages=(), model=call.model, dialect=RELAY, stream=True, when_left="grace")
        return await self._gateway.live.begin_once(
            request, exchange.caller, key_of(exchange), fingerprint, partial(self._ask, call)
        )

    async def _ask(
        self, call: Call, request: ChatRequest, caller: Caller, attempts: list[Attempt]
    ) -> _Keeping:
        await call.admit()
        try:
            turn = await self._gateway.conversations.open_turn(caller.name, request)
            try:
                reply = await call.begin(attempts)
            except GatewayError as error:
                await turn.fail(error)
                raise
            except BaseException:
                turn.interrupt()
                call.was_left()
                raise
        except BaseException:
            call.settle()
            raise
        turn.answered_by(call.name, call.model, call.ignored, trail=trail(attempts))
        return _Keeping(call, turn, reply, self._max_bytes, self._rests)

    async def _tell(self, exchange: Exchange, turn_id: str) -> None:
        record, live = exchange.record, self._gateway.live
        with until_client_is_gone(exchange), live.reading(turn_id):
            record.turn, record.attempts = turn_id, live.attempts(turn_id)
            exchange.telemetry.stands_aside(record)
            log = await live.log(exchange.caller, turn_id)
            if not await log.after(0):
                raise cut_off(is_cancelled=log.is_cancelled)
            record.first_ms = milliseconds_since(record.time)
            record.provider, record.model = log.head.provider, log.head.model
            head = _head_of(log.head)
            if log.ended_at is not None and not head.is_events:
                self._refuse_half(turn_id, log)
            headers = head.told(log.head.provider, log.head.model)
            if not record.attempts and log.head.trail:
                headers.append((b"x-modelway-attempts", log.head.trail.encode()))
            if log.head.ignored:
                headers.append((b"x-modelway-ignored", header_value(", ".join(log.head.ignored))))
            if head.length > self._max_bytes:
                headers.append((b"x-modelway-kept", b"false"))
            await exchange.start(head.status, headers)
            await self._write(exchange, turn_id, log, is_stream=head.is_events)

    def _refuse_half(self, turn_id: str, log: Readable) -> None:
        """Half a file or half an object is no reply; raises why there is no more of it."""
        if isinstance(log.last, Finish) or turn_id in self._rests:
            return
        raise log.last.error() if isinstance(log.last, Failed) else cut_off(is_cancelled=log.is_cancelled)

    async def _write(self, exchange: Exchange, turn_id: str, log: Readable, *, is_stream: bool) -> None:
        place, tail = 0, b""
        failure: GatewayError | None = None
        while items := await log.after(place):
            place += len(items)
            for item in items:
                match item:
                    case Opaque():
                        tail = (tail + item.raw)[-4:]
                        await exchange.write(item.raw)
                    case Finish():
                        await exchange.write(b"", last=True)
                        return
                    case Failed():
                        failure = item.error()
        if (rest := self._rests.pop(turn_id, None)) is not None:
            await _write_rest(exchange, rest)
            return
        if is_stream and ends_event(tail):
            exchange.encode_error_event = error_event
        else:
            # Inside half an event, another one would only be a part of it.
            exchange.cut()
        raise failure or cut_off(is_cancelled=log.is_cancelled)


class _Keeping:
    """A reply under way, which its turn keeps."""

    def __init__(
        self, call: Call, turn: Turn, reply: RelayReply, max_bytes: int, rests: dict[str, _Rest]
    ) -> None:
        self.provider, self.model = call.name, call.model
        self.cost: float | None = None
        self._call = call
        self._turn = turn
        self._reply = reply
        self._max_bytes = max_bytes
        self._rests = rests
        self._completion: Completion | None = None
        head = ReplyHead.of(reply)
        self._length = head.length
        if turn.log is not None:
            turn.log.head = replace(turn.log.head, echo=msgspec.to_builtins(head))
        # The upstream has taken the request: from now on its key has been used.
        turn.keep(b"")

    @property
    def completion(self) -> Completion:
        """Only what it took is known of it."""
        if self._completion is None:
            raise InternalError("the reply has not ended")
        return self._completion

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The pieces, each kept by then."""
        size = 0
        try:
            while piece := await self._reply.read():
                size += len(piece)
                if max(size, self._length) > self._max_bytes:
                    await self._hand_over(piece)
                self._meter(piece)
                self._turn.keep(piece)
                yield Opaque(piece)
        except GatewayError as error:
            await self._turn.fail(error, self.provider, self.model)
            raise
        used, self.cost = self._call.settle()
        finish = Finish(usage=used)
        self._turn.record(finish)
        self._completion = await self._turn.finish(self.provider, self.model)
        yield finish

    async def aclose(self) -> None:
        """End the call, and charge for what has come; a reply that has not ended is kept as interrupted."""
        self._turn.interrupt(self.provider, self.model)
        await self._reply.aclose()
        if self.cost is None:
            _, self.cost = self._call.settle()

    async def _hand_over(self, piece: bytes) -> None:
        """Let one reader have the rest of what is too large to be kept. Raises when it has been read."""
        rest = self._rests[self._turn.id] = _Rest(_Metered(self._reply, self._call), piece)
        self._meter(piece)
        error = TurnInterrupted(
            f"the reply to this request was larger than {self._max_bytes} bytes and has not been kept",
            hint="ask again with a new key, or raise [conversations] max_reply_bytes",
            code=NOT_KEPT,
        )
        try:
            await self._turn.fail(error, self.provider, self.model)
            await rest.is_over
        finally:
            self._rests.pop(self._turn.id, None)
        raise error

    def _meter(self, piece: bytes) -> None:
        if self._call.meter is not None:
            self._call.meter.read(piece)


class _Metered:
    """A reply whose reader counts what it takes."""

    def __init__(self, reply: RelayReply, call: Call) -> None:
        self.status, self.headers = reply.status, reply.headers
        self._reply = reply
        self._call = call

    async def read(self) -> bytes:
        """The next piece."""
        piece = await self._reply.read()
        if self._call.meter is not None:
            self._call.meter.read(piece)
        return piece

    async def aclose(self) -> None:
        """End the call."""
        await self._reply.aclose()


async def _write_rest(exchange: Exchange, rest: _Rest) -> None:
    """Pass on what nobody keeps, as fast as its client reads."""
    try:
        await exchange.write(rest.first)
        while piece := await rest.reply.read():
            await exchange.write(piece)
        await exchange.write(b"", last=True)
    except GatewayError:
        exchange.cut()
        raise
    finally:
        if not rest.is_over.done():
            rest.is_over.set_result(None)


def error_event(error: GatewayError) -> bytes:
    """An error inside a stream of events."""
    return b"data: " + openai_chat.encode_error(error) + b"\n\n"


def _head_of(head: Head) -> ReplyHead:
    said: dict[str, Any] = head.echo or {"status": 200, "headers": {}}
    return msgspec.convert(said, ReplyHead)

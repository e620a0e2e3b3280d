"""Turns that belong to the gateway and not to a connection: begun, read along by many, stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from functools import partial

from msgspec.structs import replace

from modelway.conversations import Asking, Conversations, Failed, Readable, Running, new_turn_id
from modelway.errors import (
    ConversationBusy,
    GatewayError,
    InternalError,
    NotFound,
    StoreUnavailable,
    TurnInterrupted,
)
from modelway.live_turn import Answer, Answering, LiveTurn, Resume
from modelway.telemetry import Attempt, RequestRecord, milliseconds_since
from modelway.types import Caller, ChatRequest, Completion, Event, Finish

log = logging.getLogger("modelway.live")

_POLL_S = 0.1
# As of a client that has gone.
CUT_OFF = 499


class Live:
    """Answers turns in tasks of its own, and finds the logs of all turns, wherever they are answered."""

    def __init__(
        self, answer: Answer, resume: Resume, conversations: Conversations, *, grace_s: float
    ) -> None:
        self._answer = answer
        self._resume = resume
        self._conversations = conversations
        self._grace_s = grace_s
        self._turns: dict[str, LiveTurn] = {}
        self._expected: set[str] = set()
        self._takings: dict[str, asyncio.Task[None]] = {}
        # Told of each turn that begins, and of each that has ended.
        self.on_begin: Callable[[RequestRecord], None] | None = None
        self.on_end: Callable[[RequestRecord, Completion | None], None] | None = None

    @property
    def is_answering(self) -> bool:
        """Whether any turn is under way."""
        return bool(self._turns)

    @property
    def under_way(self) -> int:
        """How many turns are."""
        return len(self._turns)

    def begin(
        self,
        request: ChatRequest,
        caller: Caller,
        asking: Asking | None = None,
        answer: Answer | None = None,
    ) -> LiveTurn:
        """Begin a turn, which goes on to its end or, where the request says so, for a grace time.

        It is stored: in its conversation, or else in one that no list shows. `answer` answers it, instead of
        who answers chats.
        """
        lasting = replace(
            request,
            turn_id=request.turn_id or new_turn_id(),
            store=request.store if request.conversation_id else True,
            when_left="finish" if request.when_left == "cancel" else request.when_left,
        )
        opened = self._conversations.streams.opening(lasting.turn_id)
        turn = LiveTurn(lasting, caller, answer or self._answer, asking, opened)
        self._start(turn)
        return turn

    async def begin_once(
        self,
        request: ChatRequest,
        caller: Caller,
        key: str,
        fingerprint: bytes,
        answer: Answer | None = None,
    ) -> str:
        """The turn that answers a request with this key: it is begun where there is none yet.

        Raises IdempotencyKeyReused where another request had the key, and what log() raises.
        """
        while True:
            asking = Asking(caller.name, key, fingerprint, new_turn_id())
            self._expected.add(asking.turn)
            try:
                claim = await self._conversations.streams.claim(asking, self._is_expected)
                if claim.is_new:
                    return self.begin(replace(request, turn_id=asking.turn), caller, asking, answer).id
            except asyncio.CancelledError:
                # The key may be taken by now, for a turn that never comes.
                self._conversations.streams.give_up(asking)
                raise
            finally:
                self._expected.discard(asking.turn)
            if claim.turn in self._turns:
                return claim.turn
            try:
                await self.log(caller, claim.turn)
            except NotFound as error:
                if error.code != "stream_not_found":
                    raise
            else:
                return claim.turn
            # Another process has the key and is about to open the turn, or could not.
            await asyncio.sleep(_POLL_S)

    async def log(self, caller: Caller, turn_id: str) -> Readable:
        """The log of a turn that has begun; waits for one that is about to.

        Raises NotFound where there is none, and the error of a turn that could not be answered.
        """
        turn = self._turns.get(turn_id)
        if turn is not None and turn.caller.name == caller.name:
            return await turn.begun()
        streams = self._conversations.streams
        if here := streams.here(caller.name, turn_id):
            return here
        stored = await streams.stored(caller.name, turn_id, partial(self._go_on, caller))
        turn = self._turns.get(turn_id)
        if turn is None:
            return stored
        # This server has just begun to go on with it. Where it could not, the store knows why.
        with suppress(GatewayError):
            return await turn.begun()
        return stored

    async def look_after(self, caller: Caller, turn_id: str) -> None:
        """Go on with a turn whose server has died, if that is to be."""
        if turn_id not in self._turns and self._conversations.streams.here(caller.name, turn_id) is None:
            await self._conversations.streams.stored(caller.name, turn_id, partial(self._go_on, caller))

    async def opened(self, turn_id: str) -> None:
        """Wait until a turn is stored; raises the error of one that cannot be."""
        turn = self._turns.get(turn_id)
        if turn is not None and turn.task is not None:
            await asyncio.wait((turn.opened, turn.task), return_when=asyncio.FIRST_COMPLETED)
            if not turn.opened.done():
                await turn.begun()

    async def subscribe(
        self, caller: Caller, turn_id: str, *, after: int = 0
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """The events of a turn, each with its number (the first is 1), from the one after `after` on.

        Ends after the Finish. Raises NotFound, the error that the answer ended with, or TurnInterrupted.
        """
        with self.reading(turn_id):
            async with aclosing(events_of(await self.log(caller, turn_id), after)) as events:
                async for numbered in events:
                    yield numbered

    @contextmanager
    def reading(self, turn_id: str) -> Iterator[None]:
        """Somebody reads this turn: as long as anybody does, it goes on."""
        turn = self._turns.get(turn_id)
        if turn is None:
            yield
            return
        turn.readers += 1
        if turn.timer is not None:
            turn.timer.cancel()
            turn.timer = None
        try:
            yield
        finally:
            turn.readers -= 1
            if not turn.readers and turn.request.when_left == "grace" and turn.id in self._turns:
                self._leave_after(turn, self._grace_s)

    def attempts(self, turn_id: str) -> list[Attempt]:
        """What has been tried for a turn that is answered here."""
        turn = self._turns.get(turn_id)
        return [] if turn is None else turn.record.attempts

    def waits(self, caller: Caller, turn_id: str) -> bool:
        """Whether a turn that its caller knows by its id has not begun to be answered here."""
        turn = self._turns.get(turn_id)
        if turn is None or turn.caller.name != caller.name or turn.has_begun:
            return False
        return bool((turn.request.echo or {}).get("background"))

    def readers(self, turn_id: str) -> int:
        """How many read a turn in this process."""
        turn = self._turns.get(turn_id)
        return 0 if turn is None else turn.readers

    async def running(self, caller: Caller) -> list[Running]:
        """The turns of a caller that are being answered, here or elsewhere, oldest first."""
        return await self._conversations.streams.running(caller.name)

    async def cancel(self, caller: Caller, turn_id: str) -> bool:
        """Stop a turn; what has come of it is kept. False where it had ended."""
        turn = self._turns.get(turn_id)
        if turn is None or turn.caller.name != caller.name or turn.task is None:
            return await self._conversations.streams.cancel(caller.name, turn_id)
        turn.was_stopped = True
        self._conversations.streams.note_cancelled(turn_id)
        turn.task.cancel()
        await asyncio.wait((turn.task,))
        await self._conversations.streams.settled()
        return True

    async def aclose(self) -> None:
        """Interrupt all turns; what has come of them is kept."""
        # What is being taken over may have begun by the time that it is called off.
        while self._turns or self._takings:
            turns = list(self._turns.values())
            tasks = [task for turn in turns for task in (turn.task, turn.leaving) if task is not None]
            tasks += self._takings.values()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _go_on(self, caller: Caller, turn_id: str) -> None:
        """Go on with a turn whose server is dead, unless somebody else does."""
        taking = self._takings.get(turn_id)
        if taking is None and turn_id not in self._turns:
            # Not with the reader's task: it may leave just when the turn has become ours.
            taking = self._takings[turn_id] = asyncio.create_task(self._take_over(caller, turn_id))
            taking.add_done_callback(lambda _: self._takings.pop(turn_id))
        if taking is not None:
            await asyncio.wait((taking,))

    async def _take_over(self, caller: Caller, turn_id: str) -> None:
        # Where it cannot be had now, its readers will ask again.
        with suppress(ConversationBusy, StoreUnavailable):
            left = await self._conversations.take_over(caller.name, turn_id)
            if left is None:
                return
            opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            opened.set_result(None)
            when_left = "finish" if left.request.when_left == "finish" else "grace"
            request = replace(left.request, when_left=when_left)

            async def resume(_: ChatRequest, caller: Caller, attempts: list[Attempt]) -> Answering:
                return await self._resume(left, caller, attempts)

            turn = LiveTurn(request, caller, resume, None, opened)
            self._start(turn)
            if when_left == "grace":
                self._leave_after(turn, self._grace_s)

    def _start(self, turn: LiveTurn) -> None:
        self._turns[turn.id] = turn
        turn.task = asyncio.create_task(self._run(turn))
        turn.task.add_done_callback(lambda task: self._ended(turn, task))

    async def _run(self, turn: LiveTurn) -> None:
        record = turn.record
        completion = None
        if self.on_begin is not None:
            self.on_begin(record)
        try:
            async with aclosing(await turn.answer(turn.request, turn.caller, record.attempts)) as answer:
                record.first_ms = milliseconds_since(record.time)
                record.provider, record.model = answer.provider, answer.model
                here = self._conversations.streams.here(turn.caller.name, turn.id)
                if here is None:
                    raise InternalError("a turn without a log cannot be read along")
                turn.begin(here)
                async for _ in answer:
                    pass
                record.status, record.cost = 200, answer.cost or 0.0
                completion = answer.completion
        except GatewayError as error:
            record.status, record.code = error.status, error.code
            turn.fail(error)
        except asyncio.CancelledError:
            record.status, record.code = CUT_OFF, "" if turn.was_stopped else "turn_interrupted"
            raise
        except BaseException:
            record.status, record.code = InternalError.status, InternalError.code
            raise
        finally:
            if self.on_end is not None:
                self.on_end(record, completion)

    def _ended(self, turn: LiveTurn, task: asyncio.Task[None]) -> None:
        del self._turns[turn.id]
        self._conversations.streams.ended(turn.id)
        if turn.timer is not None:
            turn.timer.cancel()
        if turn.asking is not None and not turn.has_begun:
            self._conversations.streams.give_up(turn.asking)
        if task.cancelled():
            turn.fail(cut_off(is_cancelled=turn.was_stopped))
        elif error := task.exception():
            log.error("turn %s failed", turn.id, exc_info=error)
            turn.fail(InternalError("internal error", hint=f"the log has it under {turn.id}"))
        turn.let_go()

    def _leave_after(self, turn: LiveTurn, wait_s: float) -> None:
        """Stop a turn after so long, unless somebody reads it by then."""

        def leave() -> None:
            turn.leaving = asyncio.create_task(self._leave(turn))

        turn.timer = asyncio.get_running_loop().call_later(wait_s, leave)

    async def _leave(self, turn: LiveTurn) -> None:
        until = 0.0
        with suppress(StoreUnavailable):
            until = await self._conversations.streams.read_until(turn.id)
        wait_s = until - time.time()
        if turn.readers or turn.id not in self._turns:
            return
        if wait_s > 0:
            self._leave_after(turn, wait_s)
        elif turn.task is not None:
            turn.task.cancel()

    def _is_expected(self, turn_id: str) -> bool:
        return turn_id in self._turns or turn_id in self._expected


async def events_of(log: Readable, after: int = 0) -> AsyncGenerator[tuple[int, Event], None]:
    """The events of a log with their numbers; raises what the answer ended with, if not with a Finish."""
    place = after
    while items := await log.after(place):
        for item in items:
            place += 1
            if isinstance(item, Failed):
                raise item.error()
            yield place, item
            if isinstance(item, Finish):
                return
    if not isinstance(log.last, Finish):
        raise cut_off(is_cancelled=log.is_cancelled)


def cut_off(*, is_cancelled: bool = False) -> TurnInterrupted:
    """The error for an answer that was cut off by nobody's error."""
    if is_cancelled:
        return TurnInterrupted(
            "somebody has stopped this answer; the conversation keeps what had come of it",
            hint="send a new request to go on",
            code="turn_cancelled",
        )
    return TurnInterrupted(
        "the answer was cut off before its end; the conversation keeps what had come of it",
        hint="send a new request to go on",
    )

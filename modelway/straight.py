"""An answer that comes without anybody waiting for it: each step is taken as soon as it can be.

The usual case only: the conversation is free, a connection to the first candidate is there, and its answer
comes in one go. It saves a task and some twenty coroutines. Whatever else happens, `gateway` goes on from
where this has come to, so that retries, other candidates and errors are its business alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from modelway.accounts import Accounts, Permit
from modelway.answer import Answer
from modelway.attempting import HAS_BEGUN, Begun, Sent
from modelway.conversations import Ephemeral, Turn
from modelway.provider import Telling, TellingStream
from modelway.routing import Breakers, Candidate
from modelway.telemetry import Attempt, milliseconds_since
from modelway.types import Caller, ChatRequest, Event, Usage


class Gateway(Protocol):
    """What goes on where the straight way ends."""

    @property
    def accounts(self) -> Accounts:
        """Who pays."""
        ...

    @property
    def breakers(self) -> Breakers:
        """Who fails."""
        ...

    async def open_turn(self, request: ChatRequest, caller: Caller) -> Turn | Ephemeral:
        """Open a turn."""
        ...

    def asked(
        self, asked: ChatRequest, candidate: Candidate, turn: Turn | Ephemeral
    ) -> tuple[ChatRequest, tuple[str, ...]]:
        """The request as a candidate is told it, and what is left out of it."""
        ...

    async def answer_turn(
        self,
        turn: Turn | Ephemeral,
        caller: Caller,
        candidates: list[Candidate],
        attempts: list[Attempt],
        permit: Permit | None,
        sent: Sent | None,
    ) -> Answer:
        """The answer to an open turn; `sent` is the first candidate's call, where it was made."""
        ...


class Phase(Enum):
    """How far an answer has come that nobody waits for."""

    OPENING = "its conversation is being opened"
    ASKED = "the provider is asked, or to be asked by who waits; `answer` tells whether it has begun"
    STORING = "all of it has come, and is being stored"
    LEFT = "nobody wants it any more"


class Straight:
    """One answer on its way. `answer` is there as soon as it has begun.

    `must_wait`: what follows can only be waited for, with the answer that go_on() gives. It ends with its
    answer, or by leave().
    """

    def __init__(
        self,
        gateway: Gateway,
        request: ChatRequest,
        caller: Caller,
        candidates: list[Candidate],
        attempts: list[Attempt],
        permit: Permit | None,
    ) -> None:
        self.answer: Answer | None = None
        self.must_wait = False
        self._phase = Phase.OPENING
        self._gateway = gateway
        self._request = request
        self._caller = caller
        self._candidates = candidates
        self._attempts = attempts
        self._permit = permit
        self._turn: Turn | Ephemeral | None = None
        self._sent: Sent | None = None
        self._stream: TellingStream | None = None
        self._listener: Callable[[], None] | None = None
        self._finish: list[Event] = []
        # Who goes on while the conversation is being opened waits for that: it is being held for us.
        self._opening: asyncio.Future[None] | None = None

    def opened(self, provider: Telling, turn: Turn | None) -> None:
        """The conversation is ours, or has to be waited for (None)."""
        if self._phase is Phase.LEFT:
            if turn is not None:
                turn.interrupt()
            return
        if self._opening is None and turn is not None and not turn.survives:
            self.ask(turn, provider)
            self.listen(self._listener)
        else:
            self._turn, self._phase, self.must_wait = turn, Phase.ASKED, True
        if self._opening is not None and not self._opening.done():
            self._opening.set_result(None)
        elif self.must_wait:
            self._tell()

    def ask(self, turn: Turn | Ephemeral, provider: Telling) -> None:
        """Ask the provider, over a connection that is there."""
        self._turn, self._phase = turn, Phase.ASKED
        stream: TellingStream | None = None
        try:
            asked, ignored = self._gateway.asked(turn.request, self._candidates[0], turn)
            stream = provider.telling(asked)
            is_made = stream.send_now()
        except Exception:  # noqa: BLE001 - once more where it can be told of, and somebody else may be asked
            # A bug, too: the store calls this, and tells others of their turns after this one.
            self.must_wait = True
            if stream is not None:
                stream.cut()
            return
        self._stream = stream
        self._sent = Sent(
            stream, ignored, [], time.time() if is_made else 0.0, self._gateway.breakers.clock()
        )
        self.must_wait = not is_made

    @property
    def is_being_stored(self) -> bool:
        """Whether all of it has come and is being stored: only take() gives the end."""
        return self._phase is Phase.STORING and not self.must_wait

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Whom to tell that there is something to take()."""
        self._listener = listener
        if self._stream is not None:
            self._stream.listen(listener)

    def take(self) -> list[Event]:
        """The events that have come, recorded."""
        if self._phase is Phase.STORING:
            return self._end()
        if self._stream is None or (events := self._stream.take()) is None:
            self.must_wait = True
            return []
        self.must_wait = self._stream.is_broken
        answer = self.answer
        if answer is None:
            if (begun := self._begun(events)) is None:
                return []
            answer, events = begun
        taken = answer.take_at_once(events)
        if taken is events:
            # Nothing is held back; once something was, this is not called again.
            return events
        if answer.lacks_only_the_end:
            self._phase, self._finish = Phase.STORING, events[-1:]
            answer.finish_soon(self._tell)
        else:
            self.must_wait = self.must_wait or answer.is_behind
        return taken

    def _end(self) -> list[Event]:
        """The Finish, as soon as the turn is durable."""
        has_ended = self.answer is not None and self.answer.has_ended
        self.must_wait = not has_ended
        return self._finish if has_ended else []

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener()

    async def go_on(self) -> Answer:
        """The answer, from here on by waiting; raises what gateway.answer() raises."""
        self.listen(None)
        if self.answer is not None:
            return self.answer
        permit, self._permit = self._permit, None
        gateway = self._gateway
        try:
            if self._phase is Phase.OPENING:
                self._opening = asyncio.get_running_loop().create_future()
                await self._opening
            turn = self._turn or await gateway.open_turn(self._request, self._caller)
            return await gateway.answer_turn(
                turn, self._caller, self._candidates, self._attempts, permit, self._sent
            )
        except BaseException:
            if permit is not None:
                gateway.accounts.end(permit, Usage())
            raise

    def leave(self) -> None:
        """Nobody wants the answer any more; what has come of it is kept. Harmless after its end."""
        self._stop()
        permit, self._permit = self._permit, None
        if permit is not None and self.answer is None:
            self._gateway.accounts.end(permit, Usage())

    def take_back(self) -> None:
        """The request comes again, to be answered by waiting: it is counted then."""
        self._stop()
        permit, self._permit = self._permit, None
        if permit is not None:
            self._gateway.accounts.undo(permit)

    def _stop(self) -> None:
        self.listen(None)
        self._phase = Phase.LEFT
        if self.answer is not None:
            self.answer.cut()
        elif self._turn is not None:
            self._turn.interrupt()
        if self._stream is not None:
            self._stream.cut()

    def _begun(self, events: list[Event]) -> tuple[Answer, list[Event]] | None:
        """The answer, and all that has come of it; None as long as a caller could see nothing of it."""
        candidate, turn, sent = self._candidates[0], self._turn, self._sent
        assert turn is not None  # noqa: S101 - both were there before the call was made
        assert sent is not None  # noqa: S101
        sent.held += events
        if not any(isinstance(event, HAS_BEGUN) for event in events):
            return None
        held, sent.held = sent.held, []
        self._attempts.append(Attempt(candidate.name, candidate.model, milliseconds_since(sent.made_at)))
        answer = Answer(
            Begun(candidate, sent.stream, [], sent.ignored), turn, self._attempts, self._gateway.breakers
        )
        answer.bill = turn.bill = self._gateway.accounts.bill(
            self._caller, self._permit, answer.provider, answer.model, turn.request
        )
        self.answer = answer
        return answer, held

"""One answer under way: recorded as it is given, gone on with where it breaks off and its route says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from msgspec.structs import replace

from modelway.accounts import Bill
from modelway.attempting import Begun, no_finish
from modelway.continuing import Continuing
from modelway.conversations import Ephemeral, Turn
from modelway.errors import GatewayError, InternalError, TurnInterrupted
from modelway.prices import NANOS
from modelway.routing import Breakers
from modelway.telemetry import Attempt, trail
from modelway.types import Completion, Event, Finish


class Answer:
    """One answer under way. Iterate it once; `completion` is there when the end has been reached.

    `ignored` names the fields of the request that the provider could not be told.
    """

    def __init__(
        self,
        begun: Begun,
        turn: Turn | Ephemeral,
        attempts: list[Attempt],
        breakers: Breakers,
        continuing: Continuing | None = None,
    ) -> None:
        candidate = begun.candidate
        self.provider = candidate.name
        # Where nobody named one, the provider has found one by now.
        self.model = candidate.model or candidate.provider.info.default_model
        self.conversation_id = turn.conversation_id
        self.turn_id = turn.id
        self.created_at = turn.opened_at
        self.attempts = attempts
        self.ignored = begun.ignored
        self.log = turn.log
        if turn.log is not None:
            turn.answered_by(self.provider, self.model, begun.ignored, trail=trail(attempts))
        self._candidate = candidate
        self._breakers = breakers
        self._continuing = continuing
        self._turn = turn
        self._stream = begun.stream
        self._held = begun.held
        self._completion: Completion | None = None
        self.bill: Bill | None = None

    @property
    def cost(self) -> float | None:
        """What the answer has cost, in dollars; None before its end, and where nobody knows the price."""
        if self.bill is None or self.bill.nanos is None:
            return None
        return self.bill.nanos / NANOS

    @property
    def answering(self) -> tuple[str, str]:
        """The provider and the model that answer now."""
        return self._candidate.key

    @property
    def trail(self) -> str:
        """Who was asked, how it ended and the milliseconds."""
        return trail(self.attempts)

    @property
    def completion(self) -> Completion:
        """The whole answer, after its Finish has been seen."""
        if self._completion is None:
            raise InternalError("the answer has not ended")
        return self._completion

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The events, each recorded before it is given; the Finish only when the turn is durable."""
        try:
            for event in self._held:
                yield await self._take(event)
            while self._completion is None:
                try:
                    event = await anext(self._stream)
                except StopAsyncIteration:
                    event = await self._after_break(no_finish(self._candidate.name))
                except GatewayError as error:
                    event = await self._after_break(error)
                yield await self._take(event)
        except GatewayError as error:
            await self._turn.fail(error, self.provider, self.model)
            raise
        except BaseException:
            self._turn.interrupt(self.provider, self.model)
            raise

    @property
    def has_ended(self) -> bool:
        """Whether all of it has come and is stored."""
        return self._completion is not None

    @property
    def lacks_only_the_end(self) -> bool:
        """Whether all has been recorded but the Finish."""
        return len(self._held) == 1 and isinstance(self._held[0], Finish) and not self._turn.survives

    def finish_soon(self, ended: Callable[[], None]) -> None:
        """Record the Finish without waiting; where that fails, iterating tries again."""
        turn = self._turn

        def stored(completion: Completion | None) -> None:
            if completion is not None:
                self._held = []
                self._succeed(completion)
            ended()

        if isinstance(turn, Turn):
            turn.record(self._held[0])
            turn.finish_soon(self.provider, self.model, stored)

    @property
    def is_behind(self) -> bool:
        """Whether there are events whose recording has to be waited for: iterating gives them."""
        return bool(self._held)

    def take_at_once(self, events: list[Event]) -> list[Event]:
        """Record events that have come, and give them back, as far as nothing has to be waited for.

        Where nothing has to be, it is the same list that is given back: who calls this asks with `is`.
        """
        turn = self._turn
        for place, event in enumerate(events):
            if turn.survives:
                return self._hold(events, place)
            if isinstance(event, Finish):
                if not isinstance(turn, Ephemeral):
                    return self._hold(events, place)
                turn.record(event)
                self._succeed(turn.end(self.provider))
                continue
            try:
                turn.record(event)
            except TurnInterrupted:
                return self._hold(events, place)
        return events

    def _hold(self, events: list[Event], place: int) -> list[Event]:
        self._held = events[place:]
        return events[:place]

    @property
    def finished_at(self) -> float:
        """When it ended, as the store knows it; 0: not yet, or it is not kept."""
        return self._turn.finished_at

    async def collect(self) -> Completion:
        """Wait for the whole answer."""
        async for _ in self:
            pass
        return self.completion

    async def aclose(self) -> None:
        """End the upstream call; an answer that has not come to its end is kept as interrupted."""
        self.cut()
        await self._stream.aclose()

    def cut(self) -> None:
        """Keep an answer that has not come to its end as interrupted; who reads it ends the call."""
        self._turn.interrupt(self.provider, self.model)

    async def _after_break(self, error: GatewayError) -> Event:
        """What comes next where somebody else goes on with the answer; otherwise the error."""
        self._breakers.failed(self._candidate.key, error)
        if self._continuing is None:
            raise error
        await self._stream.aclose()
        begun = await self._continuing.after(self._candidate, error)
        if self.bill is not None:
            self.bill.hand_over(begun.candidate.name, begun.candidate.model, self._turn.so_far())
            self._turn.pay_anew()
        self._candidate, self._stream = begun.candidate, begun.stream
        self.follows(self.provider, self.model)
        return await anext(self._stream)

    def follows(self, provider: str, model: str) -> None:
        """Whoever answers now goes on with what these had begun."""
        self.provider = f"{provider}+{self._candidate.name}"
        self.model = f"{model}+{self._candidate.model}"

    async def _take(self, event: Event) -> Event:
        self._turn.record(event)
        if self._turn.survives:
            await self._turn.stored()
        if isinstance(event, Finish):
            self._succeed(await self._turn.finish(self.provider, self.model))
        return event

    def _succeed(self, completion: Completion) -> None:
        if self._breakers.troubled:
            self._breakers.succeeded(self._candidate.key)
        self._completion = replace(completion, provider=self.provider, conversation_id=self.conversation_id)

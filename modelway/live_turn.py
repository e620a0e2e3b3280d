"""One turn that goes on without its reader, and what its answer must be able to do."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from modelway.conversations import Asking, Readable, Turn
from modelway.errors import GatewayError
from modelway.telemetry import Attempt, RequestRecord
from modelway.types import Caller, ChatRequest, Completion, Event


class Answering(Protocol):
    """An answer under way."""

    @property
    def provider(self) -> str:
        """Who answers."""
        ...

    @property
    def model(self) -> str:
        """With which model."""
        ...

    @property
    def completion(self) -> Completion:
        """All of it, after its end."""
        ...

    @property
    def cost(self) -> float | None:
        """What it has cost, in dollars."""
        ...

    def __aiter__(self) -> AsyncIterator[Event]:
        """Its events, each in the log of its turn by then."""
        ...

    async def aclose(self) -> None:
        """End it."""
        ...


Answer = Callable[[ChatRequest, Caller, list[Attempt]], Awaitable[Answering]]
Resume = Callable[[Turn, Caller, list[Attempt]], Awaitable[Answering]]


class LiveTurn:
    """A turn that goes on without its reader. `record` tells what has become of it."""

    def __init__(
        self,
        request: ChatRequest,
        caller: Caller,
        answer: Answer,
        asking: Asking | None,
        opened: asyncio.Future[None],
    ) -> None:
        self.id = request.turn_id
        self.caller = caller
        self.request = request
        self.answer = answer
        self.asking = asking
        self.record = RequestRecord(
            time=time.time(), request_id=self.id, dialect=request.dialect, caller=caller.name, stream=True
        )
        self.task: asyncio.Task[None] | None = None
        self.was_stopped = False
        self.readers = 0
        self.timer: asyncio.TimerHandle | None = None
        self.leaving: asyncio.Task[None] | None = None
        self.opened = opened
        self._begun: asyncio.Future[Readable] = asyncio.get_running_loop().create_future()
        # Nobody may wait for it.
        self._begun.add_done_callback(lambda begun: begun.cancelled() or begun.exception())

    @property
    def has_begun(self) -> bool:
        """Whether the first piece of the answer is there."""
        return self._begun.done() and self._begun.exception() is None

    async def begun(self) -> Readable:
        """The log, as soon as the answer has begun; raises the error of one that could not be had."""
        return await asyncio.shield(self._begun)

    def begin(self, log: Readable) -> None:
        """The first piece of the answer is there."""
        self._begun.set_result(log)

    def fail(self, error: GatewayError) -> None:
        """There is no answer; where it has begun its log tells."""
        if not self._begun.done():
            self._begun.set_exception(error)

    def let_go(self) -> None:
        """Empty the frames of the error that it has ended with.

        They hold the turn, and it holds them: together they would stay until the garbage is collected.
        """
        if self._begun.done() and (error := self._begun.exception()) is not None:
            traceback.clear_frames(error.__traceback__)

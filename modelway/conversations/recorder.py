"""Keeps the open turns of this process: their checkpoints, their leases, their ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from modelway.conversations.closing import (
    Ending,
    end_turn,
    extend_leases,
    fail_turn,
    finish_turn,
    save_checkpoints,
)
from modelway.conversations.groups import Command, Job
from modelway.conversations.ledger import Ledger
from modelway.conversations.owing import Owing
from modelway.conversations.paths import Paths
from modelway.conversations.writer import Writer
from modelway.errors import StoreUnavailable

if TYPE_CHECKING:
    from modelway.conversations.turn import Turn

# Between the tries to write the end of a turn.
_PAUSES_S = (0.05, 0.2, 0.5)


class Recorder:
    """Writes what the open turns record. All methods but is_open() belong to the event loop's thread."""

    def __init__(
        self,
        writer: Writer,
        paths: Paths,
        *,
        checkpoint_s: float,
        lease_s: float,
        goes_on: bool,
        released: Callable[[Turn], None],
    ) -> None:
        self._writer = writer
        self._paths = paths
        self._checkpoint_s = checkpoint_s
        self._lease_s = lease_s
        self.goes_on = goes_on
        self._released = released
        self._owing = Owing(writer)
        self._turns: dict[str, Turn | None] = {}
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._unsaved: set[Turn] = set()
        self._saving: asyncio.Future[None] | None = None
        self._save_timer: asyncio.Handle | None = None
        self._lease_timer: asyncio.Handle | None = None
        self._hurried = False

    def is_open(self, turn: str) -> bool:
        """Whether this process still works on the turn."""
        return turn in self._turns

    def turn(self, turn: str) -> Turn | None:
        """A turn that this process works on, once it is open."""
        return self._turns.get(turn)

    def opening(self, turn: str) -> asyncio.Future[None]:
        """A turn of this id is about to be asked for: what is done when it is open."""
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited[turn] = opened
        return opened

    def forget_opening(self, turn: str) -> None:
        """Nobody waits any more for a turn to be open."""
        self._awaited.pop(turn, None)

    def expect(self, turn: str) -> None:
        """A turn is about to be opened in the store."""
        self._turns[turn] = None

    def dismiss(self, turn: str) -> None:
        """The turn could not be opened."""
        self._turns.pop(turn, None)

    def add(self, turn: Turn) -> None:
        """The turn is open."""
        self._turns[turn.id] = turn
        if awaited := self._awaited.pop(turn.id, None):
            awaited.set_result(None)
        if self._lease_timer is None:
            self._lease_timer = asyncio.get_running_loop().call_later(self._lease_s / 3, self._extend_leases)

    def save_later(self, turn: Turn) -> None:
        """The turn has something to save: within `checkpoint_s`."""
        self._unsaved.add(turn)
        if self._save_timer is None:
            self._save_timer = asyncio.get_running_loop().call_later(self._checkpoint_s, self._save)

    def save_soon(self) -> None:
        """A turn has much to save. Not at once: an answer that is complete by then needs no checkpoint."""
        if not self._hurried:
            self._hurried = True
            asyncio.get_running_loop().call_soon(self._save)

    async def stored(self, turn: Turn) -> None:
        """Store what a turn has recorded; raises StoreUnavailable where that cannot be done."""
        self._unsaved.add(turn)
        if self._saving is None:
            self._saving = asyncio.get_running_loop().create_future()
        self.save_soon()
        await asyncio.shield(self._saving)

    async def finish(self, turn: Turn, ending: Ending) -> None:
        """Store the end of a turn; durable on return."""
        await self._end(turn, ending, lambda ledger: finish_turn(ledger, self._paths, ending))

    def finish_soon(self, turn: Turn, ending: Ending, ended: Callable[[bool, bool], None]) -> None:
        """As finish(), for who does not wait: tells whether it is stored; if not, finish() tries again.

        And whether its charge is: that stays, also where the conversation went on without the turn.
        """

        def written(job: Job[object]) -> None:
            try:
                if job.error is None:
                    self._release(turn)
            finally:
                ended(job.error is None, job.is_written)

        self._unsaved.discard(turn)
        if self._writer.is_closed:
            asyncio.get_running_loop().call_soon(ended, False, False)
        else:
            self._writer.send(lambda ledger: finish_turn(ledger, self._paths, ending), written)

    async def fail(self, turn: Turn, ending: Ending, *, drop_state: bool) -> None:
        """Store why a turn has no answer. The turn's own error matters more than that of the store."""
        with suppress(StoreUnavailable):
            await self._end(turn, ending, lambda ledger: fail_turn(ledger, ending, drop_state=drop_state))

    async def cut(self, turn: Turn, ending: Ending) -> None:
        """Store an answer that an error cut off, and the error."""
        with suppress(StoreUnavailable):
            await self._end(turn, ending, lambda ledger: end_turn(ledger, self._paths, ending))

    def interrupt(self, turn: Turn, ending: Ending, *, is_known: bool) -> None:
        """Store an answer that was cut off, without waiting; nothing of one that nobody can ask for."""

        def command(ledger: Ledger) -> None:
            if is_known:
                end_turn(ledger, self._paths, ending)
            else:
                fail_turn(ledger, ending, drop_state=False)

        def ended(job: Job[None]) -> None:
            if not job.is_written:
                self._owe(ending)

        if self._writer.is_closed:
            self._owe(ending)
        else:
            self._writer.send(command, ended)
        self._release(turn)

    def close(self) -> None:
        """Interrupt what is open."""
        for turn in list(self._turns.values()):
            if turn is not None:
                turn.interrupt()
        for timer in (self._save_timer, self._lease_timer):
            if timer is not None:
                timer.cancel()
        self._owing.close()

    async def _end(self, turn: Turn, ending: Ending, command: Command[object]) -> None:
        """Write the end of a turn, again where that fails: nobody else has its last words."""
        self._unsaved.discard(turn)
        for pause_s in () if self._writer.is_closed else _PAUSES_S:
            with suppress(StoreUnavailable):
                return await self._try_to_end(turn, ending, command, is_last=False)
            try:
                await asyncio.sleep(pause_s)
            except asyncio.CancelledError:
                self.give_up(turn, ending)
                raise
        return await self._try_to_end(turn, ending, command, is_last=True)

    async def _try_to_end(
        self, turn: Turn, ending: Ending, command: Command[object], *, is_last: bool
    ) -> None:
        def ended(job: Job[object]) -> None:
            if job.is_written:
                self._release(turn)
            elif is_last or not job.is_wanted or not isinstance(job.error, StoreUnavailable):
                self.give_up(turn, ending)

        try:
            future = self._writer.submit(command, may_refuse=False, ended=ended)
        except StoreUnavailable:
            self.give_up(turn, ending)
            raise
        await future

    def give_up(self, turn: Turn, ending: Ending) -> None:
        """The end could not be written: nobody has been told of the answer, but it has cost what it costs."""
        self._owe(ending)
        self._release(turn)

    def _owe(self, ending: Ending) -> None:
        if ending.charge is not None:
            self._owing.add(ending.turn, ending.charge)

    def _release(self, turn: Turn) -> None:
        self._unsaved.discard(turn)
        if self._turns.pop(turn.id, None) is not None:
            self._released(turn)

    def _save(self) -> None:
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None
        self._hurried = False
        waiting, self._saving = self._saving, None
        checkpoints = [turn.take_checkpoint() for turn in self._unsaved]
        self._unsaved.clear()

        def save(ledger: Ledger) -> None:
            save_checkpoints(ledger, checkpoints)

        if waiting is None:
            if checkpoints:
                self._writer.send(save)
            return
        if self._writer.is_closed:
            waiting.set_exception(StoreUnavailable("the conversation store is closed", retry_after=1))
        else:
            self._writer.send(save, partial(_tell, waiting))

    def _note_lost(self, extending: Job[list[str]]) -> None:
        for lost in extending.result if extending.error is None else ():
            turn = self._turns.get(lost)
            if turn is not None:
                turn.is_lost = True

    def _extend_leases(self) -> None:
        """Those that are older than one round: a short turn needs no heartbeat."""
        self._lease_timer = None
        now = time.time()
        old = [
            (turn.opened.conversation, turn.id)
            for turn in self._turns.values()
            if turn is not None and now - turn.opened_at > self._lease_s / 4
        ]
        if old and not self._writer.is_closed:
            self._writer.submit(
                lambda ledger: extend_leases(ledger, old, now + self._lease_s),
                may_refuse=False,
                ended=self._note_lost,
            )
        if self._turns:
            self._lease_timer = asyncio.get_running_loop().call_later(self._lease_s / 3, self._extend_leases)


def _tell(waiting: asyncio.Future[None], saving: Job[None]) -> None:
    """Tell who waits whether it was saved; nobody may, if all of them have left."""
    waiting.add_done_callback(lambda told: told.exception())
    if saving.error is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(saving.error)

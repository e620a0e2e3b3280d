"""Charges of turns whose end could not be written: tried again until they are, so that nothing is free."""

from __future__ import annotations

import asyncio

from modelway.conversations.groups import Job
from modelway.conversations.ledger import Ledger
from modelway.conversations.spending import Charge, report_lost, spend_on_turn
from modelway.conversations.writer import Writer

AGAIN_S = 0.5


class Owing:
    """What is still to be charged, by turn. Belongs to the event loop's thread.

    A turn whose checkpoints tell who pays is charged by whoever ends it instead, see spend_on_turn().
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._owed: dict[str, Charge] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, turn: str, charge: Charge) -> None:
        """Write it down as soon as that can be done; the log has it where the store is closed by then."""
        if self._writer.is_closed:
            report_lost([charge])
            return
        self._owed[turn] = charge
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(AGAIN_S, self._write)

    def close(self) -> None:
        """Try for the last time, before the writer is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._write()

    def _write(self) -> None:
        self._timer = None
        owed, self._owed = self._owed, {}

        def work(ledger: Ledger) -> None:
            for turn, charge in owed.items():
                spend_on_turn(ledger, turn, charge, is_held=False)

        def ended(job: Job[None]) -> None:
            if not job.is_written:
                for turn, charge in owed.items():
                    self.add(turn, charge)

        if self._writer.is_closed:
            report_lost(owed.values())
        else:
            self._writer.send(work, ended)

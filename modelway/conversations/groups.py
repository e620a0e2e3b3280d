"""Commands that are written together: one transaction, one commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from modelway.conversations.ledger import Ledger
from modelway.errors import GatewayError, StoreUnavailable

_log = logging.getLogger(__name__)

T = TypeVar("T")
Command = Callable[[Ledger], T]


class Job(Generic[T]):
    """A command and the future of its result; None where nobody waits for it.

    `ended` is called when it has been written or has failed, even where nobody waits any more.
    """

    __slots__ = ("command", "ended", "error", "future", "result")

    def __init__(
        self,
        command: Command[T],
        future: asyncio.Future[T] | None = None,
        ended: Callable[[Job[T]], None] | None = None,
    ) -> None:
        self.command = command
        self.future = future
        self.ended = ended
        self.error: Exception | None = None
        self.result: T

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for the result."""
        return self.future is not None and not self.future.cancelled()

    @property
    def is_written(self) -> bool:
        """Whether it was committed, if its group has ended; what a command refuses to do is no failure."""
        return self.error is None or (
            isinstance(self.error, GatewayError) and not isinstance(self.error, StoreUnavailable)
        )

    def run(self, ledger: Ledger) -> None:
        """Run it; what the command finds wrong with the request is its result."""
        self.error = None
        try:
            self.result = self.command(ledger)
        except GatewayError as error:
            self.error = error

    def resolve(self) -> None:
        """Tell who waits."""
        if self.ended is not None:
            ended, self.ended = self.ended, None
            # Without it: who keeps the job would keep itself alive until the garbage is collected.
            try:
                ended(self)
            except Exception:  # noqa: BLE001 - a bug in one must not keep its whole group waiting
                _log.exception("what follows a write has failed")
        if self.future is None or self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


def write_group(ledger: Ledger, jobs: list[Job[Any]]) -> None:
    """Run the jobs and commit. Where it raises, nothing of them is stored once the ledger is undone."""
    ledger.begin()
    for job in jobs:
        job.run(ledger)
    ledger.commit()

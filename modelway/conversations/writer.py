"""One thread that writes: all commands that wait are one transaction, and share the price of its commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from logging import getLogger
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from modelway.conversations.failures import unavailable_error
from modelway.conversations.ledger import Ledger
from modelway.errors import GatewayError, StoreUnavailable

if TYPE_CHECKING:
    from modelway.conversations.database import Database

T = TypeVar("T")
Command = Callable[[Ledger], T]

_GROUP = 256
_WAITING = 4096
_FAULTS_OF_A_COMMAND = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
)

_log = getLogger(__name__)


class _Job(Generic[T]):
    """A command and the future of its result; None where nobody waits for it."""

    __slots__ = ("command", "error", "future", "result")

    def __init__(self, command: Command[T], future: asyncio.Future[T] | None) -> None:
        self.command = command
        self.future = future
        self.error: Exception | None = None
        self.result: T

    def run(self, ledger: Ledger) -> None:
        """Run it; what the command finds wrong with the request is its result."""
        try:
            self.result = self.command(ledger)
        except GatewayError as error:
            self.error = error

    def resolve(self) -> None:
        """Tell who waits."""
        if self.future is None or self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Runs commands in the order in which they come; each one's future is resolved after the commit.

    A GatewayError that a command raises is its result and must come before anything is written. Whatever
    else it raises undoes the group, and each command runs again on its own. Where the database fails,
    the whole group fails with StoreUnavailable, and the next one begins with a new connection.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ledger: Ledger | None = None
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._closed = False
        self._thread = Thread(target=self._run, name="conversations-writer", daemon=True)
        self._thread.start()

    def submit(self, command: Command[T], *, may_refuse: bool = True) -> asyncio.Future[T]:
        """Queue a command. The end of a turn is never refused: there are no more of them than turns."""
        if self._closed:
            raise StoreUnavailable("the conversation store is closed", retry_after=1)
        if may_refuse and self._jobs.qsize() >= _WAITING:
            raise StoreUnavailable("too many turns wait for the conversation store", retry_after=1)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(command, future))
        return future

    def send(self, command: Command[object]) -> None:
        """Queue a command whose end nobody waits for."""
        if not self._closed:
            self._jobs.put(_Job(command, None))

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits."""
        return self._jobs.empty()

    def close(self) -> None:
        """Finish what is queued, then stop. Blocks until then."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            jobs: list[_Job[Any]] = []
            job = self._jobs.get()
            with suppress(Empty):
                while job is not None:
                    jobs.append(job)
                    if len(jobs) == _GROUP:
                        break
                    job = self._jobs.get_nowait()
            last = job is None
            if jobs:
                self._write(jobs)
                _resolve(jobs)
        self._reset()

    def _write(self, jobs: list[_Job[Any]]) -> None:
        try:
            self._transact(jobs)
        except sqlite3.Error as exc:
            self._reset()
            if isinstance(exc, _FAULTS_OF_A_COMMAND):
                self._write_apart(jobs, exc)
            else:
                _log.warning("the conversation store cannot be written: %s", exc)
                for job in jobs:
                    job.error = unavailable_error("written", exc)
        except Exception as exc:  # noqa: BLE001 - a bug in one command must not end the thread for all
            self._reset()
            self._write_apart(jobs, exc)

    def _write_apart(self, jobs: list[_Job[Any]], exc: Exception) -> None:
        if len(jobs) == 1:
            jobs[0].error = exc
            return
        for job in jobs:
            job.error = None
            self._write([job])

    def _transact(self, jobs: list[_Job[Any]]) -> None:
        if self._ledger is None:
            self._ledger = self._database.ledger()
        ledger = self._ledger
        ledger.begin()
        for job in jobs:
            job.run(ledger)
        ledger.commit()

    def _reset(self) -> None:
        """Drop the connection, and with it what was not committed."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None


def _resolve(jobs: list[_Job[Any]]) -> None:
    """Wake each event loop once. A loop that is closed has nobody left who waits."""
    loops = {job.future.get_loop() for job in jobs if job.future is not None}
    for loop in loops:
        mine = [job for job in jobs if job.future is not None and job.future.get_loop() is loop]
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve_all, mine)


def _resolve_all(jobs: list[_Job[Any]]) -> None:
    for job in jobs:
        job.resolve()

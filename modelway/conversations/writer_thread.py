"""The thread that writes groups that may take long."""

from __future__ import annotations

import sqlite3
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from logging import getLogger
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from modelway.conversations.failures import unavailable_error
from modelway.conversations.groups import Job, write_group
from modelway.conversations.ledger import Ledger

if TYPE_CHECKING:
    from modelway.conversations.database import Database

Jobs = list[Job[Any]]

_FAULTS_OF_A_COMMAND = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
)

_log = getLogger(__name__)


class WriterThread:
    """Writes one group after another, and calls back on the event loop that a group came from.

    Whatever a command raises, other than a GatewayError, undoes the group, and each command runs again on
    its own. Where the database fails, the whole group fails with StoreUnavailable, and the next one
    begins with a new connection.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ledger: Ledger | None = None
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="conversations-writer", daemon=True)
        self._thread.start()

    def write(self, jobs: Jobs, loop: AbstractEventLoop, written: Callable[[Jobs], None]) -> None:
        """Queue a group."""

        def work() -> None:
            self._write(jobs)
            _call(loop, lambda: written(jobs))

        self._work.put(work)

    def move_log(self, loop: AbstractEventLoop, moved: Callable[[], None]) -> None:
        """Queue the moving of the log into the file."""

        def work() -> None:
            # The same fault meets the next group, which somebody waits for.
            with suppress(sqlite3.Error):
                self._open().move_log()
            _call(loop, moved)

        self._work.put(work)

    def close(self) -> None:
        """Finish what is queued, then stop. Blocks until then."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
        self._reset()

    def _write(self, jobs: Jobs) -> None:
        try:
            write_group(self._open(), jobs)
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

    def _write_apart(self, jobs: Jobs, exc: Exception) -> None:
        if len(jobs) == 1:
            jobs[0].error = exc
            if jobs[0].future is None:
                _log.error("the conversation store could not keep something", exc_info=exc)
            return
        for job in jobs:
            self._write([job])

    def _open(self) -> Ledger:
        if self._ledger is None:
            self._ledger = self._database.ledger()
        return self._ledger

    def _reset(self) -> None:
        """Drop the connection, and with it what was not committed."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None


def _call(loop: AbstractEventLoop, callback: Callable[[], None]) -> None:
    # A loop that is closed has nobody left who waits.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)

"""Writes in groups: all commands of one turn of the event loop are one transaction and share its commit.

A small group is written on the event loop itself. Its commit is a few writes into the log of SQLite, which
without fsync cost less than waking a thread twice; and a thread that executes statement after statement
fights with the loop for the interpreter's lock. Whatever might block goes to a thread: waiting for another
process's lock, fsync, moving the log into the file, long commands, large groups, a slow disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from modelway.conversations.groups import Command, Job, write_group
from modelway.conversations.ledger import Ledger
from modelway.conversations.writer_thread import WriterThread
from modelway.errors import StoreUnavailable

if TYPE_CHECKING:
    from modelway.conversations.database import Database

T = TypeVar("T")
Jobs = list[Job[Any]]

_WAITING = 4096
_SMALL_GROUP = 64
# A disk is slow where so many groups in a row took so long; then the thread writes for a while. A single
# one says only that another process had the processor.
_LONG_S = 0.01
_LONG_GROUPS = 3
_REST_S = 5.0
# After about so many pages the thread moves the log into the file while the loop goes on. Then it writes
# two groups: the first one's commit moves the little that came meanwhile, the second one's begins the log
# anew. All three sync.
_LOG_PAGES = 4000
_PAGES_OF_A_GROUP = 8
_PAGES_OF_A_JOB = 2
_GROUPS_TO_BEGIN_ANEW = 2


class Writer:
    """Runs commands in the order in which they come; each one's future is resolved after the commit.

    A GatewayError that a command raises is its result and must come before anything is written. Belongs
    to the event loop's thread.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._ledger: Ledger | None = None
        self._waiting: Jobs = []
        self._is_quick = True
        self._lent = 0
        self._pages = 0
        self._groups_to_lend = 0
        self._long_groups = 0
        self._rests_until = 0.0
        self._closed = False
        self._thread = WriterThread(database)

    def submit(
        self,
        command: Command[T],
        *,
        may_refuse: bool = True,
        is_quick: bool = True,
        ended: Callable[[Job[T]], None] | None = None,
    ) -> asyncio.Future[T]:
        """Queue a command; it runs even where who waits is cancelled.

        The end of a turn is never refused: there are no more of them than turns.
        """
        if self._closed:
            raise StoreUnavailable("the conversation store is closed", retry_after=1)
        if may_refuse and self.is_full:
            raise StoreUnavailable("too many turns wait for the conversation store", retry_after=1)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._is_quick = self._is_quick and is_quick
        self._add(Job(command, future, ended))
        return future

    def send(self, command: Command[T], ended: Callable[[Job[T]], None] | None = None) -> None:
        """Queue a command whose end nobody waits for."""
        if not self._closed:
            self._add(Job(command, None, ended))

    @property
    def is_full(self) -> bool:
        """Whether nothing can be taken that may be refused."""
        return self._closed or self._lent + len(self._waiting) >= _WAITING

    @property
    def is_busy(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._waiting or self._lent)

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._closed

    async def aclose(self) -> None:
        """Finish what is queued, then stop."""
        if not self._closed:
            self._closed = True
            self._lend(self._take_waiting())
            await asyncio.to_thread(self._thread.close)
            self._reset()

    def _add(self, job: Job[Any]) -> None:
        if not self._waiting and not self._lent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(job)

    def _flush(self) -> None:
        if not self._waiting:
            return
        may_write = self._may_write_here()
        jobs = self._take_waiting()
        if may_write and self._write_here(jobs):
            for job in jobs:
                job.resolve()
        else:
            self._lend(jobs)

    def _may_write_here(self) -> bool:
        if self._groups_to_lend:
            self._groups_to_lend -= 1
            return False
        return (
            self._is_quick
            and not self._database.syncs_each_commit
            and len(self._waiting) <= _SMALL_GROUP
            and self._clock() >= self._rests_until
        )

    def _take_waiting(self) -> Jobs:
        jobs = self._waiting
        self._waiting = []
        self._is_quick = True
        return jobs

    def _write_here(self, jobs: Jobs) -> bool:
        """False where it could not be done at once; nothing is stored then."""
        try:
            if self._ledger is None:
                self._ledger = self._database.ledger(waits=False)
            begun = self._clock()
            write_group(self._ledger, jobs)
        except Exception:  # noqa: BLE001 - the thread meets the same fault, and knows what to do with it
            self._undo()
            return False
        self._watch_disk(begun, self._clock())
        self._count_pages(len(jobs))
        return True

    def _watch_disk(self, begun: float, now: float) -> None:
        self._long_groups = self._long_groups + 1 if now - begun > _LONG_S else 0
        if self._long_groups >= _LONG_GROUPS:
            self._rests_until = now + _REST_S

    def _count_pages(self, jobs: int) -> None:
        self._pages += _PAGES_OF_A_GROUP + _PAGES_OF_A_JOB * jobs
        if self._pages >= _LOG_PAGES:
            self._pages = 0
            self._thread.move_log(asyncio.get_running_loop(), self._begin_log_anew)

    def _begin_log_anew(self) -> None:
        self._groups_to_lend = _GROUPS_TO_BEGIN_ANEW

    def _lend(self, jobs: Jobs) -> None:
        """Let the thread write them. Until it has, all others wait."""
        self._lent += len(jobs)
        self._thread.write(jobs, asyncio.get_running_loop(), self._take_back)

    def _take_back(self, jobs: Jobs) -> None:
        self._lent -= len(jobs)
        for job in jobs:
            job.resolve()
        self._flush()

    def _undo(self) -> None:
        if self._ledger is not None:
            with suppress(sqlite3.Error):
                self._ledger.undo()
                if self._ledger.is_in_place:
                    return
            self._reset()

    def _reset(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

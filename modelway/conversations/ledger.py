"""A connection to the database."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from operator import add
from pathlib import Path
from secrets import randbits
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from modelway.conversations.places import PlacedOnce, Values

if TYPE_CHECKING:
    from modelway.conversations.sql import Statements

Key = tuple[str, ...]

_NOTHING: Values = MappingProxyType({})
_SALT_BITS = 11


class Ledger:
    """Runs prepared statements, and numbers the rows that are written.

    `path` is the file that the connection has just been opened to.
    """

    def __init__(self, connection: sqlite3.Connection, statements: Statements, path: Path) -> None:
        self.sql = statements
        self._connection = connection
        self._path = path
        self._file = _identity(path)
        self._last_id = 0
        self._salt = randbits(_SALT_BITS)
        self._sums: dict[tuple[str, Key], list[int]] = {}
        self._placed = PlacedOnce()

    @property
    def is_in_place(self) -> bool:
        """Whether the file is still where it was opened."""
        return _identity(self._path) == self._file

    def one(self, sql: str, values: Values) -> Any:
        """The first row, or None."""
        text, order = self._placed[sql]
        return self._connection.execute(text, order(values)).fetchone()

    def all(self, sql: str, values: Values) -> list[Any]:
        """All rows."""
        text, order = self._placed[sql]
        return self._connection.execute(text, order(values)).fetchall()

    def run(self, sql: str, values: Values = _NOTHING) -> int:
        """Execute; returns how many rows were changed."""
        text, order = self._placed[sql]
        return self._connection.execute(text, order(values)).rowcount

    def run_many(self, sql: str, values: Sequence[Values]) -> None:
        """Execute once for each."""
        text, order = self._placed[sql]
        self._connection.executemany(text, map(order, values))

    def add_up(self, sql: str, key: Key, amounts: Sequence[int]) -> None:
        """Execute before the commit, once for each key, with the sums of the amounts; the key comes first."""
        if (sums := self._sums.get((sql, key))) is None:
            self._sums[sql, key] = list(amounts)
        else:
            sums[:] = map(add, sums, amounts)

    def write_sums(self) -> None:
        """Execute what was added up; for who reads it before the commit."""
        sums, self._sums = self._sums, {}
        for (sql, key), amounts in sums.items():
            self._connection.execute(sql, (*key, *amounts))

    def new_id(self) -> int:
        """A row id, after begin(), that grows with time, and that two processes hardly ever both make.

        Where they do, the database refuses the second, and the writer's second run makes another.
        """
        self._last_id += 1
        return self._last_id

    def begin(self) -> None:
        """Begin to write, as soon as no other process does.

        Raises where the file is no longer at its place: what is written into it then, nobody finds again.
        """
        if not self.is_in_place:
            raise sqlite3.OperationalError("its file was deleted or replaced")
        self._connection.execute("BEGIN IMMEDIATE")
        microseconds = time.time_ns() // 1000
        self._last_id = max(self._last_id, microseconds << _SALT_BITS | self._salt)

    def commit(self) -> None:
        """Make everything since begin() durable."""
        self.write_sums()
        self._connection.execute("COMMIT")

    def undo(self) -> None:
        """Undo everything since begin(), if that has begun."""
        self._sums.clear()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def move_log(self) -> None:
        """Move what the log holds into the file, as far as nobody is in the way."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def begin_reading(self) -> None:
        """See one state of the database from the first statement on."""
        self._connection.execute("BEGIN")

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        self._connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one at the same place; None: there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - for each group of turns, and twice as fast
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino

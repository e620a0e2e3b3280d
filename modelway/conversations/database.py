"""Opens the database file: creates it, checks it, and hands out connections."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from modelway.conversations.composed import SCHEMA, STATEMENTS, VERSION
from modelway.conversations.failures import unavailable
from modelway.conversations.ledger import Ledger
from modelway.conversations.places import take_as_they_are
from modelway.conversations.search import SEARCH_SCHEMA
from modelway.errors import StoreUnavailable

# For each version what makes the next one of it.
_UPGRADES = {
    1: (
        "ALTER TABLE conversations ADD COLUMN hidden BOOLEAN NOT NULL DEFAULT 0",
        "ALTER TABLE conversations ADD COLUMN metadata BLOB",
        "ALTER TABLE turns ADD COLUMN asked BLOB",
        "DROP INDEX conversations_by_time",
        "CREATE INDEX conversations_by_time ON conversations (caller, hidden, updated_at, id)",
    ),
    2: (
        """CREATE TABLE request_keys (caller TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL,
            turn TEXT NOT NULL, owner TEXT NOT NULL, created_at FLOAT NOT NULL, PRIMARY KEY (caller, key))""",
        "CREATE INDEX ix_request_keys_created_at ON request_keys (created_at)",
        "CREATE TABLE readings (turn TEXT NOT NULL PRIMARY KEY, until FLOAT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE api_keys (id INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL,
            digest TEXT NOT NULL UNIQUE, hint TEXT NOT NULL, rules BLOB NOT NULL, created_at FLOAT NOT NULL,
            expires_at FLOAT, revoked_at FLOAT)""",
        """CREATE TABLE allotments (caller TEXT NOT NULL, owner TEXT NOT NULL, requests INTEGER NOT NULL,
            tokens BIGINT NOT NULL, streams INTEGER NOT NULL, written_at FLOAT NOT NULL,
            PRIMARY KEY (caller, owner)) WITHOUT ROWID""",
        """CREATE TABLE spending (day TEXT NOT NULL, caller TEXT NOT NULL, provider TEXT NOT NULL,
            model TEXT NOT NULL, requests INTEGER NOT NULL, estimated INTEGER NOT NULL,
            unpriced INTEGER NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
            nanos BIGINT NOT NULL, PRIMARY KEY (day, caller, provider, model)) WITHOUT ROWID""",
        """CREATE TABLE costs (turn TEXT NOT NULL PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
            body BLOB NOT NULL, nanos BIGINT) WITHOUT ROWID""",
        """CREATE TABLE measurements (turn TEXT NOT NULL PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
            first_s FLOAT NOT NULL) WITHOUT ROWID""",
    ),
}
# What earlier versions had of the tables: a file with these is one of ours.
_FIRST_TABLES = frozenset({"conversations", "instructions", "messages", "turns", "checkpoints"})
_MAGIC = b"SQLite format 3\x00"
_BUSY_TIMEOUT_S = 5.0


class Database:
    """One SQLite file. Raises StoreUnavailable where it cannot be what we keep conversations in."""

    def __init__(self, path: Path, synchronous: Literal["normal", "full"]) -> None:
        self.path = path
        self.syncs_each_commit = synchronous == "full"
        self._synchronous = synchronous
        take_as_they_are()
        with unavailable("opened"):
            _prepare_file(path)
            _check_version(path)
            self._create_tables()

    def ledger(self, *, waits: bool = True) -> Ledger:
        """A new connection, which leaves transactions to us.

        One that does not wait raises where another process writes, and never moves the log into the file.
        """
        connection = self._connect(_BUSY_TIMEOUT_S if waits else 0.0)
        if not waits:
            connection.execute("PRAGMA wal_autocheckpoint=0")
        return Ledger(connection, STATEMENTS, self.path)

    @contextmanager
    def reading(self) -> Iterator[Ledger]:
        """A connection that sees one state of the database throughout."""
        with unavailable("read"), closing(self.ledger()) as ledger:
            ledger.begin_reading()
            yield ledger

    def _connect(self, timeout: float = _BUSY_TIMEOUT_S) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _create_tables(self) -> None:
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if 0 < version < VERSION:
                _back_up(self.path, version)
            for statement in (*SCHEMA, *SEARCH_SCHEMA) if version == 0 else _upgrade(version):
                connection.execute(statement)
            if version != VERSION:
                connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute("COMMIT")


def _upgrade(version: int) -> list[str]:
    return [statement for step in range(version, VERSION) for statement in _UPGRADES[step]]


def _back_up(path: Path, version: int) -> None:
    """Copy the database as it is; whoever has the copy can go back to the Modelway that made it."""
    copy = path.with_name(f"{path.name}.version-{version}")
    unfinished = copy.with_name(f"{copy.name}.part")
    unfinished.unlink(missing_ok=True)
    _prepare_file(unfinished)
    uri = f"file:{quote(str(path))}?mode=ro"
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S)) as source,
        closing(sqlite3.connect(unfinished)) as target,
    ):
        source.backup(target)
    unfinished.replace(copy)


def _prepare_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _check_version(path: Path) -> None:
    """Refuse what is not ours before the first byte of it is changed."""
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if not start:
        return
    if start != _MAGIC:
        raise _foreign(path)
    uri = f"file:{quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if (version or tables) and not tables.issuperset(_FIRST_TABLES):
        raise _foreign(path)
    if version > VERSION:
        raise StoreUnavailable(
            f"the conversation store {path.name} has version {version}, which a newer Modelway made",
            hint="upgrade Modelway, or set conversations.path to another file; nothing was changed",
        )


def _foreign(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{path.name} is not a conversation store",
        hint="set conversations.path to another file; nothing was changed",
    )

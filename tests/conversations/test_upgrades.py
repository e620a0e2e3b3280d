"""Stores that earlier versions made become what this one makes, with everything that they keep."""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest

from modelway.conversations.composed import VERSION
from tests.conversations.talk import ME, ask, history, open_store
from tests.conversations.test_responses import respond

pytestmark = [pytest.mark.anyio, pytest.mark.check(7)]

VERSIONS = sorted(Path(__file__).with_name("versions").glob("*.sql"))
each_version = pytest.mark.parametrize("script", VERSIONS, ids=[script.stem for script in VERSIONS])


def test_every_earlier_version_is_tried() -> None:
    assert [script.stem for script in VERSIONS] == [str(version) for version in range(1, VERSION)]


@each_version
async def test_an_upgraded_store_is_built_as_a_new_one(script: Path, tmp_path: Path) -> None:
    make(script, tmp_path / "old")
    for name in ("old", "new"):
        await open_store(tmp_path / name).aclose()
    assert dict(built(tmp_path / "old")) == dict(built(tmp_path / "new"))


@each_version
async def test_an_upgraded_store_keeps_its_rows_and_takes_more(script: Path, tmp_path: Path) -> None:
    make(script, tmp_path)
    async with aclosing(open_store(tmp_path)) as store:
        assert await history(store, "c") == ["hello", "hi"]
        await ask(store, "c", "more", says="gladly")
        assert await history(store, "c") == ["hello", "hi", "more", "gladly"]
        assert [found.conversation_id for found in await store.list(ME)] == ["c"]
        turn = await respond(store, "again", conversation_id="c")
        assert (await store.turn(ME, turn.id)).conversation_id == "c"
    kept = path_in(tmp_path).with_suffix(f".sqlite3.version-{script.stem}")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with closing(sqlite3.connect(kept)) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (int(script.stem),)
        assert copy.execute("SELECT text FROM messages ORDER BY id").fetchall() == [("hello",), ("hi",)]


def path_in(folder: Path) -> Path:
    return folder / "kept" / "conversations.sqlite3"


def make(script: Path, folder: Path) -> None:
    path_in(folder).parent.mkdir(parents=True)
    with closing(sqlite3.connect(path_in(folder))) as database:
        database.executescript(script.read_text())


def built(folder: Path) -> Iterator[tuple[str, Any]]:
    """Each table, index and trigger, and what it is made of, whatever the order of the columns.

    A column that was added to rows needs a default value where a new table needs none.
    """
    with closing(sqlite3.connect(path_in(folder))) as database:
        yield "version", database.execute("PRAGMA user_version").fetchone()
        kinds = database.execute("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'")
        yield "tables", sorted(kinds)
        entries = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
        for kind, name, table, sql in entries:
            if kind == "table":
                columns = database.execute(f"PRAGMA table_xinfo({name})")
                yield f"columns of {name}", sorted((*column[1:4], *column[5:]) for column in columns)
                references = database.execute(f"PRAGMA foreign_key_list({name})")
                yield f"references of {name}", sorted(reference[1:] for reference in references)
            elif kind == "index":
                parts = database.execute(f"PRAGMA index_xinfo({name})").fetchall()
                rest = "" if sql is None else sql.partition(")")[2].strip()
                yield f"index {name} of {table}", ([part[2:] for part in parts], rest)
            else:
                yield f"{kind} {name} of {table}", " ".join(sql.split())

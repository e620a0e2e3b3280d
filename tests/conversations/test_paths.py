"""What is remembered of conversations is bounded, whoever talks however long."""

import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path as FilePath

import pytest

from modelway.conversations.database import Database
from modelway.conversations.matching import Node, Path
from modelway.conversations.paths import Paths
from modelway.types import Message

pytestmark = pytest.mark.check(8)

MOST_BYTES = 16 * 1024 * 1024


def said(id: int, characters: int) -> Node:
    text = f"{id} ".ljust(characters, "x")
    return Node(id, id.to_bytes(8, "big"), Message(role="user", content=text))


def short_ones() -> Iterator[tuple[Path, Path]]:
    """Three thousand conversations of two messages."""
    for id in range(0, 6000, 2):
        yield (said(id, 5000), said(id + 1, 5000)), ()


def huge_ones() -> Iterator[tuple[Path, Path]]:
    """A hundred conversations of a megabyte."""
    for id in range(100):
        yield (said(id, 1_000_000),), ()


def long_ones() -> Iterator[tuple[Path, Path]]:
    """Ten conversations in which a hundred turns follow each other."""
    paths: list[Path] = [()] * 10
    for turn in range(100):
        for number, path in enumerate(paths):
            paths[number] = (*path, said(turn * 10 + number, 50_000))
            yield paths[number], path


@pytest.mark.parametrize("turns", [short_ones(), huge_ones(), long_ones()], ids=["short", "huge", "long"])
def test_what_is_remembered_is_bounded(turns: Iterable[tuple[Path, Path]]) -> None:
    paths = Paths()
    tracemalloc.start()
    try:
        for path, before in turns:
            paths.keep(path, instead_of=before)
        del path, before, turns
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < MOST_BYTES


def test_a_path_of_very_many_messages_is_not_remembered_however_short_they_are(tmp_path: FilePath) -> None:
    paths, short = Paths(), (said(1, 1), said(2, 1))
    longer = (*short, said(3, 1))
    with closing(Database(tmp_path / "empty.sqlite3", "normal").ledger()) as ledger:
        paths.keep(short, instead_of=())
        assert paths.read(ledger, 2) == short
        paths.keep(longer, instead_of=short)
        assert (paths.read(ledger, 2), paths.read(ledger, 3)) == ((), longer)
        paths.keep(tuple(said(id, 1) for id in range(10, 50_010)), instead_of=())
        assert (paths.read(ledger, 3), paths.read(ledger, 50_009)) == ((), ())

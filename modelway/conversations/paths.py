"""Paths through the message tree: reads, remembers and extends them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from modelway.conversations import codec
from modelway.conversations.codec import Row
from modelway.conversations.ledger import Ledger
from modelway.conversations.matching import Node, Path

_MAX_PATHS = 512
_MAX_CHARACTERS = 8 * 1024 * 1024
# What a node costs beside its text.
_NODE_CHARACTERS = 200
_NOT_KEPT: tuple[Path, int] = ((), 0)


class Paths:
    """The paths that the newest turns ended with, so that the next turn need not read its history.

    Rows never change and their ids are never used again, so what is remembered cannot be stale. Used by
    whoever writes, of whom there is one at a time.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Path, int]] = OrderedDict()
        self._characters = 0

    def read(self, ledger: Ledger, head: int) -> Path:
        """The messages from the root to `head`."""
        kept = self._kept.get(head)
        if kept is not None:
            return kept[0]
        rows = ledger.all(ledger.sql.read_path, {"head": head})
        return tuple(
            Node(id, hash, codec.message_of(role, text, rest)) for id, hash, role, text, rest in rows
        )

    def keep(self, path: Path, instead_of: Path) -> None:
        """Remember a path; the one that it goes on from is hardly needed any more."""
        size = self._forget(instead_of[-1].id) if instead_of else 0
        if not path:
            return
        for node in path[len(instead_of) :] if size or not instead_of else path:
            size += len(node.message.text) + _NODE_CHARACTERS
        self._forget(path[-1].id)
        self._kept[path[-1].id] = (path, size)
        self._characters += size
        while len(self._kept) > _MAX_PATHS or self._characters > _MAX_CHARACTERS:
            self._forget(next(iter(self._kept)))

    def _forget(self, head: int) -> int:
        _, size = self._kept.pop(head, _NOT_KEPT)
        self._characters -= size
        return size


def append(ledger: Ledger, rows: Sequence[Row], after: Path, *, tree: int, turn: str) -> Path:
    """Store messages, each following the one before."""
    nodes: list[Node] = []
    values: list[dict[str, object]] = []
    parent = after[-1] if after else None
    for depth, row in enumerate(rows, len(after) + 1):
        parent = add_below(values, ledger.new_id(), row, parent, depth=depth, tree=tree, turn=turn)
        nodes.append(parent)
    ledger.run_many(ledger.sql.insert_message, values)
    return tuple(nodes)


def branch(
    ledger: Ledger, rows: Sequence[Row], after: Path, *, tree: int, turn: str, first_id: int
) -> list[Node]:
    """Store the alternatives of an answer, which all follow the same message; the first has `first_id`."""
    values: list[dict[str, object]] = []
    parent = after[-1] if after else None
    nodes = [
        add_below(
            values,
            first_id if i == 0 else ledger.new_id(),
            row,
            parent,
            depth=len(after) + 1,
            tree=tree,
            turn=turn,
        )
        for i, row in enumerate(rows)
    ]
    ledger.run_many(ledger.sql.insert_message, values)
    return nodes


def add_below(
    values: list[dict[str, object]],
    id: int,
    row: Row,
    parent: Node | None,
    *,
    depth: int,
    tree: int,
    turn: str,
) -> Node:
    """Add to the values of messages that are yet to be stored; gives the node that this one will be."""
    hash = codec.chained(parent.hash if parent else b"", row.key)
    values.append(
        {
            "id": id,
            "tree": tree,
            "parent": parent.id if parent else None,
            "depth": depth,
            "hash": hash,
            "turn": turn,
            "role": row.message.role,
            "text": row.text,
            "rest": row.rest,
            "indexed": not row.text,
        }
    )
    return Node(id, hash, row.message)

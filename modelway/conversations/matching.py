"""Decides which messages of a request are new, and after which stored message they come.

docs/decisions/0002-how-a-conversation-is-matched.md gives the rules and their reasons.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from msgspec import Struct

from modelway.conversations import codec
from modelway.conversations.codec import Row
from modelway.types import Message


class Node(Struct, frozen=True):
    """A stored message on a path. `hash` covers it and everything before it."""

    id: int
    hash: bytes
    message: Message


Path = tuple[Node, ...]


class Placement(Struct, frozen=True):
    """`base` is the stored path that the request goes on from, `known` how many of its messages are in it."""

    base: Path
    known: int


def place(
    path: Path,
    messages: Sequence[Message],
    find: Callable[[bytes], int | None],
    path_to: Callable[[int], Path],
) -> Placement:
    """Place a request's chain on the tree whose current path is `path`.

    `find` looks a hash up in the tree, `path_to` reads the path to a message that was found. Raises
    InvalidRequest where a message cannot be stored.
    """
    length = len(path)
    if not path:
        return Placement(path, 0)
    # Nearly always the whole history comes as it is stored; to compare is a tenth of the price of a hash.
    if length <= len(messages) and all(
        node.message == message for node, message in zip(path, messages, strict=False)
    ):
        return Placement(path, length)
    rows = codec.rows(messages)
    from_root = codec.hashes(rows)
    if length <= len(rows) and from_root[length - 1] == path[-1].hash:
        return Placement(path, length)
    first_answer = next((i for i, row in enumerate(rows) if row.message.role == "assistant"), None)
    if first_answer is not None:
        known = _known_length(from_root, path, find)
        if known > first_answer:
            base = _path_of(from_root[known - 1], known, path, find, path_to)
            return Placement(base, known)
    if _is_unanswered_copy(path, rows):
        return Placement(path, len(rows))
    return Placement(path, 0)


def _known_length(from_root: list[bytes], path: Path, find: Callable[[bytes], int | None]) -> int:
    """How many messages from the root on are stored; a message's ancestors always are, so bisect."""

    def is_new(index: int) -> bool:
        on_path = index < len(path) and path[index].hash == from_root[index]
        return not on_path and find(from_root[index]) is None

    return bisect_left(range(len(from_root)), True, key=is_new)


def _path_of(
    hash: bytes,
    length: int,
    path: Path,
    find: Callable[[bytes], int | None],
    path_to: Callable[[int], Path],
) -> Path:
    if length <= len(path) and path[length - 1].hash == hash:
        return path[:length]
    found = find(hash)
    return path_to(found) if found is not None else ()


def _is_unanswered_copy(path: Path, rows: Sequence[Row]) -> bool:
    """Whether the path ends with exactly these messages and no answer came to them."""
    if not 0 < len(rows) <= len(path) or path[-1].message.role == "assistant":
        return False
    return all(_is_copy(node, row) for node, row in zip(path[-len(rows) :], rows, strict=True))


def _is_copy(node: Node, row: Row) -> bool:
    """Whether they say the same; of two results with the same text each may answer a call of its own."""
    stored, sent = node.message, row.message
    if sent.role == "tool" and sent.tool_call_id not in ("", stored.tool_call_id):
        return False
    return codec.row(stored).key == row.key

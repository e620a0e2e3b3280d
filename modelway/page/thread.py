"""What the page shows of a conversation: one path through its tree, with the ways to the other branches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from msgspec import Struct

from modelway.conversations import Conversation, StoredMessage, TurnRecord
from modelway.types import Message

PAGE_LENGTH = 100


class Entry(Struct, frozen=True, kw_only=True):
    """A message on the path. `siblings` are the alternatives to it, itself among them.

    `turn` is the exchange that made it.
    """

    id: str
    message: Message
    parent: str
    turn: TurnRecord | None
    siblings: tuple[str, ...]

    @property
    def place(self) -> int:
        """Which of its siblings it is, from 1."""
        return self.siblings.index(self.id) + 1 if self.id in self.siblings else 1


class Thread(Struct, frozen=True, kw_only=True):
    """The end of a path. `earlier`: the first message shown is not the first one.

    `last` is the newest turn where it is not on the path: it is open, or it failed.
    """

    entries: tuple[Entry, ...]
    earlier: bool
    last: TurnRecord | None


def thread_of(conversation: Conversation, before: str = "", length: int = PAGE_LENGTH) -> Thread:
    """The last messages of the path, or those before one of them."""
    nodes = {node.id: node for node in conversation.tree}
    turns = {turn.id: turn for turn in conversation.turns}
    path = _path(nodes, conversation.head)
    end = path.index(before) if before in path else len(path)
    shown = path[max(0, end - length) : end]
    children = _children(conversation, set(path))
    return Thread(
        entries=tuple(
            Entry(
                id=id,
                message=nodes[id].message,
                parent=nodes[id].parent,
                turn=turns.get(nodes[id].turn_id),
                siblings=_siblings(nodes, children, id),
            )
            for id in shown
        ),
        earlier=end > length,
        last=None if before else _last(conversation, set(path)),
    )


def newest_end(conversation: Conversation, message: str) -> str:
    """The end of the newest branch that leads through a message."""
    children = _children(conversation, set())
    while children[message]:
        message = children[message][-1]
    return message


def _path(nodes: Mapping[str, StoredMessage], head: str) -> list[str]:
    found = []
    while head in nodes:
        found.append(head)
        head = nodes[head].parent
    return found[::-1]


def _children(conversation: Conversation, shown: set[str]) -> dict[str, list[str]]:
    """What follows each message; what nobody answered counts only where it is shown."""
    failed = {turn.id for turn in conversation.turns if turn.status in ("failed", "open")}
    found: dict[str, list[str]] = defaultdict(list)
    for node in conversation.tree:
        if node.turn_id not in failed or node.id in shown:
            found[node.parent].append(node.id)
    return found


def _siblings(
    nodes: Mapping[str, StoredMessage], children: Mapping[str, list[str]], id: str
) -> tuple[str, ...]:
    role = nodes[id].message.role
    return tuple(other for other in children[nodes[id].parent] if nodes[other].message.role == role)


def _last(conversation: Conversation, path: set[str]) -> TurnRecord | None:
    newest = conversation.turns[-1] if conversation.turns else None
    if newest is None or newest.status not in ("failed", "open") or newest.parent != conversation.head:
        return None
    return newest

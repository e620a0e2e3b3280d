"""Which messages and turns of a tree belong to a conversation: all that its own turns and its head need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from modelway.conversations.ledger import Ledger


class TurnRow(NamedTuple):
    """A turn as it is stored; the columns of the table, in its order."""

    id: str
    conversation: int
    status: str
    parent: int | None
    tail: int | None
    answer: int | None
    instructions: int | None
    provider: str
    model: str
    finish_reason: str
    usage: bytes | None
    error_code: str
    error: str
    created_at: float
    finished_at: float | None
    asked: bytes | None

    @property
    def end(self) -> int | None:
        """The message that a next turn would follow."""
        return self.answer or self.tail

    @property
    def counts(self) -> bool:
        """Whether it is part of the history."""
        return self.status in {"done", "interrupted"}


class Tree:
    """The messages of conversations that were forked from each other, without their text."""

    def __init__(self, ledger: Ledger, tree: int) -> None:
        rows: list[Any] = ledger.all(ledger.sql.read_tree, {"tree": tree})
        self.parents: dict[int, int | None] = {id: parent for id, parent, _ in rows}
        self.turn_of: dict[int, str] = {id: turn for id, _, turn in rows}
        self.turns = [TurnRow(*row) for row in ledger.all(ledger.sql.read_turns, {"tree": tree})]

    def above(self, roots: Iterable[int | None]) -> set[int]:
        """These messages and everything before them."""
        found: set[int] = set()
        for root in roots:
            one = root
            while one is not None and one not in found and one in self.parents:
                found.add(one)
                one = self.parents[one]
        return found

    def messages_of(self, conversation: int, head: int | None) -> set[int]:
        """All messages that a conversation shows, on any of its branches."""
        own = {turn.id for turn in self.turns if turn.conversation == conversation}
        written = [id for id, turn in self.turn_of.items() if turn in own]
        tails = [turn.tail for turn in self.turns if turn.id in own]
        return self.above([head, *tails, *written])

    def turns_of(self, conversation: int, messages: set[int]) -> list[TurnRow]:
        """The turns that a conversation shows: its own, and those that made its messages; oldest first."""
        shared = {self.turn_of[id] for id in messages}
        return [turn for turn in self.turns if turn.conversation == conversation or turn.id in shared]

"""Reads whole conversations and lists of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from modelway.conversations import codec
from modelway.conversations.ledger import Ledger
from modelway.conversations.log import deltas_of
from modelway.conversations.records import (
    Branch,
    Conversation,
    StoredMessage,
    Summary,
    TurnRecord,
    TurnStatus,
)
from modelway.conversations.spending import costs
from modelway.conversations.trees import Tree, TurnRow
from modelway.errors import ConversationNotFound
from modelway.types import Message, collect


def list_conversations(ledger: Ledger, caller: str, limit: int, before: str) -> list[Summary]:
    """A caller's conversations, newest first, after the one with the id `before`."""
    rows = ledger.all(ledger.sql.list_conversations, {"caller": caller, "before": before, "limit": limit})
    return [
        Summary(conversation_id=name, title=title, created_at=created_at, updated_at=updated_at)
        for name, title, created_at, updated_at in rows
    ]


def show_conversation(ledger: Ledger, caller: str, name: str) -> Conversation:
    """Everything about a conversation; raises ConversationNotFound."""
    row = ledger.one(ledger.sql.show_conversation, {"caller": caller, "name": name})
    if row is None:
        raise not_found(name)
    id, tree_id, head, title, created_at, updated_at, in_force, metadata = row
    tree = Tree(ledger, tree_id)
    shown = tree.messages_of(id, head)
    turns = tree.turns_of(id, shown)
    messages = _messages(ledger, tree_id)
    instructions = _instructions(ledger, tree_id)
    return Conversation(
        conversation_id=name,
        title=title,
        created_at=created_at,
        updated_at=updated_at,
        metadata=codec.decode_asked(metadata),
        head=message_name(head),
        instructions=instructions.get(in_force, ()),
        messages=tuple(messages[one] for one in sorted_path(tree, head)),
        turns=tuple(_records(ledger, tree, turns, shown, messages, instructions, costs(ledger, tree_id))),
        branches=tuple(_branches(tree, turns, shown, head)),
        tree=tuple(
            StoredMessage(
                id=message_name(one),
                parent=message_name(tree.parents[one]),
                turn_id=tree.turn_of[one],
                message=messages[one],
            )
            for one in tree.parents
            if one in shown
        ),
    )


def not_found(name: str) -> ConversationNotFound:
    """The same error for a conversation that does not exist and for one of another caller."""
    return ConversationNotFound(f'there is no conversation "{name[:128]}"', param="conversation_id")


def message_name(id: int | None) -> str:
    """The public id of a message."""
    return "" if id is None else f"msg_{id:x}"


def sorted_path(tree: Tree, head: int | None) -> list[int]:
    """The messages from the root to `head`."""
    path = []
    while head is not None:
        path.append(head)
        head = tree.parents[head]
    return path[::-1]


def _messages(ledger: Ledger, tree: int) -> dict[int, Message]:
    rows: list[Any] = ledger.all(ledger.sql.read_messages, {"tree": tree})
    return {id: codec.message_of(role, text, rest) for id, role, text, rest in rows}


def _instructions(ledger: Ledger, tree: int) -> dict[int | None, tuple[Message, ...]]:
    rows: list[Any] = ledger.all(ledger.sql.read_instructions, {"tree": tree})
    return {id: codec.decode_messages(body) for id, body in rows}


def _records(
    ledger: Ledger,
    tree: Tree,
    turns: list[TurnRow],
    shown: set[int],
    messages: dict[int, Message],
    instructions: dict[int | None, tuple[Message, ...]],
    costs: dict[str, float],
) -> Iterator[TurnRecord]:
    before: int | None = None
    for turn in turns:
        answer = messages[turn.answer] if turn.answer in shown and turn.answer is not None else None
        if turn.status == "open":
            answer = text_so_far(ledger, turn.id)
        yield TurnRecord(
            id=turn.id,
            status=cast(TurnStatus, turn.status),
            provider=turn.provider,
            model=turn.model,
            parent=message_name(turn.parent),
            tail=message_name(turn.tail),
            messages=tuple(messages[one] for one in _new_messages(tree, turn)),
            instructions=instructions.get(turn.instructions, ()) if turn.instructions != before else (),
            answer_id=message_name(turn.answer) if turn.answer in shown else "",
            answer=answer,
            finish_reason=turn.finish_reason,
            usage=codec.decode_usage(turn.usage),
            error_code=turn.error_code,
            error=turn.error,
            created_at=turn.created_at,
            finished_at=turn.finished_at,
            cost=costs.get(turn.id),
        )
        before = turn.instructions


def text_so_far(ledger: Ledger, turn: str) -> Message | None:
    """What has come of an answer that is under way; None: nothing yet."""
    checkpoints = ledger.all(ledger.sql.read_checkpoints, {"turn": turn})
    deltas = deltas_of(events for (events,) in checkpoints)
    return collect(deltas).message if deltas else None


def _new_messages(tree: Tree, turn: TurnRow) -> list[int]:
    found = []
    one = turn.tail
    while one is not None and one != turn.parent and one in tree.parents:
        found.append(one)
        one = tree.parents[one]
    return found[::-1]


def _branches(tree: Tree, turns: list[TurnRow], shown: set[int], head: int | None) -> Iterator[Branch]:
    """The turns that no other one continues; a fork may show a turn without its end."""
    counting = [turn for turn in turns if turn.counts]
    continued = tree.above(turn.parent for turn in counting)
    for turn in counting:
        if turn.end in shown and turn.end not in continued:
            yield Branch(turn_id=turn.id, current=turn.end == head)

"""What people do with their conversations: rename them, note something about them, change the branch."""

from __future__ import annotations

from typing import Any

from modelway.conversations import codec
from modelway.conversations.ledger import Ledger
from modelway.conversations.lines import busy
from modelway.conversations.reading import not_found
from modelway.conversations.records import Summary
from modelway.conversations.trees import Tree
from modelway.conversations.upkeep import set_metadata
from modelway.errors import ConversationNotFound

_MOST_NOTED = 1000

_RENAME = "UPDATE conversations SET title = :title WHERE caller = :caller AND name = :name AND NOT hidden"
_FIND = """SELECT id, tree, head, lease_turn FROM conversations
    WHERE caller = :caller AND name = :name AND NOT hidden"""
# What an upstream keeps of the conversation stands where the head stood.
_MOVE = "UPDATE conversations SET head = :head, state = NULL WHERE id = :conversation"
_DROP = "UPDATE conversations SET instructions = NULL WHERE caller = :caller AND name = :name AND NOT hidden"
_NOTES = "SELECT metadata FROM conversations WHERE caller = :caller AND name = :name AND NOT hidden"
_STANDING = """SELECT head, updated_at, lease_turn, title FROM conversations
    WHERE caller = :caller AND name = :name AND NOT hidden"""
_NEWEST = """SELECT count(*), max(updated_at) FROM conversations WHERE caller = :caller AND NOT hidden"""
# A turn that has been deleted meanwhile has nothing to note.
_MEASURED = """INSERT INTO measurements (turn, first_s)
    SELECT id, :first_s FROM turns WHERE id = :turn"""
_FIGURES = """SELECT t.id, m.first_s, s.nanos FROM turns t
    JOIN conversations c ON c.id = t.conversation
    LEFT JOIN measurements m ON m.turn = t.id LEFT JOIN costs s ON s.turn = t.id
    WHERE c.caller = :caller AND c.name = :name AND (m.turn IS NOT NULL OR s.nanos IS NOT NULL)"""
_NOTED = """SELECT name, title, created_at, updated_at, metadata FROM conversations
    WHERE caller = :caller AND NOT hidden AND metadata IS NOT NULL
    ORDER BY updated_at DESC, id DESC LIMIT :limit"""


def measured(ledger: Ledger, turn: str, first_s: float) -> None:
    """Note how long a turn took until its first text came."""
    ledger.run(_MEASURED, {"turn": turn, "first_s": first_s})


def figures(ledger: Ledger, caller: str, name: str) -> dict[str, tuple[float, int | None]]:
    """Seconds until the first text (0: not measured) and cost in billionths of a dollar, by turn."""
    rows: list[Any] = ledger.all(_FIGURES, {"caller": caller, "name": name})
    return {turn: (first_s or 0.0, nanos) for turn, first_s, nanos in rows}


def rename(ledger: Ledger, caller: str, name: str, title: str) -> None:
    """Change the title; raises ConversationNotFound."""
    if not ledger.run(_RENAME, {"title": title, "caller": caller, "name": name}):
        raise not_found(name)


def move(ledger: Ledger, caller: str, name: str, message: str) -> None:
    """Make a message of any branch the last one; "" is the place before the first."""
    row: Any = ledger.one(_FIND, {"caller": caller, "name": name})
    if row is None:
        raise not_found(name)
    id, tree, head, lease_turn = row
    if lease_turn is not None:
        raise busy()
    move_head(ledger, id, tree, head, message)


def move_head(ledger: Ledger, conversation: int, tree: int, head: int | None, message: str) -> int | None:
    """Let a conversation stand at one of its messages, and give its row; raises ConversationNotFound."""
    wanted = _number(message) if message else None
    if wanted is not None and wanted not in Tree(ledger, tree).messages_of(conversation, head):
        raise ConversationNotFound("the conversation has no message of this id", param="message")
    ledger.run(_MOVE, {"conversation": conversation, "head": wanted})
    return wanted


def drop_instructions(ledger: Ledger, caller: str, name: str) -> None:
    """Let the next turns have no instructions; raises ConversationNotFound."""
    if not ledger.run(_DROP, {"caller": caller, "name": name}):
        raise not_found(name)


def note(ledger: Ledger, caller: str, name: str, key: str, value: str) -> None:
    """Note one thing about a conversation, "" for no longer; raises ConversationNotFound."""
    row: Any = ledger.one(_NOTES, {"caller": caller, "name": name})
    if row is None:
        raise not_found(name)
    noted = codec.decode_asked(row[0])
    noted.pop(key, None)
    kept = noted | {key: value} if value else noted
    set_metadata(ledger, caller, name, codec.encode_asked(kept or None))


def standing(ledger: Ledger, caller: str, name: str) -> tuple[object, ...]:
    """Equal values as long as nothing changed: in the list of conversations, and in one of them."""
    newest: Any = ledger.one(_NEWEST, {"caller": caller})
    one: Any = ledger.one(_STANDING, {"caller": caller, "name": name}) if name else None
    return (tuple(newest), None if one is None else tuple(one))


def list_noted(ledger: Ledger, caller: str) -> list[tuple[Summary, dict[str, str]]]:
    """The conversations with notes."""
    rows: list[Any] = ledger.all(_NOTED, {"caller": caller, "limit": _MOST_NOTED})
    return [
        (
            Summary(conversation_id=name, title=title, created_at=created_at, updated_at=updated_at),
            codec.decode_asked(metadata),
        )
        for name, title, created_at, updated_at, metadata in rows
    ]


def _number(message: str) -> int:
    try:
        return int(message.removeprefix("msg_"), 16)
    except ValueError:
        return -1

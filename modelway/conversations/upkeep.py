"""Forks and deletes conversations."""

from __future__ import annotations

from modelway.conversations.ledger import Ledger
from modelway.conversations.reading import not_found
from modelway.conversations.records import Summary
from modelway.conversations.trees import Tree, TurnRow
from modelway.errors import ConversationNotFound, InvalidRequest

# A conversation that nobody is at work on, shown in the lists, with no notes of its caller's.
_IDLE = {"lease_owner": None, "lease_until": None, "lease_turn": None, "hidden": False, "metadata": None}


def fork(ledger: Ledger, caller: str, name: str, new_name: str, at_turn: str, now: float) -> Summary:
    """A second conversation that shares the first one's messages up to the end of a turn."""
    row = ledger.one(ledger.sql.show_conversation, {"caller": caller, "name": name})
    if row is None:
        raise not_found(name)
    _check_free(ledger, caller, new_name)
    id, tree, head, title, _, _, instructions, _ = row
    if at_turn:
        turn = _turn(Tree(ledger, tree), id, head, at_turn)
        head, instructions = turn.end, turn.instructions
    ledger.run(
        ledger.sql.insert_conversation,
        {
            "id": ledger.new_id(),
            "tree": tree,
            "caller": caller,
            "name": new_name,
            "title": title,
            "head": head,
            "instructions": instructions,
            "state": None,
            "created_at": now,
            "updated_at": now,
            **_IDLE,
        },
    )
    return Summary(conversation_id=new_name, title=title, created_at=now, updated_at=now)


def create(ledger: Ledger, caller: str, name: str, metadata: bytes | None, now: float) -> None:
    """An empty conversation, titled by its first turn; raises InvalidRequest where the name is taken."""
    _check_free(ledger, caller, name)
    id = ledger.new_id()
    ledger.run(
        ledger.sql.insert_conversation,
        {
            "id": id,
            "tree": id,
            "caller": caller,
            "name": name,
            "title": "",
            "head": None,
            "instructions": None,
            "state": None,
            "created_at": now,
            "updated_at": now,
            **_IDLE,
            "metadata": metadata,
        },
    )


def _check_free(ledger: Ledger, caller: str, name: str) -> None:
    if ledger.one(ledger.sql.show_conversation, {"caller": caller, "name": name}) is not None:
        raise InvalidRequest(f'there is a conversation "{name}" already', param="conversation_id")


def set_metadata(ledger: Ledger, caller: str, name: str, metadata: bytes | None) -> None:
    """Replace what a caller has noted about a conversation; raises ConversationNotFound."""
    if not ledger.run(ledger.sql.set_metadata, {"of": caller, "called": name, "metadata": metadata}):
        raise not_found(name)


def delete(ledger: Ledger, caller: str, name: str) -> None:
    """Delete a conversation, its turns, and the messages that no fork of it needs."""
    row = ledger.one(ledger.sql.show_conversation, {"caller": caller, "name": name})
    if row is None:
        raise not_found(name)
    id, tree, *_ = row
    remove(ledger, id, tree)


def remove(ledger: Ledger, id: int, tree: int) -> None:
    """Delete the conversation of this row."""
    others = ledger.all(ledger.sql.sharing_conversations, {"tree": tree, "conversation": id})
    if others:
        _drop_what_nobody_needs(ledger, id, Tree(ledger, tree), others)
    else:
        ledger.run(ledger.sql.drop_tree, {"tree": tree})
    ledger.run(ledger.sql.drop_conversation, {"conversation": id})
    ledger.run(ledger.sql.drop_instructions, {"tree": tree})


def try_to_write(ledger: Ledger) -> None:
    """Write a row and take it back: an empty transaction succeeds even on a full disk."""
    ledger.run(ledger.sql.insert_instructions, {"id": 0, "tree": 0, "hash": b"", "body": b""})
    ledger.run(ledger.sql.drop_instructions, {"tree": 0})


def _drop_what_nobody_needs(
    ledger: Ledger, conversation: int, tree: Tree, others: list[tuple[int, int | None]]
) -> None:
    """Turns whose messages a fork shows become the fork's own; messages go from the leaves to the root."""
    needed: set[int] = set()
    moved: dict[str, int] = {}
    for other, head in others:
        shown = tree.messages_of(other, head)
        needed |= shown
        for turn in tree.turns_of(other, shown):
            # Whoever has a turn shows its answer, so it goes to a fork that does so already.
            if turn.conversation == conversation and (turn.id not in moved or turn.answer in shown):
                moved[turn.id] = other
    ledger.run_many(ledger.sql.move_turn, [{"turn": turn, "to": other} for turn, other in moved.items()])
    unneeded = [one for one in tree.parents if one not in needed]
    ledger.run_many(ledger.sql.drop_message, [{"message": one} for one in reversed(unneeded)])


def _turn(tree: Tree, conversation: int, head: int | None, id: str) -> TurnRow:
    shown = tree.messages_of(conversation, head)
    turns = tree.turns_of(conversation, shown)
    turn = next((turn for turn in turns if turn.id == id), None)
    if turn is None:
        raise ConversationNotFound("the conversation has no turn of this id", param="at_turn")
    if not turn.counts:
        raise InvalidRequest(f"a turn that is {turn.status} cannot be forked", param="at_turn")
    if turn.end is not None and turn.end not in shown:
        raise InvalidRequest("the conversation goes on without the end of this turn", param="at_turn")
    return turn

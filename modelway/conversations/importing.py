"""Takes in a conversation that was exported, with all its branches and turns, under new ids."""

from __future__ import annotations

from msgspec.structs import replace

from modelway.conversations import codec
from modelway.conversations.ephemeral import new_turn_id
from modelway.conversations.ledger import Ledger
from modelway.conversations.matching import Node
from modelway.conversations.paths import add_below
from modelway.conversations.records import Conversation, TurnRecord
from modelway.conversations.upkeep import create
from modelway.errors import InvalidRequest

_SETTLE = """UPDATE conversations SET title = :title, head = :head, instructions = :instructions,
    created_at = :created_at, updated_at = :updated_at WHERE caller = :caller AND name = :name"""
# Each message with its depth, by the id that it had; "" is the place before the first.
Places = dict[str, tuple[Node | None, int]]

# Beyond the year 9000 calendars end, in one time zone sooner than in another.
_LATEST = 221_845_392_000
_ID = "SELECT id FROM conversations WHERE caller = :caller AND name = :name"


def check(found: Conversation) -> None:
    """Raises InvalidRequest where the parts do not fit together."""
    known = {""}
    for node in found.tree:
        if node.parent not in known:
            raise InvalidRequest("a message stands before the one that it follows", param="tree")
        known.add(node.id)
    if len({turn.id for turn in found.turns}) < len(found.turns):
        raise InvalidRequest("two turns have the same id", param="turns")
    times = [found.created_at, found.updated_at, *(turn.created_at for turn in found.turns)]
    times += [turn.finished_at for turn in found.turns if turn.finished_at is not None]
    if not all(0 <= time < _LATEST for time in times):
        raise InvalidRequest("a time is not in seconds since 1970", param="created_at")


def take_in(ledger: Ledger, caller: str, name: str, found: Conversation, now: float) -> None:
    """Store it under a name that is not taken; raises InvalidRequest there, and where check() does."""
    check(found)
    metadata = codec.encode_asked(dict(found.metadata) or None)
    create(ledger, caller, name, metadata, now)
    tree: int = ledger.one(_ID, {"caller": caller, "name": name})[0]
    turns = {turn.id: new_turn_id() for turn in found.turns}
    stray = new_turn_id()
    places: Places = {"": (None, 0)}
    values: list[dict[str, object]] = []
    for node in found.tree:
        parent, depth = places[node.parent]
        [row] = codec.rows([node.message])
        turn = turns.get(node.turn_id, stray)
        placed = add_below(values, ledger.new_id(), row, parent, depth=depth + 1, tree=tree, turn=turn)
        places[node.id] = placed, depth + 1
    ledger.run_many(ledger.sql.insert_message, values)
    instructions = _instructions(ledger, tree, found)
    for record in found.turns:
        _insert(ledger, tree, replace(record, id=turns[record.id]), places, instructions)
    if any(node.turn_id not in turns for node in found.tree) and (head := _row(places, found.head)):
        _insert_stray(ledger, tree, stray, head.id, now)
    head = _row(places, found.head)
    settled = {
        "title": found.title[:200],
        "head": head.id if head else None,
        "instructions": instructions,
        "created_at": found.created_at or now,
        "updated_at": found.updated_at or now,
        "caller": caller,
        "name": name,
    }
    ledger.run(_SETTLE, settled)


def _instructions(ledger: Ledger, tree: int, found: Conversation) -> int | None:
    if not found.instructions:
        return None
    id, rows = ledger.new_id(), codec.rows(found.instructions)
    body = codec.encode_messages(found.instructions)
    values = {"id": id, "tree": tree, "hash": codec.hashes(rows)[-1], "body": body}
    ledger.run(ledger.sql.insert_instructions, values)
    return id


def _row(places: Places, message: str) -> Node | None:
    return places.get(message, (None, 0))[0]


def _insert(
    ledger: Ledger, conversation: int, turn: TurnRecord, places: Places, instructions: int | None
) -> None:
    parent, tail, answer = (_row(places, one) for one in (turn.parent, turn.tail, turn.answer_id))
    _insert_row(
        ledger,
        id=turn.id,
        conversation=conversation,
        # What was under way when it was exported goes on nowhere.
        status="interrupted" if turn.status == "open" else turn.status,
        parent=parent.id if parent else None,
        tail=tail.id if tail else None,
        answer=answer.id if answer else None,
        instructions=instructions,
        provider=turn.provider,
        model=turn.model,
        finish_reason=turn.finish_reason,
        usage=codec.encode_usage(turn.usage),
        error_code=turn.error_code,
        error=turn.error,
        created_at=turn.created_at,
        finished_at=turn.finished_at,
    )


def _insert_stray(ledger: Ledger, conversation: int, id: str, tail: int, now: float) -> None:
    """A turn for messages that came without one."""
    _insert_row(
        ledger,
        id=id,
        conversation=conversation,
        status="done",
        parent=None,
        tail=tail,
        answer=None,
        instructions=None,
        provider="",
        model="",
        finish_reason="",
        usage=None,
        error_code="",
        error="",
        created_at=now,
        finished_at=now,
    )


def _insert_row(ledger: Ledger, **values: object) -> None:
    ledger.run(ledger.sql.insert_turn, {**values, "asked": None})

"""Reads and forgets single turns: those that can be asked for by their id."""

from __future__ import annotations

from typing import NamedTuple, cast

from modelway.conversations import codec
from modelway.conversations.instructing import is_passing
from modelway.conversations.ledger import Ledger
from modelway.conversations.lines import busy
from modelway.conversations.reading import message_name, not_found, text_so_far
from modelway.conversations.records import Kept, TurnRecord, TurnStatus
from modelway.conversations.trees import TurnRow
from modelway.conversations.upkeep import remove
from modelway.errors import InvalidRequest, NotFound
from modelway.types import ChatRequest, Message


class Found(NamedTuple):
    """A turn, its conversation, and the instructions that held in it."""

    turn: TurnRow
    name: str
    tree: int
    hidden: bool
    instructions_hash: bytes | None
    instructions_body: bytes | None


class History(NamedTuple):
    """What was said up to the end of a turn."""

    instructions: tuple[Message, ...]
    messages: tuple[Message, ...]


def refuse_contradictions(request: ChatRequest) -> None:
    """Raises InvalidRequest for going on in two places, or in a conversation without being kept."""
    if request.conversation_id and request.after_turn:
        raise InvalidRequest(
            "`previous_response_id` and a conversation cannot both be continued",
            param="previous_response_id",
            hint="send one of them",
        )
    if request.conversation_id and request.store is False:
        raise InvalidRequest(
            "a conversation keeps its turns, so `store` cannot be false",
            param="store",
            hint="leave out `store`, or continue with `previous_response_id`",
        )


def find_turn(ledger: Ledger, caller: str, turn: str, *, param: str = "") -> Found:
    """A turn of this caller's; `param` names the field that asks for it, instead of the address."""
    row = ledger.one(ledger.sql.find_turn, {"caller": caller, "turn": turn})
    if row is None:
        said = "there is no such response"
        if param:
            raise InvalidRequest(
                said, param=param, code="previous_response_not_found", hint="it was not stored, or deleted"
            )
        raise NotFound(said, code="response_not_found")
    length = len(TurnRow._fields)
    return Found(TurnRow(*row[:length]), *row[length:])


def refuse_failed(turn: TurnRow) -> None:
    """Raises InvalidRequest where nothing can follow a turn."""
    if not turn.counts:
        raise InvalidRequest(
            f"a response that is {turn.status} cannot be continued", param="previous_response_id"
        )


def history_after(ledger: Ledger, caller: str, turn: str) -> History:
    """The history that a turn ended with; raises InvalidRequest, or ConversationBusy before its end."""
    found = find_turn(ledger, caller, turn, param="previous_response_id")
    if found.turn.status == "open":
        raise busy()
    refuse_failed(found.turn)
    rows = ledger.all(ledger.sql.read_path, {"head": found.turn.end})
    messages = tuple(codec.message_of(role, text, rest) for _, _, role, text, rest in rows)
    return History(codec.decode_messages(found.instructions_body), messages)


def show_turn(ledger: Ledger, caller: str, id: str) -> Kept:
    """Everything about a turn; raises NotFound."""
    found = find_turn(ledger, caller, id)
    turn = found.turn
    rows = ledger.all(ledger.sql.read_path, {"head": turn.end})
    path = {one: codec.message_of(role, text, rest) for one, _, role, text, rest in rows}
    answer = path.pop(turn.answer) if turn.answer is not None else None
    new = list(path.values())[list(path).index(turn.parent) + 1 if turn.parent is not None else 0 :]
    record = TurnRecord(
        id=turn.id,
        status=cast("TurnStatus", turn.status),
        provider=turn.provider,
        model=turn.model,
        parent=message_name(turn.parent),
        tail=message_name(turn.tail),
        messages=tuple(new),
        instructions=codec.decode_messages(found.instructions_body),
        answer_id=message_name(turn.answer),
        answer=text_so_far(ledger, turn.id) if turn.status == "open" else answer,
        finish_reason=turn.finish_reason,
        usage=codec.decode_usage(turn.usage),
        error_code=turn.error_code,
        error=turn.error,
        created_at=turn.created_at,
        finished_at=turn.finished_at,
    )
    name = "" if found.hidden else found.name
    return Kept(turn=record, conversation_id=name, asked=codec.decode_asked(turn.asked))


def show_messages(ledger: Ledger, caller: str, name: str) -> list[tuple[str, Message]]:
    """The instructions and the current path of a conversation with their ids; raises ConversationNotFound."""
    row = ledger.one(ledger.sql.show_conversation, {"caller": caller, "name": name})
    if row is None:
        raise not_found(name)
    _, tree, head, _, _, _, in_force, _ = row
    instructing = dict(ledger.all(ledger.sql.read_instructions, {"tree": tree}))
    told = codec.decode_messages(instructing.get(in_force))
    path = ledger.all(ledger.sql.read_path, {"head": head})
    written = [(f"{id:x}", codec.message_of(role, text, rest)) for id, _, role, text, rest in path]
    return lasting(told, in_force) + written


def lasting(instructions: tuple[Message, ...], row: int | None) -> list[tuple[str, Message]]:
    """The instructions of a row that the next turn inherits, with their names."""
    return [
        (f"{row:x}-{number}", message)
        for number, message in enumerate(instructions)
        if not is_passing(message)
    ]


def forget_turn(ledger: Ledger, caller: str, id: str) -> None:
    """Let a turn no longer be asked for. The hidden conversation that it has of its own goes too."""
    found = find_turn(ledger, caller, id)
    if found.turn.status == "open":
        raise busy()
    ledger.run(ledger.sql.forget_turn, {"turn": id})
    if found.name == own_name(id):
        remove(ledger, found.turn.conversation, found.tree)


def own_name(turn: str) -> str:
    """The name of the conversation that a turn has for itself; no caller can give it."""
    return "~" + turn

"""Opens a turn in the store: takes the lease, places the new messages, reads the history."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from modelway.conversations import codec
from modelway.conversations.arranging import move_head
from modelway.conversations.calls import with_stored_ids
from modelway.conversations.closing import end_lost_turn
from modelway.conversations.codec import Row, SavedState
from modelway.conversations.instructing import in_force, is_passing
from modelway.conversations.ledger import Ledger
from modelway.conversations.lines import busy
from modelway.conversations.matching import Path, Placement, place
from modelway.conversations.paths import Paths, append
from modelway.conversations.reading import not_found
from modelway.conversations.recalling import Found, find_turn, own_name, refuse_failed
from modelway.types import Message

_TITLE_LENGTH = 60


class Asked(Struct, frozen=True, kw_only=True):
    """A request as the store takes it.

    It goes on after the turn `after`, or else in the conversation `name`, or else in one of its own.
    `at` is the message of the conversation that it follows, see ChatRequest.after_message.
    `instructions` is empty where the request had none; `asked`: see ChatRequest.echo. `head`: the beginning
    of the log of one that its caller is told of before it is answered. `is_new`: the messages are not
    compared with what is stored, and the conversation is there.
    """

    turn: str
    caller: str
    name: str
    instructions: list[Row]
    messages: tuple[Message, ...]
    now: float
    lease_s: float
    after: str = ""
    at: str | None = None
    asked: bytes | None = None
    head: bytes | None = None
    is_new: bool = False


class Opened(Struct, frozen=True, kw_only=True):
    """A turn that is open. `path` ends with its new messages, of which the first is `path[new_from]`.

    `state` is the upstream state that is still current; `in_force` the row of the instructions. No list
    shows a conversation that is `hidden`.
    """

    turn: str
    conversation: int
    opened_at: float
    name: str
    hidden: bool
    tree: int
    path: Path
    new_from: int
    instructions: tuple[Message, ...]
    in_force: int | None
    state: SavedState | None


class _Standing(Struct, frozen=True):
    """Where the conversation stands before the turn; the name, then the columns of `find_conversation`."""

    name: str
    id: int
    tree: int
    head: int | None = None
    instructions: int | None = None
    instructions_hash: bytes | None = None
    instructions_body: bytes | None = None
    state: bytes | None = None
    lease_owner: str | None = None
    lease_until: float | None = None
    lease_turn: str | None = None
    title: str = ""
    hidden: bool = False


# The stored path that the turn goes on from, and what it adds.
_Placed = tuple[Path, list[Row]]


class Opener:
    """Opens turns for one holder. `is_gone` tells whether a turn's holder has ended."""

    def __init__(self, owner: str, paths: Paths, is_gone: Callable[[str, str], bool]) -> None:
        self._owner = owner
        self._paths = paths
        self._is_gone = is_gone

    def open(self, ledger: Ledger, asked: Asked) -> Opened:
        """Open a turn; raises ConversationBusy where another one holds the conversation.

        InvalidRequest where a message cannot be stored.
        """
        if asked.after:
            after = self._stand_after(ledger, asked)
            return self._record(ledger, asked, after, self._place(ledger, asked, after))
        standing = self._find(ledger, asked.caller, asked.name) if asked.name else None
        if standing is None and (asked.is_new or asked.at):
            raise not_found(asked.name)
        if standing is None:
            placed: _Placed = ((), with_stored_ids((), (), codec.rows(asked.messages)))
            return self._record(ledger, asked, self._create(ledger, asked), placed)
        if standing.lease_turn is not None:
            if not self._has_lapsed(standing):
                raise busy()
            end_lost_turn(ledger, self._paths, standing.id, standing.lease_turn, asked.now)
            standing = self._find(ledger, asked.caller, asked.name) or standing
        if asked.at is not None:
            head = move_head(ledger, standing.id, standing.tree, standing.head, asked.at)
            standing = replace(standing, head=head, state=None)
        placed = self._place(ledger, asked, standing)
        self._take_lease(ledger, asked, standing)
        if not standing.title:
            ledger.run(ledger.sql.set_title, {"conversation": standing.id, "title": _title(asked.messages)})
        return self._record(ledger, asked, standing, placed)

    def _stand_after(self, ledger: Ledger, asked: Asked) -> _Standing:
        """Where a turn stands that goes on after another: where that is the newest, in its conversation."""
        found = find_turn(ledger, asked.caller, asked.after, param="previous_response_id")
        standing = self._find(ledger, asked.caller, found.name) or _Standing(found.name, 0, found.tree)
        if found.turn.status == "open":
            if not self._has_lapsed(standing):
                raise busy()
            end_lost_turn(ledger, self._paths, standing.id, found.turn.id, asked.now)
            return self._stand_after(ledger, asked)
        refuse_failed(found.turn)
        if not standing.hidden and standing.head == found.turn.end and standing.lease_turn is None:
            self._take_lease(ledger, asked, standing)
            return standing
        return self._branch_off(ledger, asked, standing, found)

    def _branch_off(self, ledger: Ledger, asked: Asked, standing: _Standing, found: Found) -> _Standing:
        """A hidden conversation that begins with the history up to the turn that was found.

        Nothing goes on in a hidden one: so that each response can be deleted by itself. What an upstream
        keeps goes on once only, so its state moves.
        """
        state = standing.state if standing.hidden and standing.head == found.turn.end else None
        if state is not None:
            ledger.run(ledger.sql.drop_state, {"conversation": standing.id})
        branch = replace(
            standing,
            id=ledger.new_id(),
            name=own_name(asked.turn),
            head=found.turn.end,
            instructions=found.turn.instructions,
            instructions_hash=found.instructions_hash,
            instructions_body=found.instructions_body,
            state=state,
            hidden=True,
        )
        self._insert(ledger, asked, branch)
        return branch

    def _find(self, ledger: Ledger, caller: str, name: str) -> _Standing | None:
        row = ledger.one(ledger.sql.find_conversation, {"caller": caller, "name": name})
        return None if row is None else _Standing(name, *row)

    def _take_lease(self, ledger: Ledger, asked: Asked, standing: _Standing) -> None:
        ledger.run(
            ledger.sql.take_lease,
            {
                "conversation": standing.id,
                "owner": self._owner,
                "until": time.time() + asked.lease_s,
                "turn": asked.turn,
            },
        )

    def _has_lapsed(self, standing: _Standing) -> bool:
        owner, turn = standing.lease_owner or "", standing.lease_turn or ""
        return (standing.lease_until or 0.0) <= time.time() or self._is_gone(owner, turn)

    def _create(self, ledger: Ledger, asked: Asked) -> _Standing:
        id = ledger.new_id()
        name = asked.name or own_name(asked.turn)
        created = _Standing(name, id, id, title=_title(asked.messages), hidden=not asked.name)
        self._insert(ledger, asked, created)
        return created

    def _insert(self, ledger: Ledger, asked: Asked, standing: _Standing) -> None:
        ledger.run(
            ledger.sql.insert_conversation,
            {
                "id": standing.id,
                "tree": standing.tree,
                "caller": asked.caller,
                "name": standing.name,
                "title": standing.title,
                "head": standing.head,
                "instructions": standing.instructions,
                "state": standing.state,
                "created_at": asked.now,
                "updated_at": asked.now,
                "lease_owner": self._owner,
                "lease_until": time.time() + asked.lease_s,
                "lease_turn": asked.turn,
                "hidden": standing.hidden,
                "metadata": None,
            },
        )

    def _record(self, ledger: Ledger, asked: Asked, standing: _Standing, placed: _Placed) -> Opened:
        base, new = placed
        path = base + append(ledger, new, base, tree=standing.tree, turn=asked.turn)
        instructions, in_force = _instruct(ledger, asked, standing)
        _insert_turn(ledger, asked, standing.id, base, path, in_force)
        self._paths.keep(path, instead_of=base)
        return Opened(
            turn=asked.turn,
            conversation=standing.id,
            opened_at=asked.now,
            name=standing.name,
            hidden=standing.hidden,
            tree=standing.tree,
            path=path,
            new_from=_first_unanswered(path, len(base)),
            instructions=instructions,
            in_force=in_force,
            state=_current_state(standing, base, in_force),
        )

    def _place(self, ledger: Ledger, asked: Asked, standing: _Standing) -> _Placed:
        placement = self._placement(ledger, asked, standing)
        known, new = asked.messages[: placement.known], asked.messages[placement.known :]
        return placement.base, with_stored_ids(known, placement.base, codec.rows(new))

    def _placement(self, ledger: Ledger, asked: Asked, standing: _Standing) -> Placement:
        def find(hash: bytes) -> int | None:
            found: Any = ledger.one(ledger.sql.find_message, {"tree": standing.tree, "hash": hash})[0]
            return None if found is None else int(found)

        path = () if standing.head is None else self._paths.read(ledger, standing.head)
        if asked.after or asked.is_new:
            return Placement(path, 0)
        return place(path, asked.messages, find, lambda head: self._paths.read(ledger, head))


def _instruct(ledger: Ledger, asked: Asked, standing: _Standing) -> tuple[tuple[Message, ...], int | None]:
    """The instructions of this turn, and their row."""
    stood = codec.decode_messages(standing.instructions_body)
    wanted = in_force(tuple(row.message for row in asked.instructions), stood)
    if not wanted:
        return (), None
    rows = asked.instructions if len(wanted) == len(asked.instructions) else codec.rows(wanted)
    hash = codec.hashes(rows)[-1]
    if hash == standing.instructions_hash and list(map(is_passing, wanted)) == list(map(is_passing, stood)):
        return stood, standing.instructions
    id = ledger.new_id()
    body = codec.encode_messages(wanted)
    ledger.run(ledger.sql.insert_instructions, {"id": id, "tree": standing.tree, "hash": hash, "body": body})
    return wanted, id


def _current_state(standing: _Standing, base: Path, in_force: int | None) -> SavedState | None:
    """The upstream's state, if it stands exactly where this turn goes on, under the same instructions."""
    state = codec.decode_state(standing.state)
    if state is None or not base or state.at != base[-1].id or in_force != standing.instructions:
        return None
    return state


def _insert_turn(
    ledger: Ledger, asked: Asked, conversation: int, base: Path, path: Path, in_force: int | None
) -> None:
    ledger.run(
        ledger.sql.insert_turn,
        {
            "id": asked.turn,
            "conversation": conversation,
            "status": "open",
            "parent": base[-1].id if base else None,
            "tail": path[-1].id if path else None,
            "answer": None,
            "instructions": in_force,
            "provider": "",
            "model": "",
            "finish_reason": "",
            "usage": None,
            "error_code": "",
            "error": "",
            "created_at": asked.now,
            "finished_at": None,
            "asked": asked.asked,
        },
    )
    if asked.head is not None:
        ledger.run(ledger.sql.insert_last_piece, {"turn": asked.turn, "seq": -1, "events": asked.head})


def _first_unanswered(path: Path, known: int) -> int:
    """Where the new messages begin; where none is new, the first that has no answer."""
    if known == len(path):
        while known and path[known - 1].message.role != "assistant":
            known -= 1
    return known


def _title(messages: tuple[Message, ...]) -> str:
    first = next((message.text for message in messages if message.role == "user"), "")
    text = " ".join(first[: 4 * _TITLE_LENGTH].split())
    if len(text) <= _TITLE_LENGTH:
        return text
    # Between two words, unless the last one is most of it.
    cut = text[: _TITLE_LENGTH - 1]
    whole = cut.rpartition(" ")[0] if text[_TITLE_LENGTH - 1] != " " else cut
    return f"{whole if len(whole) > _TITLE_LENGTH // 2 else cut}…"

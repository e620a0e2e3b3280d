"""Ends a turn in the store, and keeps what has come of its answer until then.

Every statement holds only while the turn still has the lease: a turn that lost it changes nothing.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from modelway.conversations import codec
from modelway.conversations.codec import Row, SavedState
from modelway.conversations.ledger import Ledger
from modelway.conversations.log import deltas_of, is_piece
from modelway.conversations.matching import Path
from modelway.conversations.paths import Paths, branch
from modelway.conversations.records import TurnStatus
from modelway.conversations.spending import Charge, Tab, open_tab, read_tab, spend_on_turn
from modelway.conversations.upkeep import remove
from modelway.errors import ConversationBusy
from modelway.types import Usage, collect

# What a turn that somebody has stopped says in the place of a reason to finish.
CANCELLED = "cancelled"


class Ending(Struct, frozen=True, kw_only=True):
    """How a turn ended. `path` leads to the last message before the answer; `answers` are alternatives.

    `checkpoints` counts those that there may be; `piece` is what they lack of the answer's log, if it has
    one. `is_secret`: nobody has been told of the turn, which is hidden.
    """

    turn: str
    conversation: int
    tree: int
    path: Path
    in_force: int | None
    status: TurnStatus
    now: float
    answers: list[Row] = []
    provider: str = ""
    model: str = ""
    finish_reason: str = ""
    usage: Usage | None = None
    state: dict[str, Any] | None = None
    error_code: str = ""
    error: str = ""
    checkpoints: int = 0
    piece: bytes | None = None
    is_secret: bool = False
    charge: Charge | None = None


class Checkpoint(Struct, frozen=True):
    """What has come of a turn since its last checkpoint: a piece of its log, or else its deltas.

    `tab` says who pays for the answer, once.
    """

    turn: str
    conversation: int
    seq: int
    events: bytes
    tab: Tab | None = None


def end_turn(ledger: Ledger, paths: Paths, ending: Ending) -> bool:
    """Store the answer as the conversation's newest message; False where the lease was lost.

    What it has cost is written down in any case.
    """
    first_id = ledger.new_id() if ending.answers else None
    path = ending.path
    state = None
    if ending.state is not None and first_id is not None:
        state = codec.encode_state(SavedState(ending.provider, first_id, ending.state))
    settled = ledger.run(
        ledger.sql.settle,
        {
            "conversation": ending.conversation,
            "turn": ending.turn,
            "new_head": first_id or (path[-1].id if path else None),
            "in_force": ending.in_force,
            "new_state": state,
            "now": ending.now,
        },
    )
    if ending.charge is not None:
        spend_on_turn(ledger, ending.turn, ending.charge, is_held=bool(settled))
    if not settled:
        return False
    if first_id is not None:
        nodes = branch(ledger, ending.answers, path, tree=ending.tree, turn=ending.turn, first_id=first_id)
        paths.keep((*path, nodes[0]), instead_of=path)
    if ending.piece is not None:
        piece = {"turn": ending.turn, "seq": ending.checkpoints, "events": ending.piece}
        ledger.run(ledger.sql.insert_last_piece, piece)
    elif ending.checkpoints:
        ledger.run(ledger.sql.drop_checkpoints, {"turn": ending.turn})
    _close(ledger, ending, first_id)
    return True


def finish_turn(ledger: Ledger, paths: Paths, ending: Ending) -> None:
    """As end_turn; raises where the lease was lost, so that nobody takes the turn for stored."""
    if not end_turn(ledger, paths, ending):
        raise ConversationBusy(
            "this turn was silent for so long that the conversation went on without it, or was deleted",
            hint="send the message again",
        )


def fail_turn(ledger: Ledger, ending: Ending, *, drop_state: bool) -> None:
    """Note the error; the conversation stays as it was before the turn.

    One that is hidden, and of which nobody has been told, is as if it had never been.
    """
    values = {"conversation": ending.conversation, "turn": ending.turn, "drop_state": drop_state}
    freed = ledger.run(ledger.sql.free_lease, values)
    if ending.charge is not None:
        spend_on_turn(ledger, ending.turn, ending.charge, is_held=bool(freed))
    if not freed:
        return
    if ending.is_secret:
        remove(ledger, ending.conversation, ending.tree)
    else:
        _close(ledger, ending, None)


def end_lost_turn(
    ledger: Ledger, paths: Paths, conversation: int, turn: str, now: float, *, is_cancelled: bool = False
) -> None:
    """End a turn whose holder is gone, with the text that its checkpoints hold.

    A hidden one of which no piece of a log was stored goes: only a log makes it known before its end. The
    same ends one that somebody has stopped who cannot reach its holder.
    """
    row = ledger.one(ledger.sql.read_turn, {"turn": turn})
    if row is None:  # deleted in the meantime
        return
    tree, tail, in_force, hidden = row
    checkpoints = [events for (events,) in ledger.all(ledger.sql.read_checkpoints, {"turn": turn})]
    has_log = bool(checkpoints) and is_piece(checkpoints[0])
    completion = collect(deltas_of(checkpoints))
    tab = read_tab(ledger, turn)
    ending = Ending(
        turn=turn,
        conversation=conversation,
        tree=tree,
        path=() if tail is None else paths.read(ledger, tail),
        in_force=in_force,
        status="interrupted",
        now=now,
        answers=codec.answer_rows(completion),
        provider=tab.provider if tab else "",
        model=tab.model if tab else "",
        finish_reason=CANCELLED if is_cancelled else "",
        checkpoints=0 if has_log else len(checkpoints),
        is_secret=hidden and not has_log,
        charge=tab.charge_for_part(completion, now) if tab else None,
    )
    if ending.is_secret:
        fail_turn(ledger, ending, drop_state=False)
    else:
        end_turn(ledger, paths, ending)


def save_checkpoints(ledger: Ledger, checkpoints: list[Checkpoint]) -> None:
    """Keep what has come of some answers."""
    for one in checkpoints:
        if one.tab is not None:
            open_tab(ledger, one.turn, one.tab)
    ledger.run_many(
        ledger.sql.insert_checkpoint,
        [
            {"turn": one.turn, "conversation": one.conversation, "seq": one.seq, "events": one.events}
            for one in checkpoints
        ],
    )


def extend_leases(ledger: Ledger, turns: list[tuple[int, str]], until: float) -> list[str]:
    """Hold on to the conversations of long turns; gives those that have lost theirs."""
    return [
        turn
        for conversation, turn in turns
        if not ledger.run(
            ledger.sql.extend_lease, {"conversation": conversation, "turn": turn, "until": until}
        )
    ]


def _close(ledger: Ledger, ending: Ending, answer: int | None) -> None:
    ledger.run(
        ledger.sql.close_turn,
        {
            "turn": ending.turn,
            "new_status": ending.status,
            "new_answer": answer,
            "by": ending.provider,
            "using": ending.model,
            "reason": ending.finish_reason,
            "used": codec.encode_usage(ending.usage),
            "code": ending.error_code,
            "reported": ending.error,
            "now": ending.now,
        },
    )

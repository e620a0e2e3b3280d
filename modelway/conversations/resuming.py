"""Turns whose server has died: who may go on with their answers, and takes them over."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from modelway.config import ConversationSettings
from modelway.conversations import codec
from modelway.conversations.closing import end_lost_turn
from modelway.conversations.leases import Leases
from modelway.conversations.ledger import Ledger
from modelway.conversations.log import Failed, Head, Item, decode_piece, is_piece
from modelway.conversations.opening import Opened
from modelway.conversations.paths import Paths
from modelway.conversations.spending import Tab, open_tab, read_tab, spend
from modelway.types import ChatRequest, collect

if TYPE_CHECKING:
    from modelway.conversations.database import Database

# Nobody's: the holder was found dead when a server started.
NOBODY = ""
# A response in the background tells of itself before its first piece.
_BEFORE_ALL = -2
_FIRST_PIECES = 2
_ALL_PIECES = 1 << 40

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ChatRequest)


class Left(Struct, frozen=True, kw_only=True):
    """A turn that a dead server has left, and that is ours now: what was asked and what had come of it.

    `tab` says what has been paid for that; `charged` is what of it, in billionths of a dollar, just now.
    """

    opened: Opened
    request: ChatRequest
    head: Head
    items: list[Item]
    pieces: int
    tab: Tab | None
    charged: int


class _Row(NamedTuple):
    """The columns of `find_open_turn`."""

    conversation: int
    name: str
    tree: int
    hidden: bool
    tail: int | None
    in_force: int | None
    instructions: bytes | None
    created_at: float
    owner: str | None
    until: float | None


class Resuming:
    """Tells which turns wait for somebody who goes on with them, for `grace_s` after their leases ran out."""

    def __init__(self, *, goes_on: bool, grace_s: float, is_dead: Callable[[str], bool]) -> None:
        self.goes_on = goes_on
        self._grace_s = grace_s
        self._is_dead = is_dead

    @classmethod
    def of(cls, settings: ConversationSettings, leases: Leases) -> Resuming:
        """As the settings want it."""
        return cls(
            goes_on=settings.on_crash == "continue",
            grace_s=settings.reconnect_grace_s,
            is_dead=lambda owner: owner == NOBODY or leases.is_dead(owner),
        )

    def waits(self, ledger: Ledger, turn: str, owner: str | None, until: float | None, now: float) -> bool:
        """Whether an open turn may be gone on with: its holder must be dead, and not only silent."""
        if not self.goes_on or (until or 0.0) + self._grace_s <= now or not self._is_dead(owner or NOBODY):
            return False
        return bool(_head(ledger, turn).request)

    def end_overdue(self, ledger: Ledger, paths: Paths, now: float) -> int:
        """End the turns of dead holders with which nobody may go on, or no more; how many there were."""
        overdue = [
            (conversation, turn)
            for conversation, owner, turn, until in ledger.all(ledger.sql.read_leases, {})
            if self._is_dead(owner) and not self.waits(ledger, turn, owner, until, now)
        ]
        for conversation, turn in overdue:
            end_lost_turn(ledger, paths, conversation, turn, now)
        return len(overdue)

    def take_over(
        self, ledger: Ledger, paths: Paths, turn: str, caller: str, *, by: str, lease_s: float, now: float
    ) -> Left | None:
        """Hold a turn that waits; None where it does not, or no more."""
        found = ledger.one(ledger.sql.find_open_turn, {"caller": caller, "turn": turn})
        if found is None:
            return None
        row = _Row(*found)
        if not self.waits(ledger, turn, row.owner, row.until, now):
            return None
        ledger.run(
            ledger.sql.take_lease,
            {"conversation": row.conversation, "owner": by, "until": now + lease_s, "turn": turn},
        )
        return _left(ledger, paths, turn, row, now)

    def line_of(self, ledger: Ledger, turn: str, caller: str) -> tuple[str, str] | None:
        """Where the turns of the conversation wait for each other."""
        found = ledger.one(ledger.sql.find_open_turn, {"caller": caller, "turn": turn})
        if found is None:
            return None
        row = _Row(*found)
        return caller, turn if row.hidden else row.name


def end_lost_turns(database: Database, leases: Leases, resuming: Resuming) -> None:
    """End the turns of holders that died, free the keys of those never opened, then remove their files.

    Turns with which somebody may go on are nobody's from now on, and wait.
    """
    with closing(database.ledger()) as ledger:
        ledger.begin()
        dead, now = leases.dead(), time.time()
        for conversation, owner, turn, _ in ledger.all(ledger.sql.read_leases, {}):
            if owner in dead and resuming.waits(ledger, turn, owner, now, now):
                row = {"conversation": conversation, "owner": NOBODY, "until": now, "turn": turn}
                ledger.run(ledger.sql.take_lease, row)
        resuming.end_overdue(ledger, Paths(), now)
        # Once their files are gone nobody can tell that these turns never come.
        ledger.run_many(ledger.sql.drop_unopened_keys, [{"gone": owner} for owner in dead])
        ledger.commit()
    leases.sweep()


def encode_asked(request: ChatRequest) -> bytes:
    """A request as its turn keeps it for whoever goes on with it; b"" where it cannot be kept."""
    try:
        return _encoder.encode(request)
    except (TypeError, ValueError, OverflowError):
        return b""


def _head(ledger: Ledger, turn: str) -> Head:
    """What the first pieces of a log tell of it."""
    some = {"turn": turn, "after": _BEFORE_ALL, "limit": _FIRST_PIECES}
    pieces = [events for _, events in ledger.all(ledger.sql.read_pieces, some) if is_piece(events)]
    heads = [item for piece in pieces for item in decode_piece(piece) if isinstance(item, Head)]
    return heads[-1] if heads else Head(turn=turn, created_at=0.0)


def _left(ledger: Ledger, paths: Paths, turn: str, row: _Row, now: float) -> Left:
    head, last = Head(turn=turn, created_at=row.created_at), -1
    items: list[Item] = []
    some = {"turn": turn, "after": _BEFORE_ALL, "limit": _ALL_PIECES}
    for seq, events in ledger.all(ledger.sql.read_pieces, some):
        last = seq
        for item in decode_piece(events):
            if isinstance(item, Head):
                head = item
            else:
                items.append(item)
    path = () if row.tail is None else paths.read(ledger, row.tail)
    instructions = codec.decode_messages(row.instructions)
    opened = Opened(
        turn=turn,
        conversation=row.conversation,
        opened_at=row.created_at,
        name=row.name,
        hidden=row.hidden,
        tree=row.tree,
        path=path,
        new_from=len(path),
        instructions=instructions,
        in_force=row.in_force,
        state=None,
    )
    request = _decoder.decode(head.request)
    tab, charged = _pay(ledger, turn, items, now)
    return Left(
        opened=opened, request=request, head=head, items=items, pieces=last + 1, tab=tab, charged=charged
    )


def _pay(ledger: Ledger, turn: str, items: list[Item], now: float) -> tuple[Tab | None, int]:
    """Charge for what had come, at once: whoever goes on may die too."""
    tab = read_tab(ledger, turn)
    if tab is None:
        return None, 0
    charge = tab.charge_for_part(collect(item for item in items if not isinstance(item, Failed)), now)
    if not (charge.input_tokens or charge.output_tokens):
        return tab, 0
    spend(ledger, [charge])
    open_tab(ledger, turn, tab := tab.paid_up(charge))
    return tab, charge.nanos

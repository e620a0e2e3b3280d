"""Which turn answers a request that came with a key of its caller's: one key, one turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from modelway.conversations.closing import end_lost_turn
from modelway.conversations.ledger import Ledger
from modelway.conversations.paths import Paths
from modelway.conversations.resuming import Resuming
from modelway.errors import IdempotencyKeyReused


class Asking(NamedTuple):
    """A request with a key. `fingerprint` tells requests apart; `turn` is to answer it if none does yet."""

    caller: str
    key: str
    fingerprint: bytes
    turn: str


class Claim(NamedTuple):
    """The turn that answers a key; `is_new`: whoever has asked is to answer it."""

    turn: str
    is_new: bool


class _Claimed(NamedTuple):
    """A key that a turn has."""

    fingerprint: bytes
    turn: str
    owner: str
    created_at: float


def claim(
    ledger: Ledger,
    paths: Paths,
    asking: Asking,
    resuming: Resuming,
    *,
    owner: str,
    now: float,
    kept_s: float,
    opening_s: float,
    is_gone: Callable[[str, str], bool],
) -> Claim:
    """Take the key, unless a turn has it that answers or has answered; raises IdempotencyKeyReused.

    `is_gone` tells whether the holder of a turn has ended. A turn that is not there after `opening_s` never
    comes.
    """
    named = {"caller": asking.caller, "key": asking.key}
    row = ledger.one(ledger.sql.find_key, named)
    if row is not None:
        claimed = _Claimed(*row)
        # Before its turn is opened a process may end and leave nothing to know it by.
        may_open = claimed.created_at > now - opening_s and not is_gone(claimed.owner, claimed.turn)
        if claimed.created_at > now - kept_s and (
            _answers(ledger, paths, resuming, asking.caller, claimed.turn, now, is_gone, may_open=may_open)
        ):
            if claimed.fingerprint != asking.fingerprint:
                raise IdempotencyKeyReused(
                    "this Idempotency-Key came with another request before",
                    hint="send the same request again, or a new key",
                )
            return Claim(claimed.turn, is_new=False)
        ledger.run(ledger.sql.drop_key, named)
    taken = {"fingerprint": asking.fingerprint, "turn": asking.turn, "owner": owner, "created_at": now}
    ledger.run(ledger.sql.insert_key, {**named, **taken})
    return Claim(asking.turn, is_new=True)


def give_up(ledger: Ledger, asking: Asking) -> None:
    """Free the key of a turn that could not be answered."""
    named = {"caller": asking.caller, "key": asking.key}
    row = ledger.one(ledger.sql.find_key, named)
    if row is not None and row[1] == asking.turn:
        ledger.run(ledger.sql.drop_key, named)


def _answers(
    ledger: Ledger,
    paths: Paths,
    resuming: Resuming,
    caller: str,
    turn: str,
    now: float,
    is_gone: Callable[[str, str], bool],
    *,
    may_open: bool,
) -> bool:
    """Whether anything has come, or will come, of the turn that has a key."""
    row = ledger.one(ledger.sql.find_log, {"caller": caller, "turn": turn})
    if row is None:
        return may_open
    status, *_, conversation, owner, until = row
    if status == "open":
        # Not who has taken the key: another server may have gone on with the turn.
        if not is_gone(owner or "", turn) or resuming.waits(ledger, turn, owner, until, now):
            return True
        end_lost_turn(ledger, paths, conversation, turn, now)
    return bool(ledger.all(ledger.sql.read_pieces, {"turn": turn, "after": -1, "limit": 1}))

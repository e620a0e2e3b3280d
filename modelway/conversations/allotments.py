"""What each server has taken of callers' limits, in the database that they share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from modelway.conversations.ledger import Ledger

# A minute and the second in which something happened: what was taken before is over.
OVER_S = 61.0

_OTHERS = """SELECT owner, requests, tokens, streams FROM allotments
    WHERE caller = :caller AND owner <> :owner AND written_at > :since"""
_WRITE = """INSERT INTO allotments (caller, owner, requests, tokens, streams, written_at)
    VALUES (:caller, :owner, :requests, :tokens, :streams, :now)
    ON CONFLICT (caller, owner) DO UPDATE SET requests = excluded.requests, tokens = excluded.tokens,
        streams = excluded.streams, written_at = excluded.written_at"""
_FORGET = "DELETE FROM allotments WHERE written_at <= :since OR (owner = :owner AND caller = :caller)"


class Allotment(NamedTuple):
    """Parts of a caller's limits: requests and tokens of the last minute, and answers at the same time."""

    requests: int = 0
    tokens: int = 0
    streams: int = 0


NOTHING = Allotment()


class Share(NamedTuple):
    """What one server has taken, and what all others have."""

    own: Allotment
    others: Allotment


def take(
    ledger: Ledger,
    caller: str,
    owner: str,
    choose: Callable[[Allotment], Allotment],
    lives: Callable[[str], bool],
) -> Share:
    """Take for `owner` what `choose` says when it is told what the others have.

    Of one that has died the answers have ended, but what it was asked within the minute counts.
    """
    now = time.time()
    rows = ledger.all(_OTHERS, {"caller": caller, "owner": owner, "since": now - OVER_S})
    others = Allotment(
        sum(requests for _, requests, _, _ in rows),
        sum(tokens for _, _, tokens, _ in rows),
        sum(streams for other, _, _, streams in rows if streams and lives(other)),
    )
    own = choose(others)
    _write(ledger, caller, owner, own, now)
    return Share(own, others)


def put_back(ledger: Ledger, owner: str, kept: Mapping[str, Allotment]) -> None:
    """Note what `owner` keeps of the limits of some callers."""
    now = time.time()
    for caller, allotment in kept.items():
        if allotment == NOTHING:
            ledger.run(_FORGET, {"since": now - OVER_S, "owner": owner, "caller": caller})
        else:
            _write(ledger, caller, owner, allotment, now)


def _write(ledger: Ledger, caller: str, owner: str, own: Allotment, now: float) -> None:
    ledger.run(_WRITE, {"caller": caller, "owner": owner, "now": now, **own._asdict()})

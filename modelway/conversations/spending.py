"""What callers spend: sums by the day, and what each turn costs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.conversations.ledger import Ledger
from modelway.prices import NANOS, Price
from modelway.prices.estimate import usage_of
from modelway.types import Completion, Usage

_ADD = """INSERT INTO spending (day, caller, provider, model, requests, estimated, unpriced, input_tokens,
        output_tokens, nanos)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (day, caller, provider, model) DO UPDATE SET requests = spending.requests + excluded.requests,
        estimated = spending.estimated + excluded.estimated, unpriced = spending.unpriced + excluded.unpriced,
        input_tokens = spending.input_tokens + excluded.input_tokens,
        output_tokens = spending.output_tokens + excluded.output_tokens,
        nanos = spending.nanos + excluded.nanos"""
_NOTE = """INSERT INTO costs (turn, body, nanos) VALUES (:turn, :body, :nanos)
    ON CONFLICT (turn) DO UPDATE SET body = excluded.body, nanos = excluded.nanos"""
# A conversation may have been deleted while its turn was answered; what that cost stays in the sums.
_NOTE_IF_THERE = """INSERT INTO costs (turn, body, nanos) SELECT :turn, :body, :nanos
    WHERE EXISTS (SELECT 1 FROM turns WHERE id = :turn)
    ON CONFLICT (turn) DO UPDATE SET body = excluded.body, nanos = excluded.nanos"""
_NOTED = "SELECT 1 FROM costs WHERE turn = :turn"
_TAB = "SELECT body FROM costs WHERE turn = :turn AND nanos IS NULL"
_SUMS = """SELECT caller, SUM(CASE WHEN day = :day THEN nanos ELSE 0 END), SUM(nanos)
    FROM spending WHERE day BETWEEN :month AND :day GROUP BY caller"""
_USAGE = """SELECT day, caller, provider, model, requests, estimated, unpriced, input_tokens, output_tokens,
        nanos
    FROM spending WHERE day BETWEEN :first AND :last AND (:caller = '' OR caller = :caller)
    ORDER BY day, caller, provider, model"""
# Conversations that were forked from each other share a tree, and their turns.
_COSTS = """SELECT costs.turn, costs.nanos FROM costs JOIN turns ON turns.id = costs.turn
    WHERE costs.nanos IS NOT NULL AND turns.conversation IN (
        SELECT id FROM conversations WHERE id = :tree OR (tree = :tree AND tree <> id))"""

_log = logging.getLogger(__name__)

Sums = list[tuple[str, int, int]]


class Spending(Struct, frozen=True, kw_only=True):
    """What was spent on a day; `nanos` are billionths of a dollar.

    Of the `requests`, `estimated` are those whose tokens nobody has told, `unpriced` those of models without
    a known price.
    """

    day: str
    caller: str
    provider: str
    model: str
    requests: int = 1
    estimated: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nanos: int = 0


class Charge(Spending, frozen=True, kw_only=True):
    """What a turn costs; `earlier` is what those have been charged for who had begun it."""

    earlier: int = 0


class Tab(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who pays for an answer under way, and at which price. `input_tokens` is about what was asked.

    For the first `before` tokens of it others have been paid, as much as `paid`.
    """

    caller: str
    provider: str
    model: str
    price: Price | None = None
    input_tokens: int = 0
    before: int = 0
    paid: int = 0

    def charge(self, usage: Usage, day: str, *, estimated: bool) -> Charge:
        """What the answer costs."""
        return Charge(
            day=day,
            caller=self.caller,
            provider=self.provider,
            model=self.model,
            estimated=int(estimated),
            unpriced=int(self.price is None),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            nanos=0 if self.price is None else self.price.cost(usage),
            earlier=self.paid,
        )

    def charge_for_part(self, completion: Completion, now: float) -> Charge:
        """What an answer costs of which only a part has come; nobody has told its tokens."""
        written = usage_of((), completion).output_tokens - self.before
        return self.charge(Usage(self.input_tokens, written), day_of(now), estimated=True)

    def paid_up(self, charge: Charge) -> Tab:
        """The tab once a part of the answer has been charged for."""
        return replace(
            self, input_tokens=0, before=self.before + charge.output_tokens, paid=self.paid + charge.nanos
        )

    def rest(self, now: float) -> Charge:
        """What is noted of an answer with which nobody has gone on: nothing more than what was paid."""
        return replace(self.charge(Usage(), day_of(now), estimated=False), requests=0, unpriced=0)


def day_of(seconds: float) -> str:
    """The day, in UTC, of a moment in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def spend(ledger: Ledger, charges: Iterable[Spending]) -> None:
    """Add to the sums."""
    for one in charges:
        key = one.day, one.caller, one.provider, one.model
        counts = one.requests, one.estimated, one.unpriced, one.input_tokens, one.output_tokens, one.nanos
        ledger.add_up(_ADD, key, counts)


def spend_on_turn(ledger: Ledger, turn: str, charge: Charge, *, is_held: bool) -> None:
    """Add what a turn has cost to the sums, and note it with the turn.

    One that is no longer held has been charged for by who took it over, if that knew who pays.
    """
    if not is_held and ledger.one(_NOTED, {"turn": turn}):
        return
    spend(ledger, [charge])
    nanos = None if charge.unpriced else charge.nanos + charge.earlier
    note = _NOTE if is_held else _NOTE_IF_THERE
    ledger.run(note, {"turn": turn, "body": msgspec.json.encode(charge), "nanos": nanos})


def report_lost(charges: Iterable[Spending]) -> None:
    """Say in the log what could not be written down: somebody may want to know whose money it was."""
    for one in charges:
        _log.error(
            "not written down: %s spent %.6f dollars on %s of %s/%s",
            one.caller,
            one.nanos / NANOS,
            one.day,
            one.provider,
            one.model,
        )


def open_tab(ledger: Ledger, turn: str, tab: Tab) -> None:
    """Note who pays for a turn that is being answered, so that a crash does not make it free."""
    ledger.run(_NOTE_IF_THERE, {"turn": turn, "body": msgspec.json.encode(tab), "nanos": None})


def read_tab(ledger: Ledger, turn: str) -> Tab | None:
    """Who pays for a turn that has not ended; None where nobody has noted it."""
    row = ledger.one(_TAB, {"turn": turn})
    return None if row is None else msgspec.json.decode(row[0], type=Tab)


def sums(ledger: Ledger, day: str) -> Sums:
    """For each caller what it has spent on a day, and in its month up to then."""
    ledger.write_sums()
    return ledger.all(_SUMS, {"day": day, "month": f"{day[:7]}-01"})


def usage(ledger: Ledger, caller: str, first: str, last: str) -> list[Spending]:
    """The sums of some days, of one caller or ("") of all."""
    ledger.write_sums()
    rows = ledger.all(_USAGE, {"caller": caller, "first": first, "last": last})
    return [Spending(**dict(zip(Spending.__struct_fields__, row, strict=True))) for row in rows]


def costs(ledger: Ledger, tree: int) -> dict[str, float]:
    """What the turns of a tree of conversations have cost, in dollars, where it is known."""
    return {turn: nanos / NANOS for turn, nanos in ledger.all(_COSTS, {"tree": tree})}

"""What turns of one group cost is one row of the sums, and nobody sees less than all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelway.conversations.database import Database
from modelway.conversations.ledger import Ledger
from modelway.conversations.spending import Spending, spend, sums, usage

DAY = "2026-11-21"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Database(tmp_path / "conversations.sqlite3", "normal").ledger()) as ledger:
        yield ledger


def spent(caller: str, nanos: int, tokens: int = 1) -> Spending:
    return Spending(day=DAY, caller=caller, provider="p", model="m", nanos=nanos, output_tokens=tokens)


def test_a_group_s_charges_are_one_row_for_each_caller(ledger: Ledger) -> None:
    for group in ((1, 2), (4,)):
        ledger.begin()
        for nanos in group:
            spend(ledger, [spent("anna", nanos), spent("bert", 10 * nanos, 3)])
        ledger.commit()
    assert usage(ledger, "", DAY, DAY) == [
        Spending(day=DAY, caller="anna", provider="p", model="m", requests=3, nanos=7, output_tokens=3),
        Spending(day=DAY, caller="bert", provider="p", model="m", requests=3, nanos=70, output_tokens=9),
    ]


def test_what_was_just_spent_is_in_the_sums(ledger: Ledger) -> None:
    ledger.begin()
    spend(ledger, [spent("anna", 5)])
    assert sums(ledger, DAY) == [("anna", 5, 5)]
    spend(ledger, [spent("anna", 2)])
    assert usage(ledger, "anna", DAY, DAY)[0].nanos == 7
    ledger.commit()
    assert sums(ledger, DAY) == [("anna", 7, 7)]


def test_what_was_undone_was_not_spent(ledger: Ledger) -> None:
    ledger.begin()
    spend(ledger, [spent("anna", 5)])
    ledger.undo()
    ledger.begin()
    spend(ledger, [spent("bert", 1)])
    ledger.commit()
    assert sums(ledger, DAY) == [("bert", 1, 1)]

"""What a turn costs whose server has died, for whoever ends it or goes on with it."""

from __future__ import annotations

import pytest

from modelway.conversations.spending import Charge, Tab, day_of
from modelway.prices.price import Price
from modelway.types import TextDelta, Usage, collect

DAY = "2026-11-21"
NOON = 1_795_262_400.0
PRICE = Price(input=1000, output=2000)
TAB = Tab(caller="alice", provider="P", model="m", price=PRICE, input_tokens=7, before=3, paid=11)

# About ten tokens.
SO_FAR = collect([TextDelta(text="x" * 40)])


def charge(**fields: object) -> Charge:
    plain: dict[str, object] = {"day": DAY, "caller": "alice", "provider": "P", "model": "m", "earlier": 11}
    return Charge(**plain | fields)  # type: ignore[arg-type]


def test_the_day_is_that_of_greenwich() -> None:
    assert [day_of(NOON + hours * 3600) for hours in (0, 11.9, 12)] == [DAY, DAY, "2026-11-22"]


@pytest.mark.parametrize("estimated", [True, False])
def test_an_answer_costs_its_tokens(estimated: bool) -> None:
    usage = Usage(input_tokens=5, output_tokens=2)
    wanted = charge(estimated=int(estimated), input_tokens=5, output_tokens=2, nanos=PRICE.cost(usage))
    assert TAB.charge(usage, DAY, estimated=estimated) == wanted
    assert wanted.nanos > 0


def test_without_a_price_it_is_said_that_there_is_none() -> None:
    tab = Tab(caller="alice", provider="P", model="m")
    usage = Usage(input_tokens=5, output_tokens=2)
    wanted = charge(unpriced=1, input_tokens=5, output_tokens=2, earlier=0)
    assert tab.charge(usage, DAY, estimated=False) == wanted


def test_a_part_costs_what_was_asked_and_what_has_come_since() -> None:
    part = TAB.charge_for_part(SO_FAR, NOON)
    assert part == TAB.charge(Usage(input_tokens=7, output_tokens=10 - 3), DAY, estimated=True)


def test_what_has_been_paid_is_not_paid_again() -> None:
    part = TAB.charge_for_part(SO_FAR, NOON)
    tab = TAB.paid_up(part)
    assert (tab.input_tokens, tab.before, tab.paid) == (0, 10, 11 + part.nanos)
    assert (tab.caller, tab.provider, tab.model, tab.price) == ("alice", "P", "m", PRICE)
    assert tab.charge_for_part(SO_FAR, NOON).nanos == 0


def test_of_an_answer_with_which_nobody_goes_on_nothing_more_is_owed() -> None:
    assert TAB.rest(NOON) == charge(requests=0)
    unpriced = Tab(caller="alice", provider="P", model="m").rest(NOON)
    assert (unpriced.requests, unpriced.unpriced, unpriced.nanos) == (0, 0, 0)

"""The window of a minute: never over the limit, and nobody waits for ever."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.accounts.account import Account, Permit
from modelway.accounts.windows import Window
from modelway.errors import BudgetExceeded, CallerRateLimited
from modelway.prices import NANOS
from modelway.types import Rules

DAY = "2026-11-21"
PAUSES = st.lists(
    st.one_of(st.just(0.0), st.floats(0.001, 3.0), st.floats(3.0, 200.0)), min_size=1, max_size=200
)
AMOUNTS = st.lists(st.integers(1, 60), min_size=1, max_size=200)


@given(PAUSES, st.integers(1, 20))
def test_no_minute_ever_holds_more_requests_than_the_limit(pauses: list[float], limit: int) -> None:
    account = Account("a", Rules(requests_per_minute=limit))
    now, admitted = 1000.0, list[float]()
    for pause in pauses:
        now += pause
        try:
            account.admit(0, now, DAY)
        except CallerRateLimited:
            continue
        admitted.append(now)
        assert sum(now - 60 < moment for moment in admitted) <= limit


@given(PAUSES, AMOUNTS, st.integers(60, 200))
def test_no_minute_ever_holds_more_tokens_than_the_limit(
    pauses: list[float], amounts: list[int], limit: int
) -> None:
    account = Account("a", Rules(tokens_per_minute=limit))
    now, taken = 1000.0, list[tuple[float, int]]()
    for pause, amount in zip(pauses, amounts, strict=False):
        now += pause
        try:
            permit = account.admit(amount, now, DAY)
        except CallerRateLimited:
            continue
        account.end(permit, amount, now)
        taken.append((now, amount))
        assert sum(tokens for moment, tokens in taken if now - 60 < moment) <= limit


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=80),
    st.integers(1, 200),
)
def test_a_budget_holds_no_more_than_its_limit_and_one_request_s_error(
    steps: list[tuple[int, int, bool]], budget: int
) -> None:
    account = Account("a", Rules(daily_budget=budget))
    running, costs = list[tuple[Permit, int]](), 0
    for guess, less, ends in steps:
        if ends and running:
            permit, cost = running.pop(0)
            account.end(permit, 0, 1.0)
            account.spent.add(cost)
            continue
        try:
            permit = account.admit(0, 1.0, DAY, nanos=guess)
        except (BudgetExceeded, CallerRateLimited):
            continue
        costs += max(0, guess - less)
        running.append((permit, max(0, guess - less)))
        assert costs < budget + 50
    for permit, cost in running:
        account.end(permit, 0, 1.0)
        account.spent.add(cost)
    assert account.reserved == 0
    assert account.spent.on(DAY)[0] == costs


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 60), st.booleans()), max_size=80))
def test_answers_under_way_hold_no_more_tokens_than_the_limit_and_one_of_them(
    steps: list[tuple[int, int, bool]],
) -> None:
    account = Account("a", Rules(tokens_per_minute=100))
    running, taken = list[tuple[Permit, int]](), 0
    for asked, allowance, ends in steps:
        if ends and running:
            permit, tokens = running.pop(0)
            account.end(permit, tokens, 1000.0)
            continue
        with suppress(CallerRateLimited):
            running.append((account.admit(asked, 1000.0, DAY, allowance=allowance), asked + allowance))
            taken += asked + allowance
            assert taken <= 100 + 60


@given(PAUSES, st.integers(1, 5))
def test_who_waits_as_long_as_told_is_let_in(pauses: list[float], limit: int) -> None:
    account = Account("a", Rules(requests_per_minute=limit))
    now = 1000.0
    for pause in pauses:
        now += pause
        refused = None
        try:
            account.admit(0, now, DAY)
        except CallerRateLimited as error:
            refused = error
        if refused is not None:
            assert refused.retry_after is not None
            assert 0 < refused.retry_after <= 62
            now += refused.retry_after
            account.admit(0, now, DAY)


@given(st.lists(st.tuples(st.floats(0, 90), st.integers(0, 50), st.integers(0, 90)), max_size=50))
def test_the_total_is_what_its_slots_hold(steps: list[tuple[float, int, int]]) -> None:
    window = Window()
    now, slots = 5000.0, list[int]()
    for pause, amount, correction in steps:
        now += pause
        slots.append(window.add(amount, now))
        window.correct(slots[len(slots) // 2], correction - 40, now)
        assert window.total == sum(window._slots)
    window.forget(now + 200)
    assert window.total == 0


def test_what_an_answer_took_counts_in_the_place_of_the_guess() -> None:
    account = Account("a", Rules(tokens_per_minute=100))
    permit = account.admit(10, 1000.0, DAY)
    account.end(permit, 100, 1005.0)
    with pytest.raises(CallerRateLimited) as caught:
        account.admit(1, 1006.0, DAY)
    assert caught.value.retry_after == 55
    account.admit(1, 1061.0, DAY)


def test_a_guess_that_was_too_high_is_given_back() -> None:
    account = Account("a", Rules(tokens_per_minute=100))
    account.end(account.admit(100, 1000.0, DAY), 5, 1001.0)
    assert dict(account.headers(1001.0, DAY))["x-ratelimit-remaining-tokens"] == "95"


def test_a_request_that_alone_is_too_large_is_not_to_be_sent_again() -> None:
    with pytest.raises(CallerRateLimited) as caught:
        Account("a", Rules(tokens_per_minute=100)).admit(101, 1000.0, DAY)
    assert caught.value.retry_after is None
    assert ("x-should-retry", "false") in caught.value.headers


def test_answers_at_the_same_time_are_limited() -> None:
    account = Account("a", Rules(streams=2))
    first, _ = account.admit(0, 1.0, DAY), account.admit(0, 1.0, DAY)
    with pytest.raises(CallerRateLimited, match="2 answers at the same time"):
        account.admit(0, 1.0, DAY)
    account.end(first, 0, 1.0)
    account.admit(0, 1.0, DAY)


def test_what_is_refused_counts_for_nothing() -> None:
    account = Account("a", Rules(requests_per_minute=5, tokens_per_minute=10))
    for _ in range(20):
        with pytest.raises(CallerRateLimited):
            account.admit(11, 1.0, DAY)
    assert dict(account.headers(1.0, DAY))["x-ratelimit-remaining-requests"] == "5"
    assert account.running == 0


def test_what_is_left_is_told_under_openai_s_names() -> None:
    account = Account("a", Rules(requests_per_minute=3, tokens_per_minute=1000, daily_budget=NANOS))
    account.admit(10, 1000.5, DAY)
    account.spent.add(NANOS // 4)
    assert dict(account.headers(1000.5, DAY)) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "1m1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "990",
        "x-ratelimit-reset-tokens": "1m1s",
        "x-modelway-budget-daily-remaining": "0.750000",
    }
    assert dict(Account("b", Rules()).headers(0.0, DAY)) == {}


@pytest.mark.parametrize(
    ("rules", "day", "goes"),
    [
        (Rules(daily_budget=100), DAY, False),
        (Rules(daily_budget=100), "2026-11-22", True),
        (Rules(monthly_budget=150), "2026-11-22", False),
        (Rules(monthly_budget=150), "2026-12-01", True),
        (Rules(daily_budget=101, monthly_budget=151), DAY, True),
    ],
)
def test_a_budget_is_of_a_day_or_a_month(rules: Rules, day: str, *, goes: bool) -> None:
    account = Account("a", rules)
    account.spent.ask()
    account.spent.learn(DAY, 100, 150)
    if goes:
        assert isinstance(account.admit(0, 1.0, day), Permit)
        return
    with pytest.raises(BudgetExceeded) as caught:
        account.admit(0, 1.0, day)
    assert caught.value.code == "insufficient_quota"
    assert ("x-should-retry", "false") in caught.value.headers


@given(st.lists(st.one_of(st.integers(1, 100), st.sampled_from(["ask", "learn"])), max_size=60))
def test_spending_is_neither_lost_nor_counted_twice(steps: list[int | str]) -> None:
    """The database's answer holds what was charged before it was asked, and nothing that came later."""
    account = Account("a", Rules())
    charged, asked = 0, None
    for step in steps:
        match step:
            case "ask" if asked is None:
                account.spent.ask()
                asked = charged
            case "learn" if asked is not None:
                account.spent.learn(DAY, asked, asked)
                asked = None
            case int():
                account.spent.add(step)
                charged += step
        assert account.spent.on(DAY) == (charged, charged)

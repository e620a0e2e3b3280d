"""Where a request would go now, and why, whole."""

from __future__ import annotations

import pytest

from modelway.config import CandidateLimits, RouteSettings, Settings
from modelway.errors import UpstreamFailed
from modelway.routing import Breakers, BreakerState, Router
from modelway.routing.explaining import Explanation, Prospect, explain, health
from tests.scripted import Scripted

OUTAGE = UpstreamFailed("500")
PROVIDERS = [
    Scripted("One"),
    Scripted("Two"),
    Scripted("Keyless", ready=False, needs_auth=True),
    Scripted("Unset", ready=False, needs_auth=True, missing="set UNSET_KEY"),
    Scripted("Near", untried=True),
]


def router_of(**fields: object) -> Router:
    route = RouteSettings(**fields)  # type: ignore[arg-type]
    return Router(PROVIDERS, Settings(provider="One", fallback=("Two/f",), routes={"best": route}))


def failing(*times: tuple[str, int]) -> Breakers:
    breakers = Breakers(3, 30, clock=lambda: 100.0)
    for name, failures in times:
        for _ in range(failures):
            breakers.failed((name, f"{name.lower()}-1"), OUTAGE)
    return breakers


def next_one(provider: str, share: float = 0.0, **fields: object) -> Prospect:
    plain: dict[str, object] = {"model": f"{provider.lower()}-1", "verdict": "next"}
    return Prospect(provider=provider, share=share, **plain | fields)  # type: ignore[arg-type]


def test_a_route_in_its_order_says_what_each_candidate_lacks() -> None:
    found = explain(router_of(candidates=("Keyless", "Unset", "Near", "One")), failing(("One", 1)), "best")
    assert found == Explanation(
        name="best",
        is_route=True,
        weighted=False,
        candidates=[
            next_one("Keyless", 1.0, verdict="skipped", why="it lacks a credential"),
            next_one("Unset", verdict="skipped", why="set UNSET_KEY"),
            next_one("Near", verdict="first", why="only asking it shows whether it is there"),
            next_one(
                "One",
                why="upstream_error once",
                breaker=BreakerState("One", "one-1", "closed", 1, "upstream_error", 0.0),
            ),
            next_one("Two", model="f"),
        ],
    )


def test_a_weighted_route_says_how_often_each_is_asked_first() -> None:
    router = router_of(
        candidates=("One", "Two", "Near"),
        weights=(2.0, 1.0, 3.0),
        limits={"Two": CandidateLimits(idle_timeout_s=3)},
        on_break="continue",
        retries=4,
        deadline_s=50,
        hedge_after_s=0.5,
        shadow="Near/s",
        shadow_share=0.25,
    )
    found = explain(router, failing(("One", 3), ("Two", 2)), "best")
    one, two, near, fallback = found.candidates
    assert (one.share, two.share, near.share, fallback.share) == (0.3333, 0.1667, 0.5, 0.0)
    assert (one.verdict, two.verdict, near.verdict) == ("skipped", "first", "next")
    assert one.why == "upstream_error 3 times in a row; left alone for 30 s"
    assert two.why == "upstream_error 2 times in a row"
    assert (one.limits, two.limits is not None and two.limits.idle_s) == (near.limits, 3)
    assert (found.weighted, found.on_break, found.retries) == (True, "continue", 4)
    assert (found.deadline_s, found.hedge_after_s) == (50, 0.5)
    assert (found.shadow, found.shadow_share) == ("Near/s", 0.25)


def test_what_may_not_be_used_goes_unmentioned_and_the_others_have_its_share() -> None:
    router = router_of(candidates=("One", "Two"), weights=(3.0, 1.0), shadow="One/s", shadow_share=1.0)
    found = explain(router, failing(), "best", lambda candidate: candidate.name != "One")
    assert [(one.provider, one.share, one.verdict) for one in found.candidates] == [
        ("Two", 1.0, "first"),
        ("Two", 0.0, "next"),
    ]
    assert (found.shadow, found.shadow_share) == ("", 0.0)


def test_another_name_is_no_route() -> None:
    found = explain(router_of(candidates=("One",)), failing(), "One/x")
    assert found == Explanation(
        name="One/x",
        is_route=False,
        weighted=False,
        candidates=[next_one("One", 1.0, model="x", verdict="first"), next_one("Two", model="f")],
    )


@pytest.mark.parametrize(
    ("states", "fares"),
    [
        ((), "ok"),
        (("closed",), "failing"),
        (("closed", "half_open"), "recovering"),
        (("half_open", "open", "closed"), "unavailable"),
    ],
)
def test_a_provider_fares_as_the_worst_of_its_models(states: tuple[str, ...], fares: str) -> None:
    assert health([BreakerState("One", "m", state, 1, "x", 0.0) for state in states]) == fares  # type: ignore[arg-type]

"""Tells where a request would go, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Literal

from msgspec import Struct

from modelway.routing.breakers import Breakers, BreakerState
from modelway.routing.candidates import Candidate, Limits, Route
from modelway.routing.router import Router

Health = Literal["ok", "failing", "recovering", "unavailable"]


class Prospect(Struct, frozen=True, kw_only=True):
    """What would become of a candidate now. `share` is how often it is asked first, from 0 to 1.

    `verdict` is "first", "next" or "skipped"; `why` tells what it lacks or how it has failed.
    """

    provider: str
    model: str
    share: float
    verdict: Literal["first", "next", "skipped"]
    why: str = ""
    breaker: BreakerState | None = None
    limits: Limits | None = None


class Explanation(Struct, frozen=True, kw_only=True):
    """A route, or the way of another name that leads somewhere (`is_route` False), as it stands now."""

    name: str
    is_route: bool
    weighted: bool
    candidates: list[Prospect]
    on_break: Literal["fail", "continue"] = "fail"
    retries: int | None = None
    deadline_s: float | None = None
    hedge_after_s: float | None = None
    shadow: str = ""
    shadow_share: float = 0.0
    object: str = "route"


def health(states: Sequence[BreakerState]) -> Health:
    """How a provider fares whose models fare so."""
    found = {state.state for state in states}
    if "open" in found:
        return "unavailable"
    if "half_open" in found:
        return "recovering"
    return "failing" if found else "ok"


def explain(
    router: Router, breakers: Breakers, name: str, permits: Callable[[Candidate], bool] = lambda _: True
) -> Explanation:
    """Where a request with this model would go now; ModelNotFound where nowhere.

    What a caller may not use goes unmentioned (`permits`), and the others share what it would have had.
    """
    weights = router.weights(name)
    ordered = router.in_order(name)
    # The order of the others is fixed: they come after those that are drawn.
    weighed = zip(ordered + router.fallback_for(ordered), chain(weights, repeat(0.0)), strict=False)
    left = [(candidate, weight) for candidate, weight in weighed if permits(candidate)]
    total = sum(weight for _, weight in left)
    prospects: list[Prospect] = []
    for index, (candidate, weight) in enumerate(left):
        share = weight / total if total else float(index == 0)
        is_first = not any(one.verdict == "first" for one in prospects)
        prospects.append(_prospect(candidate, share, breakers, is_first=is_first))
    route = ordered[0].route or Route(name)
    shadow = route.shadow if route.shadow is not None and permits(route.shadow) else None
    return Explanation(
        name=name,
        is_route=ordered[0].route is not None,
        weighted=bool(weights),
        candidates=prospects,
        on_break="continue" if route.continues else "fail",
        retries=route.retries,
        deadline_s=route.deadline_s,
        hedge_after_s=route.hedge_after_s,
        shadow="/".join(filter(None, shadow.key)) if shadow is not None else "",
        shadow_share=route.shadow_share if shadow is not None else 0.0,
    )


def _prospect(candidate: Candidate, share: float, breakers: Breakers, *, is_first: bool) -> Prospect:
    info = candidate.provider.info
    breaker = breakers.state(candidate.key)
    verdict: Literal["first", "next", "skipped"] = "first" if is_first else "next"
    why = ""
    if not info.ready:
        verdict, why = "skipped", info.missing or "it lacks a credential"
    elif breaker is not None and breaker.retry_after_s:
        verdict = "skipped"
        why = f"{_failures(breaker)}; left alone for {breaker.retry_after_s:.0f} s"
    elif breaker is not None:
        why = _failures(breaker)
    elif info.untried:
        why = "only asking it shows whether it is there"
    return Prospect(
        provider=info.name,
        model=candidate.model,
        share=round(share, 4),
        verdict=verdict,
        why=why,
        breaker=breaker,
        limits=candidate.limits,
    )


def _failures(breaker: BreakerState) -> str:
    times = "once" if breaker.failures == 1 else f"{breaker.failures} times in a row"
    return f"{breaker.last_code} {times}"

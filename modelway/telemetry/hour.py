"""The figures of the last hour, in steps of ten seconds, for plots."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from modelway.telemetry.records import RequestRecord

STEP_S = 10
STEPS = 360
# Narrow enough that a percentile read out of them is right to a fifth.
_FIRST_MS = tuple(round(10 * 1.2**power, 1) for power in range(48))


class Slice:
    """What one provider did within one step; `running` is the most requests at the same time."""

    __slots__ = (
        "cost",
        "errors",
        "first",
        "input_tokens",
        "output_tokens",
        "rate",
        "rates",
        "requests",
        "running",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost = 0.0
        self.rate = 0.0
        self.rates = 0
        self.running = 0
        self.first: dict[int, int] = {}

    def count(self, record: RequestRecord, rate: float, running: int) -> None:
        """Count a request that has ended."""
        self.requests += 1
        if record.code:
            self.errors += 1
        self.input_tokens += record.input_tokens
        self.output_tokens += record.output_tokens
        self.cost += record.cost
        self.running = max(self.running, running)
        if rate:
            self.rate += rate
            self.rates += 1
        if record.first_ms:
            column = bisect_left(_FIRST_MS, record.first_ms)
            self.first[column] = self.first.get(column, 0) + 1

    def told(self) -> dict[str, Any]:
        """As JSON; null where there is nothing to tell."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost": round(self.cost, 9),
            "tokens_per_s": round(self.rate / self.rates, 2) if self.rates else None,
            "first_ms_p50": self._percentile(0.5),
            "first_ms_p95": self._percentile(0.95),
        }

    def _percentile(self, share: float) -> float | None:
        wanted = share * sum(self.first.values())
        seen = 0
        for column in sorted(self.first):
            seen += self.first[column]
            if seen >= wanted:
                return _FIRST_MS[min(column, len(_FIRST_MS) - 1)]
        return None


class Hour:
    """A ring of steps, each with a part for every provider; one is begun anew when its turn comes again."""

    def __init__(self) -> None:
        self._numbers = [-1] * STEPS
        self._parts: list[dict[str, Slice]] = [{} for _ in range(STEPS)]

    def slice(self, step: int, provider: str) -> Slice:
        """The provider's part of a step, which is numbered since the epoch."""
        at = step % STEPS
        if self._numbers[at] != step:
            self._numbers[at], self._parts[at] = step, {}
        return self._parts[at].setdefault(provider, Slice())

    def snapshot(self, now: float) -> dict[str, Any]:
        """The steps in which something ended, oldest first; `at` is when a step began."""
        last = int(now) // STEP_S
        steps = sorted(
            (number, parts)
            for number, parts in zip(self._numbers, self._parts, strict=True)
            if last - STEPS < number <= last
        )
        return {
            "step_s": STEP_S,
            "from": (last - STEPS + 1) * STEP_S,
            "steps": [
                {
                    "at": number * STEP_S,
                    "running": max(part.running for part in parts.values()),
                    "providers": {name: part.told() for name, part in parts.items()},
                }
                for number, parts in steps
            ],
        }

"""Counts requests in memory, since the start and for the last hour.

What a caller may choose freely is bounded: a model's name is kept apart only once it has answered, and only
the first `MOST_MODELS` of them; all others are "other". Nothing here knows a prompt or a conversation.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from modelway.telemetry.hour import STEP_S, Hour, Slice
from modelway.telemetry.records import RequestRecord

MOST_MODELS = 200
OTHER = "other"

# Upper bounds of the histograms' columns, in seconds and in tokens per second; the last column has none.
FIRST_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOTAL_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
TOKENS_PER_S = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)

Key = tuple[str, str, str]


class Histogram:
    """How many values lie in each column, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Line:
    """The requests of one provider, model and dialect. `statuses` counts by the hundreds of the status.

    `answered` are attempts that worked. `slice` is the provider's part of the step that `step` numbers.
    """

    __slots__ = (
        "answered",
        "bytes_in",
        "bytes_out",
        "cost",
        "first",
        "input_tokens",
        "output_tokens",
        "rate",
        "slice",
        "statuses",
        "step",
        "total",
    )

    def __init__(self) -> None:
        self.statuses = [0] * 10
        self.answered = 0
        self.first = Histogram(FIRST_S)
        self.total = Histogram(TOTAL_S)
        self.rate = Histogram(TOKENS_PER_S)
        self.input_tokens = 0
        self.output_tokens = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.cost = 0.0
        self.step = -1
        self.slice = Slice()


class Figures:
    """Counters since the start: plain numbers, of which the end of a request changes a few.

    `open` is how many requests and turns have not ended, `aside` those of them to which nothing is answered
    now: pages, and whoever reads along. `streams` are those that are read as streams.
    `lines` are by (provider, model, dialect), `errors` count by (provider, code), `failures` of attempts by
    (provider, model, code).
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.since = clock()
        self.open = 0
        self.aside: set[str] = set()
        self.streams: set[str] = set()
        self.lines: dict[Key, Line] = {}
        self.errors: dict[tuple[str, str], int] = {}
        self.failures: dict[Key, int] = {}
        self._hour = Hour()
        self._models: set[tuple[str, str]] = set()
        self._clock = clock

    @property
    def running(self) -> int:
        """How many requests are being answered now."""
        return self.open - len(self.aside)

    def count(self, record: RequestRecord) -> None:
        """Count a request that ends now."""
        attempts = record.attempts
        # A turn is counted once, however many read it along.
        provider = "" if record.turn else record.provider
        if (record.code or len(attempts) > 1) and not record.turn:
            self._count_failures(record)
        line = self.lines.get((provider, record.model, record.dialect)) if provider else None
        if line is None:
            line, provider = self._line(record)
        line.statuses[record.status // 100] += 1
        if not provider:
            return
        rate = tokens_per_s(record)
        line.total.add(record.total_ms / 1000)
        if record.first_ms:
            line.first.add(record.first_ms / 1000)
            line.answered += 1
        if rate:
            line.rate.add(rate)
        line.input_tokens += record.input_tokens
        line.output_tokens += record.output_tokens
        line.bytes_in += record.bytes_in
        line.bytes_out += record.bytes_out
        line.cost += record.cost
        step = int(record.time + record.total_ms / 1000) // STEP_S
        if step != line.step:
            line.step, line.slice = step, self._hour.slice(step, provider)
        line.slice.count(record, rate, max(1, self.open - len(self.aside)))

    def snapshot(self) -> dict[str, Any]:
        """Everything, as JSON: `lines` since the start, `hour` in steps of ten seconds."""
        now = self._clock()
        return {
            "object": "figures",
            "since": self.since,
            "now": now,
            "running": self.running,
            "streams": len(self.streams),
            "lines": [_told(key, line) for key, line in self.lines.items()],
            "errors": [
                {"provider": provider, "code": code, "count": count}
                for (provider, code), count in self.errors.items()
            ],
            "hour": self._hour.snapshot(now),
        }

    def _count_failures(self, record: RequestRecord) -> None:
        if record.code:
            failed = (_tried(record)[0], record.code)
            self.errors[failed] = self.errors.get(failed, 0) + 1
        for attempt in record.attempts:
            if attempt.code:
                key = (attempt.provider, self._label(attempt.provider, attempt.model), attempt.code)
                self.failures[key] = self.failures.get(key, 0) + 1

    def _line(self, record: RequestRecord) -> tuple[Line, str]:
        """The line of a request that has none under its own names yet, and the provider."""
        provider, model = _tried(record)
        model = self._label(provider, model, good=record.status < 400 and not record.code)
        return self.lines.setdefault((provider, model, record.dialect), Line()), provider

    def _label(self, provider: str, model: str, *, good: bool = False) -> str:
        if not model or (provider, model) in self._models:
            return model
        if not good or len(self._models) >= MOST_MODELS:
            return OTHER
        self._models.add((provider, model))
        return model


def tokens_per_s(record: RequestRecord) -> float:
    """How fast an answer came after its first token; of one that came whole, on the whole; 0: not known."""
    if record.output_tokens <= 1:
        return 0.0
    ms = record.total_ms - record.first_ms if record.stream else record.total_ms
    return record.output_tokens * 1000 / ms if ms > 0 else 0.0


def _tried(record: RequestRecord) -> tuple[str, str]:
    """Provider and model of a request; where nobody answered, those that were tried last."""
    if record.turn:
        return "", ""
    if record.provider or not record.attempts:
        return record.provider, record.model
    return record.attempts[-1].provider, record.attempts[-1].model


def _told(key: Key, line: Line) -> dict[str, Any]:
    return {
        "provider": key[0],
        "model": key[1],
        "dialect": key[2],
        "requests": {f"{hundreds}xx": count for hundreds, count in enumerate(line.statuses) if count},
        "input_tokens": line.input_tokens,
        "output_tokens": line.output_tokens,
        "bytes_in": line.bytes_in,
        "bytes_out": line.bytes_out,
        "cost": round(line.cost, 9),
    }

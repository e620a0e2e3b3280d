"""The last hour, minute by minute, out of what the telemetry counts in shorter steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

MINUTES = 60


class Minute(Struct, kw_only=True):
    """What happened in one minute; None where nothing was measured. Times in seconds."""

    at: float
    requests: int = 0
    errors: int = 0
    running: int = 0
    tokens: int = 0
    first_p50: float | None = None
    first_p95: float | None = None
    rate: float | None = None


def minutes_of(snapshot: Mapping[str, Any]) -> list[Minute]:
    """The last sixty minutes, oldest first."""
    end = int(snapshot["now"] // 60) * 60
    minutes = [Minute(at=end - 60 * (MINUTES - 1 - n)) for n in range(MINUTES)]
    for step in snapshot["hour"]["steps"]:
        index = MINUTES - 1 - int((end + 60 - 1 - step["at"]) // 60)
        if 0 <= index < MINUTES:
            _add(minutes[index], step)
    minutes[-1].running = max(minutes[-1].running, snapshot["running"])
    return minutes


def costs_of(snapshot: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """Cost in dollars and requests of each provider since the start, the dearest first."""
    found: dict[str, tuple[float, int]] = {}
    for line in snapshot["lines"]:
        if line["provider"]:
            cost, requests = found.get(line["provider"], (0.0, 0))
            found[line["provider"]] = (cost + line["cost"], requests + sum(line["requests"].values()))
    return sorted(
        ((name, cost, requests) for name, (cost, requests) in found.items()),
        key=lambda one: (-one[1], -one[2], one[0]),
    )


def _add(minute: Minute, step: Mapping[str, Any]) -> None:
    minute.running = max(minute.running, step["running"])
    for told in step["providers"].values():
        before, minute.requests = minute.requests, minute.requests + told["requests"]
        minute.errors += told["errors"]
        minute.tokens += told["output_tokens"]
        minute.first_p50 = _mean(minute.first_p50, before, _seconds(told["first_ms_p50"]), told["requests"])
        minute.rate = _mean(minute.rate, before, told["tokens_per_s"], told["requests"])
        slowest = _seconds(told["first_ms_p95"])
        minute.first_p95 = max(filter(None, (minute.first_p95, slowest)), default=None)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _mean(old: float | None, old_count: int, new: float | None, new_count: int) -> float | None:
    if old is None or new is None:
        return new if old is None else old
    return (old * old_count + new * new_count) / max(1, old_count + new_count)

"""The few statistics of the report: percentiles, medians, and medians of ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from msgspec import Struct


class Spread(Struct, frozen=True):
    """The median of several rounds, with the lowest and the highest one."""

    median: float
    low: float
    high: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of the values lie, interpolated; NaN where there are none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread(values: Sequence[float | None]) -> Spread | None:
    """Median and range of the rounds that gave a value; None where none did."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return Spread(statistics.median(known), min(known), max(known))


def ratios(above: Sequence[float | None], below: Sequence[float | None]) -> Spread | None:
    """The spread of the ratios round by round: what disturbs a round disturbs both of its sides.

    A round that lacks a side, or whose lower side is zero, is left out.
    """
    return spread([a / b if a is not None and b else None for a, b in zip(above, below, strict=True)])


def differences(above: Sequence[float | None], below: Sequence[float | None]) -> Spread | None:
    """The spread of the differences round by round."""
    return spread(
        [a - b if a is not None and b is not None else None for a, b in zip(above, below, strict=True)]
    )


class Percentiles(Struct, frozen=True):
    """What the report keeps of many samples; None where there are none."""

    count: int = 0
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None


def percentiles(values: Sequence[float]) -> Percentiles:
    """Summarise samples."""
    if not values:
        return Percentiles()
    ordered = sorted(values)
    p50, p90, p99 = (percentile(ordered, share) for share in (0.5, 0.9, 0.99))
    return Percentiles(len(ordered), p50, p90, p99, ordered[-1])

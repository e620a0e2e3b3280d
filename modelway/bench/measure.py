"""Measures contestants side by side: shuffled rounds, then medians of what each round gave.

A round runs every contestant once, in a new order. Ratios and differences are taken inside a round and
only then is the median formed, so that a disturbance of the machine strikes both sides of a ratio.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from modelway.bench.contestants import Contestant, LoadProcess
from modelway.bench.load import Load, LoadResult
from modelway.bench.processes import check_ours, cpu_usage
from modelway.bench.summary import Sample, Shape, ShapeReport, doubts, row

Step = Callable[[str], None]


class Options(Struct, frozen=True, kw_only=True):
    """How much is measured. `rate` is that of the open loop, `streams` how many streams are paced."""

    duration_s: float = 2.0
    rounds: int = 5
    connections: int = 16
    rate: float = 200.0
    streams: int = 100
    interval_ms: int = 20
    open_streams: tuple[int, ...] = (100, 500)
    startup_rounds: int = 7


def shapes(options: Options) -> dict[str, Shape]:
    """The kinds of work by name."""
    events = paced_events(options)
    paced = f"bench:paced:{options.interval_ms}:{events}"
    # Two events fewer are accepted: some gateways swallow the one with the role or the one with the usage.
    return {
        "json": Shape("json", "bench:json", False, 0, "request"),
        "sse50": Shape("sse50", "bench:sse:50", True, 48, "request"),
        "paced": Shape("paced", paced, True, events - 2, "event"),
    }


def paced_events(options: Options) -> int:
    """How many events a paced stream has so that it lasts for the duration."""
    return max(3, round(options.duration_s * 1000 / options.interval_ms))


def measure_shape(
    shape: Shape, contestants: Sequence[Contestant], load: LoadProcess, options: Options, step: Step
) -> ShapeReport:
    """Warm everybody up, run the rounds and sum them up; `contestants[0]` is the upstream itself."""
    upstream = contestants[0]
    for contestant in contestants:
        load.run(
            _load(shape, contestant, options, f"{shape.name}-warm", duration_s=min(0.3, options.duration_s))
        )
    samples: dict[str, list[Sample]] = {contestant.name: [] for contestant in contestants}
    for number in range(options.rounds):
        for contestant in random.sample(contestants, len(contestants)):
            step(f"{shape.name}, round {number + 1}: {contestant.name}")
            samples[contestant.name].append(
                _sample(shape, contestant, upstream, load, options, f"{shape.name}-{number}")
            )
    rows = [row(name, shape, samples) for name in samples]
    return ShapeReport(shape.name, shape.unit, rows, doubts(shape, samples))


def _sample(
    shape: Shape, contestant: Contestant, upstream: Contestant, load: LoadProcess, options: Options, run: str
) -> Sample:
    if contestant.roots:
        check_ours(contestant.port, contestant.roots, contestant.name)
    at_rate, steady_cpu, share = _loaded(
        _steady_load(shape, contestant, options, run), contestant, upstream, load
    )
    steady_us = _cpu_per_unit(steady_cpu, at_rate, shape)
    if shape.unit == "event":
        return Sample(at_rate, at_rate, steady_us, None, share)
    busy, cpu, share = _loaded(_load(shape, contestant, options, run), contestant, upstream, load)
    return Sample(busy, at_rate, _cpu_per_unit(cpu, busy, shape), steady_us, share)


def _load(
    shape: Shape, contestant: Contestant, options: Options, run: str, *, duration_s: float | None = None
) -> Load:
    return msgspec.structs.replace(
        contestant.load(shape.mark, stream=shape.stream, run=f"{run}-busy"),
        min_events=shape.min_events,
        connections=options.connections,
        duration_s=options.duration_s if duration_s is None else duration_s,
    )


def _steady_load(shape: Shape, contestant: Contestant, options: Options, run: str) -> Load:
    load = _load(shape, contestant, options, run)
    if shape.unit == "request":
        return msgspec.structs.replace(load, rate=options.rate, run=f"{run}-steady")
    # The streams begin spread over a quarter of the time and at most a second, not at one instant.
    begin_s = min(1.0, options.duration_s / 4)
    count = options.streams
    return msgspec.structs.replace(load, rate=count / begin_s, requests=count, connections=count)


def _loaded(
    load: Load, contestant: Contestant, upstream: Contestant, process: LoadProcess
) -> tuple[LoadResult, float | None, float | None]:
    """Put a load on; also the CPU seconds of the contestant, and the upstream's as a share of a core."""
    before, upstream_before = cpu_usage(contestant.roots), cpu_usage(upstream.roots)
    result = process.run(load)
    after, upstream_after = cpu_usage(contestant.roots), cpu_usage(upstream.roots)
    used = after.since(before) if before and after else None
    share = None
    if upstream_before and upstream_after and result.elapsed_s:
        share = upstream_after.since(upstream_before) / result.elapsed_s
    return result, used, share


def _cpu_per_unit(seconds: float | None, result: LoadResult, shape: Shape) -> float | None:
    units = result.requests if shape.unit == "request" else result.chunks
    return seconds / units * 1e6 if seconds is not None and units else None

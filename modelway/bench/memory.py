"""Measures the resident memory of a contestant with many streams open at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, structs

from modelway.bench.contestants import Contestant, Entrant, LoadProcess
from modelway.bench.load import Load
from modelway.bench.processes import BenchError, resident_bytes

_INTERVAL_MS = 100
_SAMPLE_S = 0.05


class MemoryRow(Struct, frozen=True, kw_only=True):
    """A freshly started contestant before and while `streams` answers are under way.

    `delivered` counts the events that came of the `expected` ones, `gap_p99` is in milliseconds.
    """

    contestant: str
    streams: int
    idle_mb: float
    open_mb: float
    per_stream_kb: float
    delivered: int
    expected: int
    errors: dict[str, int]
    gap_p99: float | None


def measure_memory(
    entrants: Sequence[Entrant],
    counts: Sequence[int],
    load: LoadProcess,
    folder: Path,
    *,
    hold_s: float,
    step: Callable[[str], None],
) -> list[MemoryRow]:
    """Start each entrant afresh for each number of streams: used memory is seldom given back."""
    rows: list[MemoryRow] = []
    for entrant in entrants:
        for count in counts:
            step(f"{count} open streams: {entrant.name}")
            own = folder / f"{len(rows)}-streams"
            own.mkdir()
            with entrant.start(own) as contestant:
                rows.append(_measure(contestant, count, load, hold_s))
    return rows


def stream_load(
    contestant: Contestant, count: int, hold_s: float, interval_ms: int = _INTERVAL_MS
) -> tuple[Load, int]:
    """Streams that are all open for `hold_s`, and the number of events that each of them has.

    They begin 500 a second, as a burst would measure the queue and not the streams.
    """
    begin_s = count / 500
    events = max(3, round((begin_s + hold_s) * 1000 / interval_ms))
    load = structs.replace(
        contestant.load(f"bench:paced:{interval_ms}:{events}", stream=True, run=f"streams-{count}"),
        min_events=events - 2,
        connections=count,
        requests=count,
        rate=count / begin_s,
        duration_s=begin_s * 2 + hold_s,
    )
    return load, events


def _measure(contestant: Contestant, count: int, load: LoadProcess, hold_s: float) -> MemoryRow:
    # What the first answers load and cache is not the price of a stream.
    load.run(warm_up(contestant))
    idle = resident_bytes(contestant.roots)
    if idle is None:
        raise BenchError(f"the memory of {contestant.name} cannot be read here; leave out --mode streams")
    spec, events = stream_load(contestant, count, hold_s)
    with _highest(contestant.roots) as readings:
        result = load.run(spec)
    peak = max(readings, default=idle)
    return MemoryRow(
        contestant=contestant.name,
        streams=count,
        idle_mb=idle / 1e6,
        open_mb=peak / 1e6,
        per_stream_kb=(peak - idle) / count / 1e3,
        delivered=result.chunks,
        expected=count * events,
        errors=result.errors,
        gap_p99=result.gap.p99,
    )


def warm_up(contestant: Contestant) -> Load:
    """What makes a contestant load and keep what it needs for its first answers."""
    return structs.replace(
        contestant.load("bench:sse:50", stream=True, run="warm"), min_events=48, connections=4, requests=50
    )


@contextmanager
def _highest(roots: Collection[int]) -> Iterator[list[int]]:
    """Read the memory over and over on a thread while the block runs."""
    readings: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(_SAMPLE_S):
            readings.append(resident_bytes(roots) or 0)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield readings
    finally:
        stop.set()
        thread.join()

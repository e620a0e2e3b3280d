"""Runs many simulations, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from modelway.bench.simulation import Failed, simulate

_CHUNK = 20
# Where files are memory, databases that live for a moment cost no disk.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a fresh folder is made in it


class Outcome(Struct):
    """Which worlds failed, in words that begin with "seed N:"; `trace` is what happened in the last one."""

    failures: list[str] = []
    trace: list[str] = []


def run(first: int, count: int, jobs: int, each: Callable[[int], None]) -> Outcome:
    """Simulate the seeds from `first` on; `each` is told how many more are done."""
    last = first + count
    chunks = [range(start, min(start + _CHUNK, last)) for start in range(first, last, _CHUNK)]
    if jobs == 1 or len(chunks) == 1:
        return _gathered((run_chunk(chunk) for chunk in chunks), chunks, each)
    with ProcessPoolExecutor(jobs or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return _gathered(pool.map(run_chunk, chunks), chunks, each)


def run_chunk(seeds: range) -> Outcome:
    """Simulate some seeds, one after another."""
    outcome = Outcome()
    with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        for seed in seeds:
            try:
                outcome.trace = simulate(seed, Path(folder))
            except Failed as failed:
                outcome.failures.append(str(failed))
                outcome.trace = failed.trace
    return outcome


def _gathered(outcomes: Iterable[Outcome], chunks: list[range], each: Callable[[int], None]) -> Outcome:
    found = Outcome()
    for outcome, chunk in zip(outcomes, chunks, strict=True):
        found.failures += outcome.failures
        found.trace = outcome.trace
        each(len(chunk))
    return found

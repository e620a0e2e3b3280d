"""Runs a whole measurement: starts the processes, measures mode after mode, ends them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from msgspec import Struct

from modelway.bench.contestants import (
    DIRECT,
    Contestant,
    Entrant,
    LoadProcess,
    load_process,
    upstream,
)
from modelway.bench.gateways import Others, entrants
from modelway.bench.measure import Options, measure_shape, shapes
from modelway.bench.memory import measure_memory
from modelway.bench.processes import BenchError, raise_file_limit
from modelway.bench.report import Report, this_machine
from modelway.bench.startup import measure_startup

SHAPES = ("json", "sse50", "paced")
MODES = (*SHAPES, "streams", "startup")
QUICK = Options(
    duration_s=0.15, rounds=1, connections=4, streams=10, open_streams=(20,), startup_rounds=1, rate=100
)
Step = Callable[[str, int], None]
"""Told what is measured next, and how many steps there are in all."""


class Task(Struct, frozen=True, kw_only=True):
    """What to measure. `only` names the contestants beside the upstream; empty: all there are."""

    modes: tuple[str, ...] = MODES
    options: Options = Options()
    only: tuple[str, ...] = ()
    others: Others = Others()
    upstream_port: int = 0


def measure(task: Task, step: Step) -> Report:
    """Measure everything that the task asks for. Raises BenchError where a process will not run."""
    raise_file_limit()
    report = Report(machine=this_machine(), options=task.options)
    with ExitStack() as stack:
        # On Windows a log may still be held for a moment by the process that has just ended.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        direct = stack.enter_context(upstream(folder, task.upstream_port))
        load = stack.enter_context(load_process(folder))
        chosen = choose(task.only, entrants(direct.port, task.others))
        total = step_count(task, chosen)

        def next_step(what: str) -> None:
            step(what, total)

        if "streams" in task.modes:
            # A gateway that somebody else runs cannot be started afresh, so its memory would tell nothing.
            everyone = [
                Entrant(DIRECT, lambda _: nullcontext(direct)),
                *(entrant for entrant in chosen if entrant.ours),
            ]
            report.memory = measure_memory(
                everyone,
                task.options.open_streams,
                load,
                folder,
                hold_s=task.options.duration_s,
                step=next_step,
            )
        _measure_shapes(task, direct, chosen, load, folder, report, next_step)
        if "startup" in task.modes:
            report.startup = measure_startup(task.options.startup_rounds, direct.port, folder, next_step)
    return report


def choose(only: Collection[str], found: Sequence[Entrant]) -> list[Entrant]:
    """The entrants that are named. Raises BenchError for a name that is not there, or is there twice."""
    names = [entrant.name for entrant in found]
    unknown = sorted(set(only) - {*names, DIRECT})
    if unknown:
        raise BenchError(f"there is no {', '.join(unknown)} to measure here; there are {', '.join(names)}")
    taken = sorted({name for name in names if [DIRECT, *names].count(name) > 1})
    if taken:
        raise BenchError(f"the name {', '.join(taken)} is taken; give the address another one: NAME=URL")
    return [entrant for entrant in found if not only or entrant.name in only]


def step_count(task: Task, chosen: Sequence[Entrant]) -> int:
    """How many steps the progress bar has; one contestant more, the upstream, takes part."""
    total = sum((len(chosen) + 1) * task.options.rounds for name in SHAPES if name in task.modes)
    if "streams" in task.modes:
        total += (sum(entrant.ours for entrant in chosen) + 1) * len(task.options.open_streams)
    if "startup" in task.modes:
        total += 4 * task.options.startup_rounds
    return total


def _measure_shapes(
    task: Task,
    direct: Contestant,
    chosen: Sequence[Entrant],
    load: LoadProcess,
    folder: Path,
    report: Report,
    step: Callable[[str], None],
) -> None:
    wanted = [shape for name, shape in shapes(task.options).items() if name in task.modes]
    if not wanted:
        return
    with ExitStack() as stack:
        contestants = [direct]
        for number, entrant in enumerate(chosen):
            own = folder / f"{number}-rounds"
            own.mkdir()
            contestants.append(stack.enter_context(entrant.start(own)))
        for shape in wanted:
            report.shapes.append(measure_shape(shape, contestants, load, task.options, step))

"""The report of a measurement: as tables for a terminal and as JSON."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator

from msgspec import Struct, field
from rich import box
from rich.table import Table

from modelway._version import __version__
from modelway.bench.contestants import NGINX
from modelway.bench.measure import Options
from modelway.bench.memory import MemoryRow
from modelway.bench.startup import StartupRow
from modelway.bench.stats import Spread
from modelway.bench.summary import Row, ShapeReport


class Machine(Struct, frozen=True, kw_only=True):
    """Where it was measured. `load` is the number of runnable tasks before the measurement began."""

    system: str
    cpus: int
    python: str
    modelway: str
    nginx: str
    load: float


class Report(Struct, kw_only=True):
    """Everything that was measured."""

    version: int = 1
    machine: Machine
    options: Options
    shapes: list[ShapeReport] = field(default_factory=list)
    memory: list[MemoryRow] = field(default_factory=list)
    startup: list[StartupRow] = field(default_factory=list)

    @property
    def doubts(self) -> list[str]:
        """What a reader should know before believing the figures."""
        found = [doubt for shape in self.shapes for doubt in shape.doubts]
        if self.machine.load > self.machine.cpus / 4:
            found.insert(0, f"the machine was not idle before the measurement: load {self.machine.load:.2f}")
        if self.options.rounds < 3:
            found.append("fewer than three rounds: the figures only show that everything runs")
        found += [
            f"{row.streams} streams through {row.contestant}: {sum(row.errors.values())} failed"
            for row in self.memory
            if row.errors
        ]
        return found


def this_machine() -> Machine:
    """Describe the machine, without its name."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpus=_usable_cpus(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        modelway=__version__,
        nginx=_nginx_version(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
    )


def tables(report: Report) -> Iterator[Table]:
    """One table for each kind of measurement."""
    for shape in report.shapes:
        yield _shape_table(shape, report.options)
    if report.memory:
        yield _memory_table(report.memory)
    if report.startup:
        yield _startup_table(report.startup)


def _shape_table(shape: ShapeReport, options: Options) -> Table:
    whole = shape.unit == "request"
    title = {
        "json": f"json: a 1 KB answer, {options.connections} connections",
        "sse50": f"sse50: a stream of 50 events at once, {options.connections} connections",
        "paced": f"paced: an event every {options.interval_ms} ms, {options.streams} streams",
    }
    columns = [f"CPU µs/ {shape.unit}", "× upstream", "× nginx", "±"]
    columns += [f"× nginx at {options.rate:.0f}/s", "requests /s"] if whole else []
    columns += [] if shape.shape == "json" else ["events /s"]
    columns += ["added p50 ms", "added p99 ms"] if whole else []
    columns += [] if shape.shape == "json" else ["first event ms", "added ms"]
    columns += [] if whole else ["gap p99 ms", "event added p50 ms", "p99 ms"]
    table = new_table(title.get(shape.shape, shape.shape), [*columns, "failed"])
    for row in shape.rows:
        table.add_row(row.contestant, *_shape_cells(row, shape), str(sum(row.errors.values())))
    return table


def _shape_cells(row: Row, shape: ShapeReport) -> Iterator[str]:
    whole, stream = shape.unit == "request", shape.shape != "json"
    yield median(row.cpu_us, 1)
    yield median(row.cpu_vs_upstream, 2)
    yield median(row.cpu_vs_nginx, 2)
    yield _half_range(
        row.cpu_vs_upstream if row.contestant == NGINX else row.cpu_vs_nginx or row.cpu_vs_upstream
    )
    if whole:
        yield median(row.cpu_vs_nginx_at_rate, 2)
        yield median(row.requests_per_s, 0)
    if stream:
        yield median(row.chunks_per_s, 0)
    if whole:
        yield median(row.added_p50, 3)
        yield median(row.added_p99, 3)
    if stream:
        yield median(row.first_chunk, 3)
        yield median(row.added_first_chunk, 3)
    if not whole:
        yield median(row.gap_p99, 1)
        yield median(row.added_event_p50, 3)
        yield median(row.added_event_p99, 3)


def _memory_table(rows: list[MemoryRow]) -> Table:
    columns = ["streams", "idle MB", "open MB", "KB/stream", "events", "of", "gap p99 ms", "failed"]
    table = new_table("streams: resident memory with streams open", columns)
    for row in rows:
        table.add_row(
            row.contestant,
            str(row.streams),
            f"{row.idle_mb:.1f}",
            f"{row.open_mb:.1f}",
            f"{row.per_stream_kb:.0f}",
            str(row.delivered),
            str(row.expected),
            "–" if row.gap_p99 is None else f"{row.gap_p99:.1f}",
            str(sum(row.errors.values())),
        )
    return table


def _startup_table(rows: list[StartupRow]) -> Table:
    table = new_table("startup, beside python -c pass", ["CPU ×", "±", "CPU ms", "wall ×", "±", "wall ms"])
    for row in rows:
        table.add_row(
            row.what,
            median(row.cpu_ratio, 2),
            _half_range(row.cpu_ratio),
            median(row.cpu_ms, 0),
            median(row.wall_ratio, 2),
            _half_range(row.wall_ratio),
            median(row.wall_ms, 0),
        )
    return table


def new_table(title: str, columns: list[str]) -> Table:
    """A table whose first column names the row."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def median(value: Spread | None, digits: int) -> str:
    """The median as text; a dash where there is none."""
    return "–" if value is None else f"{value.median:,.{digits}f}"


def _half_range(value: Spread | None) -> str:
    """Half of the range over the rounds, as a share of the median."""
    if value is None or not value.median:
        return "–"
    return f"{(value.high - value.low) / 2 / value.median:.0%}"


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _nginx_version() -> str:
    if not shutil.which("nginx"):
        return ""
    done = subprocess.run(["nginx", "-v"], check=False, capture_output=True, text=True, timeout=10)  # noqa: S607
    return done.stderr.strip().rpartition("/")[2]

"""Draws a report; needs matplotlib, which is an extra."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from modelway.bench.processes import BenchError
from modelway.bench.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")


class Panel(Struct, frozen=True):
    """One bar chart: a title with the unit, and a named bar for each contestant."""

    title: str
    names: list[str]
    values: list[float]


def check_plot(path: Path, find: Callable[[str], ModuleSpec | None] = importlib.util.find_spec) -> None:
    """Raise BenchError, before anything is measured, where the plot could not be drawn."""
    if path.suffix.lower() not in FORMATS:
        raise BenchError(f"a plot ends in {' or '.join(FORMATS)}, not in {path.suffix or 'nothing'}")
    if find("matplotlib") is None:
        raise BenchError('a plot needs matplotlib: pip install "modelway[bench]"')


def panels(report: Report) -> list[Panel]:
    """What is drawn: CPU first, as it is the steadiest figure."""
    found = []
    for shape in report.shapes:
        rows = [row for row in shape.rows if row.cpu_us]
        cpu = [row.cpu_us.median for row in rows if row.cpu_us]
        found.append(Panel(f"{shape.shape}: CPU µs per {shape.unit}", [row.contestant for row in rows], cpu))
        timed = [row for row in shape.rows if row.added_p50]
        added = [row.added_p50.median for row in timed if row.added_p50]
        found.append(Panel(f"{shape.shape}: added p50, ms", [row.contestant for row in timed], added))
    memory = [f"{row.contestant}, {row.streams}" for row in report.memory]
    found.append(Panel("KB per open stream", memory, [row.per_stream_kb for row in report.memory]))
    starts = [(row.what, row.wall_ms.median) for row in report.startup if row.wall_ms]
    found.append(Panel("start, ms", [what for what, _ in starts], [wall for _, wall in starts]))
    return [panel for panel in found if panel.values]


def draw(report: Report, path: Path) -> None:
    """Write the plot as PNG or SVG, by the ending of the path."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    drawn = panels(report)
    columns = min(2, max(1, len(drawn)))
    lines = max(1, -(-len(drawn) // columns))
    figure = Figure(figsize=(6.5 * columns, 2.6 * lines), layout="constrained")
    for place, panel in enumerate(drawn):
        _bars(figure.add_subplot(lines, columns, place + 1), panel)
    figure.savefig(path)


def short(value: float) -> str:
    """A figure with three digits, and no powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _bars(axes: Axes, panel: Panel) -> None:
    places: Sequence[int] = range(len(panel.names))
    bars = axes.barh(places, panel.values)
    axes.bar_label(bars, fmt=short, padding=3)
    axes.set_yticks(places, panel.names)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_title(panel.title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)

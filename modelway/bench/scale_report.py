"""What `modelway bench scale` shows: tables for a terminal, and a plot of costs against sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil, floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct
from rich.table import Table

from modelway.bench.report import median, new_table
from modelway.bench.scale import ScaleReport, ServerRow, StreamRow
from modelway.bench.stats import Spread
from modelway.bench.turns import TurnRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RowT = TypeVar("RowT", StreamRow, TurnRow)


class Curve(Struct, frozen=True):
    """One line of a chart."""

    name: str
    sizes: list[int]
    costs: list[float]


class Chart(Struct, frozen=True):
    """Curves over the same sizes."""

    title: str
    size: str
    curves: list[Curve]


def scale_tables(report: ScaleReport) -> Iterator[Table]:
    """One table for each kind of size."""
    if report.streams:
        yield _stream_table(report.streams)
    if report.servers:
        yield _server_table(report.servers)
    if report.turns:
        yield _turn_table(report.turns)


def _stream_table(rows: Sequence[StreamRow]) -> Table:
    columns = ["streams", "every ms", "CPU µs/ event", "KB/stream", "event p50 ms", "p99 ms"]
    table = new_table("open streams, about 5,000 events/s in all", [*columns, "events", "of", "failed"])
    for row in rows:
        table.add_row(
            row.contestant,
            f"{row.streams:,}",
            str(row.interval_ms),
            _number(row.cpu_us, 1),
            _number(row.per_stream_kb, 0),
            _number(row.age_p50, 2),
            _number(row.age_p99, 1),
            f"{row.delivered:,}",
            f"{row.expected:,}",
            str(sum(row.errors.values())),
        )
    return table


def _server_table(rows: Sequence[ServerRow]) -> Table:
    table = new_table(
        "servers on one store, stored answers of 1 KB", ["requests /s", "CPU µs/ request", "failed"]
    )
    for row in rows:
        table.add_row(str(row.servers), median(row.requests_per_s, 0), median(row.cpu_us, 0), str(row.errors))
    return table


def _turn_table(rows: Sequence[TurnRow]) -> Table:
    table = new_table("a turn of a long conversation", ["turns", "KB sent", "CPU ms/ turn", "ms/ turn"])
    for row in rows:
        cpu = None if row.cpu_us is None else f"{row.cpu_us.median / 1000:,.2f}"
        table.add_row(row.way, f"{row.turns:,}", f"{row.body_kb:,.1f}", cpu or "–", median(row.wall_ms, 2))
    return table


def charts(report: ScaleReport) -> list[Chart]:
    """What is drawn."""
    servers = Curve(
        "modelway-stored",
        [row.servers for row in report.servers if row.cpu_us],
        [row.cpu_us.median for row in report.servers if row.cpu_us],
    )
    found = [
        Chart("CPU µs per event", "open streams", _curves(report.streams, _name, _streams, _cpu)),
        Chart("KB per stream", "open streams", _curves(report.streams, _name, _streams, _memory)),
        Chart("event on its way, p99 ms", "open streams", _curves(report.streams, _name, _streams, _age)),
        Chart("CPU ms per turn", "turns so far", _curves(report.turns, _way, _turns, _turn_cpu)),
        Chart("CPU µs per request", "servers on one store", [servers]),
    ]
    return [chart for chart in found if any(len(curve.sizes) > 1 for curve in chart.curves)]


def draw_scale(report: ScaleReport, path: Path) -> None:
    """Write the plot as PNG or SVG, by the ending of the path."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    drawn = charts(report)
    lines = max(1, -(-len(drawn) // 2))
    figure = Figure(figsize=(13, 3.2 * lines), layout="constrained")
    for place, chart in enumerate(drawn):
        _lines(figure.add_subplot(lines, 2, place + 1), chart)
    figure.savefig(path)


def _lines(axes: Axes, chart: Chart) -> None:
    for curve in chart.curves:
        axes.plot(curve.sizes, curve.costs, marker="o", label=curve.name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = sorted({size for curve in chart.curves for size in curve.sizes})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    marks = round_numbers([cost for curve in chart.curves for cost in curve.costs])
    axes.set_yticks(marks, [f"{mark:,g}" for mark in marks])
    axes.set_ylim(marks[0], marks[-1])
    axes.minorticks_off()
    axes.set_xlabel(chart.size)
    axes.set_title(chart.title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def round_numbers(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times the powers of ten, from the last one below all values to the first one above them."""
    first, last = floor(log10(min(values))), ceil(log10(max(values)))
    steps = [step * 10.0**power for power in range(first - 1, last + 1) for step in (1, 2, 5)]
    begin = max(number for number, step in enumerate(steps) if step < min(values))
    end = min(number for number, step in enumerate(steps) if step > max(values))
    return steps[begin : end + 1]


def _curves(
    rows: Sequence[RowT],
    name: Callable[[RowT], str],
    size: Callable[[RowT], int],
    cost: Callable[[RowT], float | None],
) -> list[Curve]:
    """A curve for each name, of the rows whose cost is known and above nought."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if value := cost(row):
            points.setdefault(name(row), []).append((size(row), value))
    return [Curve(label, [x for x, _ in own], [y for _, y in own]) for label, own in points.items()]


def _name(row: StreamRow) -> str:
    return row.contestant


def _streams(row: StreamRow) -> int:
    return row.streams


def _cpu(row: StreamRow) -> float | None:
    return row.cpu_us


def _memory(row: StreamRow) -> float | None:
    return row.per_stream_kb


def _age(row: StreamRow) -> float | None:
    return row.age_p99


def _way(row: TurnRow) -> str:
    return row.way


def _turns(row: TurnRow) -> int:
    return row.turns


def _turn_cpu(row: TurnRow) -> float | None:
    return _thousandth(row.cpu_us)


def _thousandth(value: Spread | None) -> float | None:
    return None if value is None else value.median / 1000


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"

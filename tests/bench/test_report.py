"""Rounds become rows, rows become tables, JSON and a plot."""

import json
from importlib.machinery import ModuleSpec
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from modelway.bench.load import LoadResult
from modelway.bench.measure import Options, paced_events, shapes
from modelway.bench.memory import MemoryRow
from modelway.bench.plot import check_plot, draw, panels, short
from modelway.bench.processes import BenchError
from modelway.bench.report import Report, tables, this_machine
from modelway.bench.showing import keep
from modelway.bench.startup import NOTHING, Start, startup_row
from modelway.bench.stats import Percentiles, Spread
from modelway.bench.summary import Sample, Shape, ShapeReport, doubts, row

JSON, SSE, PACED = shapes(Options()).values()


def sample(cpu_us: float, p50: float, *, requests: int = 1000, failed: int = 0) -> Sample:
    result = LoadResult(
        requests=requests,
        errors={"cut": failed} if failed else {},
        chunks=requests * 50,
        elapsed_s=2.0,
        cpu_s=0.5,
        latency=Percentiles(requests, p50, p50, p50 * 3, p50 * 9),
        first_chunk=Percentiles(requests, p50, p50, p50, p50),
        gap=Percentiles(requests, 20.0, 20.0, 21.0, 25.0),
    )
    return Sample(result, result, cpu_us, cpu_us * 2, 0.3)


def around(value: Spread | None, median: float, low: float, high: float) -> bool:
    return value is not None and [value.median, value.low, value.high] == pytest.approx([median, low, high])


def samples() -> dict[str, list[Sample]]:
    return {
        "direct": [sample(10, 0.2, requests=5000), sample(12, 0.3, requests=5000)],
        "nginx": [sample(20, 0.25), sample(24, 0.4)],
        "modelway": [sample(50, 0.5), sample(60, 0.7)],
    }


def shape_report(shape: Shape) -> ShapeReport:
    taken = samples()
    return ShapeReport(shape.name, shape.unit, [row(name, shape, taken) for name in taken], [])


def whole_report() -> Report:
    memory = MemoryRow(
        contestant="modelway",
        streams=100,
        idle_mb=50,
        open_mb=54,
        per_stream_kb=40,
        delivered=990,
        expected=1000,
        errors={"cut": 1},
        gap_p99=None,
    )
    nothing = [Start(0.01, 0.02), Start(None, 0.03)]
    return Report(
        machine=this_machine(),
        options=Options(),
        shapes=[shape_report(JSON), shape_report(SSE), shape_report(PACED)],
        memory=[memory],
        startup=[startup_row(NOTHING, nothing, nothing)],
    )


def test_ratios_and_additions_are_against_the_same_round() -> None:
    own = row("modelway", JSON, samples())
    assert own.requests == 2000
    assert own.cpu_us == Spread(55, 50, 60)
    assert own.cpu_vs_upstream == Spread(5, 5, 5)
    assert own.cpu_vs_nginx == Spread(2.5, 2.5, 2.5)
    assert own.requests_per_s == Spread(500, 500, 500)
    assert around(own.added_p50, 0.35, 0.3, 0.4)
    assert own.chunks_per_s is None


def test_without_nginx_its_columns_are_empty() -> None:
    taken = samples()
    del taken["nginx"]
    assert row("modelway", SSE, taken).cpu_vs_nginx is None
    assert row("modelway", SSE, taken).chunks_per_s == Spread(25000, 25000, 25000)


def test_a_paced_row_tells_gaps_and_no_length_of_the_stream() -> None:
    own = row("modelway", PACED, samples())
    assert own.gap_p99 == Spread(21, 21, 21)
    assert own.p50 is None
    assert own.requests_per_s is None


def test_failures_are_counted_from_both_loops_and_void_the_figures() -> None:
    taken = samples()
    taken["modelway"][0] = sample(50, 0.5, failed=3)
    assert row("modelway", JSON, taken).errors == {"cut": 6}
    assert any("6 answers through modelway failed" in doubt for doubt in doubts(JSON, taken))


def test_an_upstream_that_is_hardly_faster_than_the_gateway_is_a_doubt() -> None:
    taken = samples()
    assert doubts(JSON, taken) == []
    taken["nginx"] = [sample(20, 0.25, requests=4000), sample(24, 0.4, requests=4000)]
    assert len(doubts(JSON, taken)) == 1
    assert "only 1.2 times as fast as nginx" in doubts(JSON, taken)[0]


def test_a_load_generator_at_its_limit_is_a_doubt() -> None:
    taken = samples()
    busy = msgspec.structs.replace(taken["modelway"][0].busy, cpu_s=1.99)
    taken["modelway"][0] = msgspec.structs.replace(taken["modelway"][0], busy=busy)
    for shape in (JSON, PACED):
        assert ["used a whole core beside modelway" in doubt for doubt in doubts(shape, taken)] == [True]


def test_failed_streams_and_few_rounds_are_doubts() -> None:
    report = whole_report()
    report.options = Options(rounds=2)
    assert "100 streams through modelway: 1 failed" in report.doubts
    assert any("fewer than three rounds" in doubt for doubt in report.doubts)


def test_startup_ratios_leave_out_what_the_system_does_not_tell() -> None:
    own = startup_row("x", [Start(0.03, 0.06), Start(0.5, 0.09)], [Start(0.01, 0.02), Start(None, 0.03)])
    assert around(own.cpu_ratio, 3, 3, 3)
    assert around(own.wall_ratio, 3, 3, 3)
    assert own.wall_ms is not None
    assert own.wall_ms.median == pytest.approx(75)


def test_every_row_is_in_the_tables() -> None:
    console = Console(width=140)
    with console.capture() as capture:
        for table in tables(whole_report()):
            console.print(table)
    text = capture.get()
    for expected in ("json: a 1 KB answer", "sse50", "paced", "nginx", "modelway", NOTHING, "2.50", "990"):
        assert expected in text


def test_the_json_file_reads_back_as_the_same_report(tmp_path: Path) -> None:
    report = whole_report()
    keep(report, tmp_path / "figures.json")
    raw = (tmp_path / "figures.json").read_bytes()
    assert msgspec.json.decode(raw, type=Report) == report
    assert json.loads(raw)["shapes"][0]["rows"][2]["cpu_vs_nginx"]["median"] == 2.5


def test_a_plot_is_drawn_as_png_and_svg(tmp_path: Path) -> None:
    draw(whole_report(), tmp_path / "a.png")
    draw(whole_report(), tmp_path / "a.svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


def test_a_report_without_figures_has_no_panels() -> None:
    assert panels(Report(machine=this_machine(), options=Options())) == []


def test_a_figure_in_a_plot_has_no_power_of_ten() -> None:
    assert [short(value) for value in (1311.7, 123.4, 22.34, 0.874, 0.0)] == [
        "1,312",
        "123",
        "22.3",
        "0.874",
        "0",
    ]


def test_a_plot_without_matplotlib_names_the_extra() -> None:
    def not_installed(_: str) -> ModuleSpec | None:
        return None

    with pytest.raises(BenchError, match=r'pip install "modelway\[bench\]"'):
        check_plot(Path("a.png"), not_installed)


def test_a_plot_of_another_kind_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(BenchError, match=r"\.png or \.svg, not in \.gif"):
        check_plot(Path("a.gif"))


@pytest.mark.parametrize(
    ("duration_s", "interval_ms", "events"), [(2, 20, 100), (0.25, 20, 12), (0.01, 50, 3)]
)
def test_paced_streams_last_for_the_duration(duration_s: float, interval_ms: int, events: int) -> None:
    assert paced_events(Options(duration_s=duration_s, interval_ms=interval_ms)) == events

"""Costs against sizes: small ones, and what is made of the readings."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelway.bench.cli import app
from modelway.bench.contestants import Contestant
from modelway.bench.gateways import modelway
from modelway.bench.processes import BenchError, exchange
from modelway.bench.report import this_machine
from modelway.bench.scale import Reading, ScaleOptions, ScaleReport, StreamRow, check_files, cpu_per_event
from modelway.bench.scale_report import charts, draw_scale, round_numbers
from modelway.bench.turns import NEW_ONLY, UNSTORED, WAYS, WHOLE, Talk

from .conftest import needs_proc


@needs_proc
@pytest.mark.timeout(240)
def test_everything_is_measured_in_small(tmp_path: Path) -> None:
    figures, image = tmp_path / "figures.json", tmp_path / "figures.svg"
    sizes = ["--streams", "20", "--servers", "2", "--turns", "2,6", "--rounds", "1", "--hold", "2"]
    done = CliRunner().invoke(app, ["scale", *sizes, "--json", str(figures), "--plot", str(image)])
    assert done.exit_code == 0, done.output
    report = json.loads(figures.read_bytes())
    for row in report["streams"]:
        assert (row["errors"], row["delivered"]) == ({}, row["expected"])
        assert row["cpu_us"] > 0
        assert row["age_p50"] > 0
    assert {row["contestant"] for row in report["streams"]} >= {"direct", "modelway", "modelway-stored"}
    (servers,) = report["servers"]
    assert (servers["servers"], servers["errors"]) == (2, 0)
    assert servers["requests_per_s"]["median"] > 0
    assert [(row["way"], row["turns"]) for row in report["turns"]] == [
        (way, n) for way in WAYS for n in (2, 6)
    ]
    assert all(row["cpu_us"]["median"] > 0 for row in report["turns"])
    assert b"<svg" in image.read_bytes()


def test_streams_for_which_files_do_not_suffice_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(BenchError, match="5000 streams need 10100 open files in one process, and 4096 are"):
        check_files(5000, 4096)
    check_files(5000, 20_000)
    check_files(0, 10)


def test_the_cost_of_an_event_leaves_out_what_was_before_and_after() -> None:
    readings = [
        Reading(at, cpu, 0) for at, cpu in [(0.0, 0.0), (5.0, 4.0), (6.0, 4.5), (7.0, 5.0), (9.0, 9.0)]
    ]
    assert cpu_per_event(readings, 4.0, 8.0, 1000) == pytest.approx(500)
    assert cpu_per_event(readings, 4.0, 5.5, 1000) is None
    assert cpu_per_event([Reading(5.0, None, 0), Reading(6.0, None, 0)], 4.0, 8.0, 1000) is None


def test_a_caller_sends_only_what_its_way_is_and_the_gateway_knows_the_rest(
    direct: Contestant, tmp_path: Path
) -> None:
    folder = tmp_path / "modelway"
    folder.mkdir()
    sizes: dict[str, list[int]] = {}
    with modelway(folder, direct.port, stored=False) as contestant:
        for number, way in enumerate(WAYS):
            talk = Talk(contestant, f"talk-{number}", 5, way)
            talk.begin()
            sizes[way] = [talk.body_bytes]
            for _ in range(2):
                talk.turn()
                sizes[way].append(talk.body_bytes)
            talk.close()
        stored = [
            exchange(
                contestant.port,
                f"GET /v1/conversations/talk-{number} HTTP/1.1\r\nhost: localhost\r\n"
                "connection: close\r\n\r\n".encode(),
            )
            for number in range(3)
        ]
    assert sizes[NEW_ONLY][1] == sizes[NEW_ONLY][2] < sizes[NEW_ONLY][0]
    assert sizes[WHOLE][0] < sizes[WHOLE][1] < sizes[WHOLE][2]
    assert sizes[UNSTORED][2] < sizes[WHOLE][2]
    # Four turns that it brought, and three of the gateway's own; each with an answer.
    kept = [json.loads(page.partition(b"\r\n\r\n")[2]).get("messages") for page in stored]
    assert [len(messages or ()) for messages in kept] == [14, 14, 0]
    assert b" 404 " in stored[2].partition(b"\r\n")[0]


def test_a_chart_has_a_curve_for_each_contestant_and_needs_two_sizes(tmp_path: Path) -> None:
    def row(streams: int, cpu_us: float | None) -> StreamRow:
        return StreamRow(
            contestant="modelway",
            streams=streams,
            interval_ms=20,
            cpu_us=cpu_us,
            per_stream_kb=40.0,
            age_p50=0.1,
            age_p99=None,
            delivered=1,
            expected=1,
            errors={},
            busiest=0.3 if streams == 100 else 0.97,
        )

    report = ScaleReport(machine=this_machine(), options=ScaleOptions(), streams=[row(100, 9), row(1000, 10)])
    drawn = charts(report)
    assert [(chart.title, chart.curves[0].sizes, chart.curves[0].costs) for chart in drawn] == [
        ("CPU µs per event", [100, 1000], [9, 10]),
        ("KB per stream", [100, 1000], [40, 40]),
    ]
    draw_scale(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [doubt.count("1000 streams") for doubt in report.doubts if "a whole core" in doubt] == [1]
    report.streams = [row(100, 9)]
    assert charts(report) == []


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ([1290.0, 1340.0], [1000, 2000]),
        ([0.58, 15.9], [0.5, 1, 2, 5, 10, 20]),
        ([10.0], [5, 10, 20]),
        ([1.0, 100.0], [0.5, 1, 2, 5, 10, 20, 50, 100, 200]),
    ],
)
def test_costs_are_drawn_between_round_numbers(values: list[float], marks: list[float]) -> None:
    assert round_numbers(values) == pytest.approx(marks)

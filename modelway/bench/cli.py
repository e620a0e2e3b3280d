"""The command `modelway bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from modelway.bench import failover, faults, loop, plot, report, run, upstream, worlds
from modelway.bench import faulty as faulty_upstream
from modelway.bench.cli_local import measure_local
from modelway.bench.cli_scale import measure_scale
from modelway.bench.gateways import Others
from modelway.bench.measure import Options
from modelway.bench.processes import BenchError
from modelway.bench.showing import fail, keep, measured, numbers, show, wide_console

app = typer.Typer(
    help="Measure what Modelway costs: beside others, with growing sizes, and before the embedded model.",
    no_args_is_help=True,
)


@app.command()
def compare(
    mode: Annotated[str, typer.Option(help="What to measure, separated by commas.")] = ",".join(run.MODES),
    quick: Annotated[bool, typer.Option(help="Only show that everything runs (below 15 s).")] = False,
    duration: Annotated[float | None, typer.Option(min=0.05, max=60, help="Seconds for one load.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=50, help="Rounds; medians are of these.")] = None,
    connections: Annotated[int | None, typer.Option(min=1, max=1000, help="Connections kept busy.")] = None,
    rate: Annotated[float | None, typer.Option(min=1, max=20000, help="Requests/s of the open loop.")] = None,
    streams: Annotated[int | None, typer.Option(min=1, max=5000, help="Streams of the mode paced.")] = None,
    open_streams: Annotated[str | None, typer.Option(help="Numbers of streams of the mode streams.")] = None,
    only: Annotated[str, typer.Option(help="Contestants beside the upstream, separated by commas.")] = "",
    address: Annotated[
        list[str] | None, typer.Option(help="Also measure the gateway at this URL, or NAME=URL.")
    ] = None,
    address_model: Annotated[str, typer.Option(help="The model to ask it for.")] = upstream.MODEL,
    address_header: Annotated[
        list[str] | None, typer.Option(help="A header that it needs, as 'x-name: value'.")
    ] = None,
    upstream_port: Annotated[int, typer.Option(help="Port of the upstream, for such a gateway.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
    image: Annotated[Path | None, typer.Option("--plot", help="Draw to this .png or .svg file.")] = None,
) -> None:
    """Measure Modelway beside the upstream that it asks, and nginx, HAProxy and Envoy where they are."""
    changes = {
        "duration_s": duration,
        "rounds": rounds,
        "connections": connections,
        "rate": rate,
        "streams": streams,
        "open_streams": None if open_streams is None else numbers(open_streams, "--open-streams", 5000),
    }
    task = run.Task(
        modes=_modes(mode),
        options=_options(quick=quick, **changes),
        only=_words(only),
        others=Others(
            addresses=tuple(address or ()), model=address_model, headers=tuple(address_header or ())
        ),
        upstream_port=upstream_port,
    )
    _measure_and_show(task, json, image)


app.command("scale")(measure_scale)
app.command("local")(measure_local)


@app.command()
def startup(
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Starts of each kind.")] = 7,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
) -> None:
    """Measure only how fast Modelway starts, beside an interpreter that does nothing."""
    _measure_and_show(run.Task(modes=("startup",), options=Options(startup_rounds=rounds)), json, None)


@app.command("upstream")
def serve_upstream(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any free one.")] = 8400,
    faulty: Annotated[bool, typer.Option("--faulty", help="Fail as the address says.")] = False,
) -> None:
    """Run only the upstream, to point another gateway at; or one that fails on demand."""
    if faulty:
        _serve_faulty(port)
        return

    def announce(bound: int) -> None:
        sys.stderr.write(
            f"upstream on http://127.0.0.1:{bound}/v1, model {upstream.MODEL}; ends with Ctrl-C\n"
        )

    try:
        loop.run(upstream.serve(port, announce))
    except OSError as exc:
        fail(f"port {port} cannot be used: {exc.strerror}")


@app.command("failover")
def show_failover(
    json: Annotated[Path | None, typer.Option(help="Write all verdicts to this file.")] = None,
) -> None:
    """Let an upstream fail in sixteen ways, and show whether Modelway keeps its promise in each."""
    verdicts: list[failover.Verdict] = []
    console = Console(stderr=True)
    try:
        with TemporaryDirectory() as folder, console.status("starting") as status:

            def each(verdict: failover.Verdict) -> None:
                verdicts.append(verdict)
                status.update(f"{verdict.case}, {verdict.way}")

            loop.run(failover.run(Path(folder), each))
    except BenchError as exc:
        fail(str(exc))
    keep(verdicts, json)
    kept = _show_verdicts(verdicts)
    if kept < len(failover.CASES):
        raise typer.Exit(1)


def _show_verdicts(verdicts: list[failover.Verdict]) -> int:
    """Print the table; in how many cases every promise was kept."""
    table = Table(
        "fault", "streamed", "whole", "continued", "what was seen instead", box=None, pad_edge=False
    )
    kept = 0
    for case in failover.CASES:
        own = {verdict.way: verdict for verdict in verdicts if verdict.case == case.name}
        broken = [verdict.what for verdict in own.values() if not verdict.kept]
        kept += not broken
        cells = [_cell(own.get(way)) for way in ("streamed", "whole", "continued")]
        table.add_row(case.name, *cells, "; ".join(broken))
    console = Console()
    console.print(table)
    console.print(f"{kept} of {len(failover.CASES)}", highlight=False)
    return kept


def _cell(verdict: failover.Verdict | None) -> str:
    if verdict is None:
        return ""
    return f"{'kept' if verdict.kept else 'BROKEN'}, {verdict.ms:.0f} ms"


@app.command("simulate")
def run_simulation(
    seeds: Annotated[int, typer.Option(min=1, help="How many worlds.")] = 200,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(min=0, max=64, help="Processes; 0: one for each core.")] = 0,
    trace: Annotated[bool, typer.Option("--trace", help="Print what happens, for a single seed.")] = False,
) -> None:
    """Simulate failing upstreams and impatient callers; a seed that breaks a promise can be played again."""
    if trace:
        seeds = jobs = 1
    console = Console(stderr=True)
    with Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("", total=seeds)
        outcome = worlds.run(first, seeds, jobs, lambda done: progress.advance(bar, done))
    for line in outcome.trace if trace else ():
        typer.echo(line)
    for failure in outcome.failures:
        typer.echo(failure, err=True)
    typer.echo(f"{seeds - len(outcome.failures)} of {seeds} worlds kept every promise")
    if outcome.failures:
        seed = outcome.failures[0].removeprefix("seed ").partition(":")[0]
        fail(f"`modelway bench simulate --first {seed} --trace` plays the first one again")


def _serve_faulty(port: int) -> None:
    def announce(served: faulty_upstream.FaultyUpstream) -> None:
        lines = [
            f"http://127.0.0.1:{served.port}/FAULT/v1 fails as FAULT says; ends with Ctrl-C",
            *(_line(fault) for fault in faults.FAULTS.values()),
            f"connections to {served.refused_url} are refused; /heard tells what came",
        ]
        sys.stderr.write("\n".join(lines) + "\n")

    try:
        loop.run(faulty_upstream.serve(port, announce))
    except OSError as exc:
        fail(f"port {port} cannot be used: {exc.strerror}")


def _line(fault: faults.Fault) -> str:
    return f"  {fault.name:<14}{fault.what}" + (f"; takes {fault.takes}" if fault.takes else "")


def _measure_and_show(task: run.Task, json: Path | None, image: Path | None) -> None:
    figures = measured(lambda step: run.measure(task, step), image)
    keep(figures, json)
    if image:
        plot.draw(figures, image)
    machine = figures.machine
    nginx = f", nginx {machine.nginx}" if machine.nginx else "; no nginx on PATH, so no column for it"
    wide_console().print(
        f"Modelway {machine.modelway}, {machine.python}, {machine.system}, {machine.cpus} CPUs{nginx}"
    )
    show(report.tables(figures), figures.doubts)


def _options(*, quick: bool, **changes: object) -> Options:
    given = {name: value for name, value in changes.items() if value is not None}
    return msgspec.structs.replace(run.QUICK if quick else Options(), **given)


def _modes(text: str) -> tuple[str, ...]:
    modes = _words(text)
    for mode in modes:
        if mode not in run.MODES:
            raise typer.BadParameter(f"no mode {mode}; there are {', '.join(run.MODES)}", param_hint="--mode")
    return modes


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())

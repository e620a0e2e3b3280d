"""The command `modelway bench scale`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from modelway.bench import plot, scale, scale_report
from modelway.bench.processes import BenchError
from modelway.bench.showing import fail, numbers, wide_console, with_bar

_MOST = 20_000


def measure_scale(
    streams: Annotated[str, typer.Option(help="Numbers of open streams, or none.")] = "100,1000,5000",
    servers: Annotated[str, typer.Option(help="Numbers of servers on one store, or none.")] = "1,2",
    turns: Annotated[str, typer.Option(help="Lengths of conversations, or none.")] = "10,100,1000",
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Rounds; medians are of these.")] = 3,
    hold: Annotated[float, typer.Option(min=1, max=60, help="Seconds for which all streams are open.")] = 4,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
    image: Annotated[Path | None, typer.Option("--plot", help="Draw to this .png or .svg file.")] = None,
) -> None:
    """Measure how costs grow with open streams, with servers, and with the length of a conversation."""
    options = scale.ScaleOptions(
        streams=numbers(streams, "--streams", _MOST),
        servers=numbers(servers, "--servers", 64),
        turns=numbers(turns, "--turns", _MOST),
        rounds=rounds,
        hold_s=hold,
    )
    try:
        if image:
            plot.check_plot(image)
        measured = with_bar(lambda step: scale.measure_scale(options, step))
    except BenchError as exc:
        fail(str(exc))
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=2) + b"\n")
    if image:
        scale_report.draw_scale(measured, image)
    console = wide_console()
    for table in scale_report.scale_tables(measured):
        console.print(table)
    for doubt in measured.doubts:
        console.print(f"doubtful: {doubt}", style="yellow", highlight=False)

"""The command `modelway bench scale`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelway.bench import scale, scale_report
from modelway.bench.showing import keep, measured, numbers, show

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
    figures = measured(lambda step: scale.measure_scale(options, step), image)
    keep(figures, json)
    if image:
        scale_report.draw_scale(figures, image)
    show(scale_report.scale_tables(figures), figures.doubts)

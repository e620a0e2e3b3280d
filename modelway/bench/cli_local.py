"""The command `modelway bench local`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelway.bench import local
from modelway.bench.report import median, new_table
from modelway.bench.showing import keep, measured, show


def measure_local(
    model: Annotated[str, typer.Option(help="A model that is here, or the path of a GGUF.")] = "smollm2",
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Rounds; medians are of these.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
) -> None:
    """Measure the embedded model through Modelway, beside its engine asked directly."""
    figures = measured(lambda step: local.measure_local(model, rounds, step))
    keep(figures, json)
    table = new_table(
        f"{figures.model}, {rounds} rounds", ["engine", "modelway", "unit", "ratio", "low", "high"]
    )
    for figure in figures.figures:
        ratio = figure.ratio
        bounds = ("–", "–") if ratio is None else (f"{ratio.low:.2f}", f"{ratio.high:.2f}")
        table.add_row(
            figure.what,
            median(figure.engine, 1),
            median(figure.modelway, 1),
            figure.unit,
            median(ratio, 2),
            *bounds,
        )
    show([table])

"""The command `modelway bench local`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from modelway.bench import local
from modelway.bench.processes import BenchError
from modelway.bench.report import median, new_table
from modelway.bench.showing import fail, wide_console, with_bar


def measure_local(
    model: Annotated[str, typer.Option(help="A model that is here, or the path of a GGUF.")] = "smollm2",
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Rounds; medians are of these.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
) -> None:
    """Measure the embedded model through Modelway, beside its engine asked directly."""
    try:
        measured = with_bar(lambda step: local.measure_local(model, rounds, step))
    except BenchError as exc:
        fail(str(exc))
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=2) + b"\n")
    table = new_table(
        f"{measured.model}, {rounds} rounds", ["engine", "modelway", "unit", "ratio", "low", "high"]
    )
    for figure in measured.figures:
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
    wide_console().print(table)

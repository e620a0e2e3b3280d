"""What the commands of the bench share: a bar while they measure, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelway.bench import plot
from modelway.bench.processes import BenchError

T = TypeVar("T")
Step = Callable[[str, int], None]


def measured(measure: Callable[[Step], T], image: Path | None = None) -> T:
    """Measure, and show how far it is; end where that cannot be done, nor the image be drawn afterwards."""
    try:
        if image:
            plot.check_plot(image)
        return _with_bar(measure)
    except BenchError as exc:
        fail(str(exc))


def keep(figures: object, path: Path | None) -> None:
    """Write all figures, if anybody wants them, with the range of each over the rounds."""
    if path:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")


def show(tables: Iterable[Table], doubts: Iterable[str] = ()) -> None:
    """Print tables, and what a reader should know before believing them."""
    console = wide_console()
    for table in tables:
        console.print(table)
    for doubt in doubts:
        console.print(f"doubtful: {doubt}", style="yellow", highlight=False)


def _with_bar(measure: Callable[[Step], T]) -> T:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("starting", total=None)

        def step(what: str, total: int) -> None:
            if progress.tasks[0].total:
                progress.advance(bar)
            progress.update(bar, description=what, total=total)

        return measure(step)


def wide_console() -> Console:
    """The terminal, or paper that is wide enough for a table."""
    console = Console()
    return console if console.is_terminal else Console(width=150)


def numbers(text: str, option: str, most: int) -> tuple[int, ...]:
    """Numbers from 1 on, separated by commas; "none" is none."""
    words = [word.strip() for word in text.split(",") if word.strip() not in ("", "none")]
    if not all(word.isdecimal() and 0 < int(word) <= most for word in words):
        raise typer.BadParameter(f"numbers from 1 to {most}, separated by commas", param_hint=option)
    return tuple(int(word) for word in words)


def fail(message: str) -> NoReturn:
    """End with a message."""
    typer.echo(f"modelway bench: {message}", err=True)
    raise typer.Exit(1)

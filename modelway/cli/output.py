"""What commands write: text and JSON on stdout, everything else on stderr."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

# Text of models and of other people may hold sequences that drive the terminal.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def warn(text: str) -> None:
    """A line for the person, not for the program that reads stdout."""
    typer.echo(harmless(text), err=True)


def say(text: str) -> None:
    """A line of the result."""
    typer.echo(harmless(text) if sys.stdout.isatty() else text)


def say_json(value: object) -> None:
    """One JSON object, and nothing else, on stdout."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def say_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows for people: a table on a terminal, else fields between tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(field.replace("\t", " ").replace("\n", " ") for field in row))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(harmless(field)) for field in row))
    out_console().print(table)


def out_console() -> Console:
    """The terminal, for answers; follows NO_COLOR."""
    from rich.console import Console

    return Console()


def err_console() -> Console:
    """The terminal, for progress; follows NO_COLOR."""
    from rich.console import Console

    return Console(stderr=True)


def harmless(text: str) -> str:
    """The text without control characters, but for line ends and tabs."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def local_time(seconds: float) -> str:
    """Seconds since 1970 as this machine's time."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def size(count: int) -> str:
    """Bytes as people read them."""
    if count < 1_000_000:
        return f"{count / 1_000:.0f} kB"
    return f"{count / 1_000_000:.0f} MB" if count < 1_000_000_000 else f"{count / 1_000_000_000:.1f} GB"

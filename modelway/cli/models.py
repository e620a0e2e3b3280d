"""`modelway models`: the embedded models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from modelway.cli.examples import examples
from modelway.cli.output import err_console, say, say_json, say_table, size
from modelway.cli.setup import set_up

app = typer.Typer(help="List, fetch and remove embedded models.", no_args_is_help=True, rich_markup_mode=None)

HUB_OPTION = typer.Option(metavar="URL", help="Fetch from this mirror of the hub instead.")
JSON_OPTION = typer.Option("--json", help="Print one JSON object.")


class ListedModel(Struct, frozen=True, kw_only=True):
    """A line of `modelway models list`. `size` is in bytes; `path` "" where it is not installed."""

    name: str
    label: str = ""
    license: str = ""
    size: int
    installed: bool
    path: str = ""
    default: bool = False


@app.command("list")
@examples("modelway models list")
def list_models(context: typer.Context, as_json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List the models of the catalogue and the ones that were fetched."""
    setup = set_up(context)
    listed = catalogue(setup.directories.data, setup.settings.local.model)
    if as_json:
        say_json({"models": listed})
        return
    say_table(
        ("", "name", "size", "installed", "what it is"),
        (
            (
                "*" if one.default else "",
                one.name,
                size(one.size),
                "yes" if one.installed else "no",
                one.label and f"{one.label} [{one.license}]",
            )
            for one in listed
        ),
    )


@app.command()
@examples("modelway models pull qwen2.5-0.5b")
def pull(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name of `models list`, or org/repo:file.gguf of the hub.")],
    endpoint: Annotated[str, HUB_OPTION] = "",
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Fetch a model; an interrupted download goes on where it stopped."""
    path = pull_with_bar(name, set_up(context).directories.data, endpoint)
    if as_json:
        say_json({"name": name, "path": str(path), "size": path.stat().st_size})
    else:
        say(str(path))


@app.command("rm")
@examples("modelway models rm qwen2.5-0.5b")
def remove_model(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name of `models list`.")],
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Delete a fetched model."""
    from modelway.models import remove

    remove(name, set_up(context).directories.data)
    if as_json:
        say_json({"name": name, "removed": True})


def catalogue(data_dir: Path, default: str) -> list[ListedModel]:
    """All models that have a name: the catalogue, then what else was fetched."""
    from modelway.models import CATALOGUE, installed

    here = {model.name: model for model in installed(data_dir)}
    known = {model.name: model for model in CATALOGUE}
    return [
        ListedModel(
            name=name,
            label=known[name].label if name in known else "",
            license=known[name].license if name in known else "",
            size=here[name].size if name in here else known[name].size,
            installed=name in here,
            path=str(here[name].path) if name in here else "",
            default=name == default.lower(),
        )
        for name in dict.fromkeys((*known, *here))
    ]


def pull_with_bar(name: str, data_dir: Path, endpoint: str = "") -> Path:
    """Fetch a model, with a bar on stderr."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from modelway.models import HUB, pull

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = err_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=None)

        def show(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total or None)

        return pull(name, data_dir, endpoint=endpoint or HUB, progress=show)

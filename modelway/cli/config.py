"""`modelway config`: the settings and where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelway.cli.examples import examples
from modelway.cli.output import say, say_json
from modelway.cli.setup import set_up

app = typer.Typer(
    help="Show the settings, find their files, check a file.", no_args_is_help=True, rich_markup_mode=None
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
@examples("modelway config show --origin")
def show(
    context: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the settings that are in force."""
    from modelway.settings import dotted, shown

    loaded = set_up(context).loaded
    if as_json:
        say_json({"settings": shown(loaded.settings), "origins": loaded.origins})
        return
    for key, value in dotted(shown(loaded.settings)):
        say(f"{key} = {_toml(value)}{f'  # {loaded.origin(key)}' if origin else ''}")


@app.command()
def path(context: typer.Context, as_json: JsonOption = False) -> None:
    """Print where settings, conversations and models are kept."""
    from modelway.settings import Directories, settings_files

    directories = Directories.default()
    user, project = settings_files(directories)
    places = {
        "user file": user,
        "project file": context.obj or project,
        "config": directories.config,
        "data": directories.data,
        "state": directories.state,
        "cache": directories.cache,
    }
    if as_json:
        say_json({name.replace(" ", "_"): str(place) for name, place in places.items()})
        return
    for name, place in places.items():
        say(f"{name + ':':<14}{place}{'' if place.exists() else '  (not there)'}")


@app.command()
@examples("modelway config check modelway.toml")
def check(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Check this file instead of the ones in force.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the settings; exit code 3 and one line where something is wrong."""
    from modelway.settings import check_file

    if file is None:
        set_up(context)
    else:
        check_file(file)
    if as_json:
        say_json({"valid": True})
    else:
        say("the settings are valid")


def _toml(value: object) -> str:
    import tomlkit

    return tomlkit.item(value).as_string() or "{}"

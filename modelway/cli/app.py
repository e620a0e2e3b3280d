"""The list of commands, and the one place where their errors end."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command, get_command_name
from typer.models import CommandInfo

from modelway.cli import chat, config, conversations, doctor, keys, login, models, providers, routes, serve
from modelway.cli.examples import examples
from modelway.cli.exits import ExitCode, complain, exit_code, explain, known_errors
from modelway.cli.output import warn

# Without markup, --help does not load rich, which would take longer than all the rest.
app = typer.Typer(
    name="modelway",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (serve.serve, chat.chat, providers.providers, doctor.doctor):
    app.command()(command)
for account_command in (login.login, login.logout, login.status):
    app.command()(account_command)
for name, group in (
    ("models", models.app),
    ("conversations", conversations.app),
    ("keys", keys.app),
    ("config", config.app),
    ("routes", routes.app),
):
    app.add_typer(group, name=name)


def _print_version(wanted: bool) -> None:
    if wanted:
        from modelway import __version__

        typer.echo(f"modelway {__version__}")
        raise typer.Exit


@app.callback()
@examples(
    "modelway serve                           http://localhost:1337/v1 for every program",
    'modelway chat "Why is the sky blue?"',
    'git diff | modelway chat "Review this"',
)
def root(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read this file instead of ./modelway.toml.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """A local gateway to language models that remembers the conversation."""
    del version
    context.obj = config


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def bench(context: typer.Context) -> None:
    """Measure what Modelway costs on this machine."""
    from modelway.bench.cli import app as bench_app

    raise typer.Exit(run_command(get_command(bench_app), context.args, "modelway bench"))


def run(arguments: Sequence[str]) -> int:
    """Run a command; its exit code. Errors have been told on stderr then."""
    try:
        return run_command(get_command(_part(arguments)), arguments, "modelway")
    except known_errors() as error:
        from modelway.settings import debugging

        if debugging():
            raise
        complain(explain(error))
        return exit_code(error)


def _part(arguments: Sequence[str]) -> typer.Typer:
    """As much of the list as the arguments need: all commands take longer to describe than most to run."""
    word = next((argument for argument in arguments if not argument.startswith("-")), "")
    part = copy(app)
    part.registered_groups = [one for one in app.registered_groups if one.name == word]
    part.registered_commands = [one for one in app.registered_commands if _name(one) == word]
    return part if part.registered_groups or part.registered_commands else app


def _name(command: CommandInfo) -> str:
    return command.name or (get_command_name(command.callback.__name__) if command.callback else "")


def run_command(command: Any, arguments: Sequence[str], name: str) -> int:
    """Run what the arguments name, and tell in two lines where these are wrong."""
    try:
        result = command(list(arguments), prog_name=name, standalone_mode=False)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except typer.TyperException as error:
        _explain_usage(error, name)
        return error.exit_code
    return result if isinstance(result, int) else ExitCode.OK


def _explain_usage(error: typer.TyperException, name: str) -> None:
    message = error.format_message()
    if message.startswith("Usage:"):
        # A group without a command: the message is its help.
        warn(message)
        return
    asked = getattr(error, "ctx", None)
    complain(f"{message}\n  `{asked.command_path if asked else name} --help` tells more")

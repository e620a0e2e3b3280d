"""`modelway conversations`: what the store remembers."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modelway.cli.examples import examples
from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.output import local_time, say, say_json, say_table, warn
from modelway.cli.setup import Setup, set_up
from modelway.cli.store import CALLER, in_store

if TYPE_CHECKING:
    from modelway.conversations import Conversation

app = typer.Typer(
    help="List, show, search, export, fork and delete conversations.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The conversation's id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many at most.")]


@app.command("list")
@examples("modelway conversations list -n 5")
def list_conversations(
    context: typer.Context,
    limit: LimitOption = 20,
    before: Annotated[str, typer.Option(metavar="ID", help="Only those that are older than this one.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List conversations, newest first."""
    found = in_store(set_up(context), lambda store: store.list(CALLER, limit=limit, before=before))
    if as_json:
        say_json({"conversations": found})
    else:
        say_table(
            ("id", "changed", "title"),
            ((one.conversation_id, local_time(one.updated_at), one.title) for one in found),
        )


@app.command()
def show(context: typer.Context, id: IdArgument, as_json: JsonOption = False) -> None:
    """Show a conversation: its current branch, or with --json everything."""
    from modelway.conversations import export_markdown

    found = _load(set_up(context), id)
    if as_json:
        say_json(found)
    else:
        say(export_markdown(found).rstrip("\n"))


@app.command()
@examples("modelway conversations search blue sky")
def search(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(help="Words that a message must hold, all of them.")],
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """Find messages, newest first."""
    text = " ".join(words)
    found = in_store(set_up(context), lambda store: store.search(CALLER, text, limit=limit))
    if as_json:
        say_json({"matches": found})
    else:
        say_table(
            ("id", "when", "who", "text"),
            ((one.conversation_id, local_time(one.created_at), one.role, one.snippet) for one in found),
        )


@app.command()
@examples("modelway conversations export ID -o talk.md")
def export(
    context: typer.Context,
    id: IdArgument,
    format: Annotated[Literal["json", "md"], typer.Option("--format", "-f", help="json is complete.")] = "md",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file; - is stdout.")
    ] = None,
) -> None:
    """Write a conversation down, as Markdown or as JSON."""
    from modelway.conversations import export_json, export_markdown

    found = _load(set_up(context), id)
    written = export_json(found) if format == "json" else export_markdown(found).encode()
    if output is None or str(output) == "-":
        say(written.decode().rstrip("\n"))
    else:
        output.write_bytes(written)
        warn(f"written to {output}")


@app.command()
def delete(
    context: typer.Context,
    id: IdArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a conversation for good; forks of it stay whole."""
    setup = set_up(context)
    found = _load(setup, id)
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError("nobody is there to ask", hint="add --yes to delete it", code=ExitCode.USAGE)
        typer.confirm(f"Delete {id} ({len(found.turns)} turns)?", abort=True, err=True)
    in_store(setup, lambda store: store.delete(CALLER, id))
    if as_json:
        say_json({"conversation_id": id, "deleted": True})


@app.command()
def fork(
    context: typer.Context,
    id: IdArgument,
    new_id: Annotated[str, typer.Argument(metavar="NEW_ID", help="The fork's id; else one is made.")] = "",
    at_turn: Annotated[str, typer.Option(metavar="TURN", help="The last turn that the fork keeps.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Begin a second conversation with the history of this one; prints its id."""
    chosen = new_id or "conv_" + secrets.token_hex(12)
    made = in_store(set_up(context), lambda store: store.fork(CALLER, id, chosen, at_turn=at_turn))
    if as_json:
        say_json(made)
    else:
        say(made.conversation_id)


def _load(setup: Setup, id: str) -> Conversation:
    return in_store(setup, lambda store: store.show(CALLER, id))

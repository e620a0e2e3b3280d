"""`modelway chat`: one question from the arguments or a pipe, or a conversation at a prompt."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from modelway.cli.examples import examples
from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.output import say_json, warn
from modelway.cli.setup import Setup, set_up


@examples(
    'modelway chat "Why is the sky blue?"',
    'modelway chat -c "And at sunset?"',
    'git diff | modelway chat -p Groq "Review this"',
    "modelway chat",
)
def chat(
    context: typer.Context,
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="What to ask; what is piped in goes before it.")
    ] = None,
    provider: Annotated[str, typer.Option("--provider", "-p", help="Who is asked.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="A model, or Provider/model.")] = "",
    system: Annotated[str, typer.Option("--system", "-s", help="How the model is to behave.")] = "",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="A request field, as temperature=0.2."),
    ] = None,
    continue_last: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the conversation that changed last.")
    ] = False,
    conversation: Annotated[str, typer.Option(metavar="ID", help="Go on with this conversation.")] = "",
    no_store: Annotated[bool, typer.Option("--no-store", "-n", help="Remember nothing.")] = False,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print the answer in one piece.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    extract: Annotated[
        bool, typer.Option("--extract", "-x", help="Print only the first code block of the answer.")
    ] = False,
    usage: Annotated[bool, typer.Option("--usage", "-u", help="Tell the tokens on stderr.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the request, and send nothing.")] = False,
    server: Annotated[str, typer.Option(metavar="URL", help="Ask the server at this address.")] = "",
    no_server: Annotated[
        bool, typer.Option("--no-server", help="Answer in this process, even where a server runs.")
    ] = False,
) -> None:
    """Ask a model; without a question, at a prompt."""
    from modelway.cli.answering import Style, tell
    from modelway.cli.reach import reach

    _refuse_together(
        "--continue", "--conversation", "--no-store", given=(continue_last, conversation, no_store)
    )
    _refuse_together("--server", "--no-server", given=(server, no_server))
    _refuse_together("--json", "--extract", given=(as_json, extract))
    text = _question(question)
    setup = set_up(context)
    reached = reach(setup, server=server, no_server=no_server)
    asked: dict[str, Any] = {"provider": provider, "model": model, "system": system, **_fields(option or [])}
    if continue_last:
        conversation = reached.newest_conversation()
    asked["conversation_id"] = "" if no_store else conversation or "conv_" + secrets.token_hex(12)
    style = Style(
        json=as_json,
        extract=extract,
        usage=usage,
        markdown=sys.stdout.isatty(),
        live=sys.stdout.isatty() and not no_stream,
    )
    if dry_run:
        say_json(_request(reached.url, text, {**asked, "stream": not no_stream}))
        return
    if not reached.url:
        _offer_model(setup, provider, model)
    with reached.client(style.waiting.tell) as client:
        if not text:
            from modelway.cli.prompt import Dialogue, at_terminal

            at_terminal(Dialogue(client, asked, style), setup.directories.state / "chat_history")
            return
        tell(client.chat(text, stream=not no_stream, **asked), style)
    if asked["conversation_id"] and not as_json:
        warn(f"conversation {asked['conversation_id']}")


def _question(question: str | None) -> str:
    """What is asked: what was piped in, then the argument; "" at a terminal without one."""
    piped = "" if sys.stdin.isatty() else sys.stdin.read()
    text = "\n\n".join(part for part in (piped.strip("\n"), question) if part and part.strip())
    if not text and (question is not None or not sys.stdin.isatty()):
        raise CommandError(
            "nothing was asked", hint='write `modelway chat "QUESTION"`, or pipe text in', code=ExitCode.USAGE
        )
    return text


def _fields(options: list[str]) -> dict[str, Any]:
    """Further fields of the request; a value is JSON where it can be, else text."""
    fields: dict[str, Any] = {}
    for option in options:
        key, sign, value = option.partition("=")
        if not sign or not key.isidentifier():
            raise CommandError(
                f"-o {option} cannot be read",
                hint="write -o KEY=VALUE, as -o temperature=0.2",
                code=ExitCode.USAGE,
            )
        if key in ("messages", "stream", "provider", "model", "system", "conversation_id"):
            raise CommandError(
                f"-o cannot set {key}", hint="it has an option of its own", code=ExitCode.USAGE
            )
        try:
            fields[key] = json.loads(value)
        except ValueError:
            fields[key] = value
    return fields


def _refuse_together(*names: str, given: tuple[object, ...]) -> None:
    used = [name for name, value in zip(names, given, strict=True) if value]
    if len(used) > 1:
        raise CommandError(f"{' and '.join(used)} exclude each other", code=ExitCode.USAGE)


def _request(url: str, text: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The request as it would be sent; `url` is null where this process would answer."""
    fields = {key: value for key, value in asked.items() if value != "" and key != "system"}
    system = [{"role": "system", "content": asked["system"]}] if asked["system"] else []
    messages = [*system, {"role": "user", "content": text}]
    return {"url": f"{url}/v1/chat/completions" if url else None, "body": {"messages": messages, **fields}}


def _offer_model(setup: Setup, provider: str, model: str) -> None:
    """Where the embedded model would answer and is not there, offer to fetch it."""
    from modelway.cli.models import pull_with_bar
    from modelway.errors import ProviderNotConfigured
    from modelway.models import CATALOGUE, resolve

    name = setup.settings.local.model
    wanted = (provider or setup.settings.provider).casefold()
    if wanted != "local" or model or not any(known.name == name.lower() for known in CATALOGUE):
        return
    data: Path = setup.directories.data
    try:
        resolve(name, data)
    except ProviderNotConfigured:
        if not sys.stdin.isatty():
            raise
        warn(f"The embedded model {name} is not on this machine yet.")
        if not typer.confirm("Fetch it now?", default=True, err=True):
            raise
        pull_with_bar(name, data)

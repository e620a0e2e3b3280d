"""`modelway providers test`: one short question to a provider, and how long the answer took."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer
from msgspec import Struct

from modelway.cli.answering import Waiting
from modelway.cli.exits import exit_code
from modelway.cli.output import say, say_json
from modelway.cli.reach import reach
from modelway.cli.setup import Setup

if TYPE_CHECKING:
    from modelway.sync_client import Client

QUESTION = "Say hello in one word."


class Trial(Struct, frozen=True, kw_only=True):
    """What `providers test --json` prints. Tokens are 0 where they are not told.

    Times are in seconds since the question was sent, whether it was answered or failed; 0 where it was not.
    """

    provider: str
    model: str = ""
    ok: bool
    first_text_s: float = 0.0
    total_s: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    text: str = ""
    error: str = ""


def test(setup: Setup, name: str, model: str, *, as_json: bool) -> None:
    """Ask the running server where there is one, else in this process; a failure has its exit code."""
    from modelway.errors import GatewayError

    reached = reach(setup, server="", no_server=False)
    waiting = Waiting()
    took = 0.0
    try:
        with reached.client(waiting.tell) as client, waiting.shown():
            started = time.monotonic()
            try:
                trial = _ask(client, name, model, started)
            finally:
                took = _seconds_since(started)
    except GatewayError as error:
        if not as_json:
            raise
        say_json(Trial(provider=name, model=model, ok=False, total_s=took, error=error.explanation))
        raise typer.Exit(exit_code(error)) from error
    if as_json:
        say_json(trial)
    else:
        _tell(trial)


def _ask(client: Client, name: str, model: str, started: float) -> Trial:
    first, pieces = 0.0, []
    with client.chat(QUESTION, provider=name, model=model) as reply:
        for piece in reply:
            first = first or _seconds_since(started)
            pieces.append(piece)
        total, usage = _seconds_since(started), reply.completion.usage
        return Trial(
            provider=reply.provider,
            model=reply.completion.model or reply.model,
            ok=True,
            first_text_s=first,
            total_s=total,
            input_tokens=usage.input_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
            text="".join(pieces),
        )


def _tell(trial: Trial) -> None:
    say(f"{trial.provider}/{trial.model}: {' '.join(trial.text.split())}")
    say(f"  first text after {trial.first_text_s:.2f} s, all after {trial.total_s:.2f} s")
    if trial.input_tokens or trial.output_tokens:
        say(f"  {trial.input_tokens} tokens in, {trial.output_tokens} out")


def _seconds_since(started: float) -> float:
    return round(time.monotonic() - started, 3)

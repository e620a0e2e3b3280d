"""`modelway providers`: who can answer, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelway.cli.examples import examples
from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.output import say, say_json, say_table
from modelway.cli.setup import Setup, set_up

if TYPE_CHECKING:
    from modelway.provider import ProviderInfo


@examples("modelway providers", "modelway providers groq --json", "modelway providers test groq")
def providers(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME | test NAME]", help="Show this one in full, or ask it something."),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="The model to test.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the providers and what they lack; show one; or test one with a short question."""
    setup = set_up(context)
    match words or []:
        case []:
            _list(setup, as_json=as_json)
        case ["test"]:
            raise CommandError(
                "the name of the provider to test is missing",
                hint="`modelway providers test NAME`",
                code=ExitCode.USAGE,
            )
        case [name]:
            _show(setup, name, as_json=as_json)
        case ["test", name]:
            from modelway.cli.trial import test

            test(setup, name, model, as_json=as_json)
        case _:
            raise CommandError("too many names", hint="`modelway providers test NAME`", code=ExitCode.USAGE)


def described(setup: Setup, *, ask: bool = False) -> list[ProviderInfo]:
    """What every provider says of itself, by the settings; with `ask`, the models that upstreams list."""
    import asyncio

    from modelway.offering import Offering
    from modelway.providers.http import HTTPClient
    from modelway.wiring import build_providers

    async def collect() -> list[ProviderInfo]:
        http = HTTPClient(setup.settings.upstream)
        found = build_providers(setup.settings, http, data_dir=setup.directories.data)
        offering = Offering({provider.info.name: provider for provider in found})
        try:
            return await offering.infos() if ask else [provider.info for provider in found]
        finally:
            await offering.aclose()
            for provider in found:
                await provider.aclose()
            await http.aclose()

    return asyncio.run(collect())


def find(known: list[ProviderInfo], name: str) -> ProviderInfo:
    """The provider of this name, in any case; ProviderNotFound with the nearest ones."""
    from modelway.routing import unknown_provider

    for info in known:
        if info.name.casefold() == name.casefold():
            return info
    raise unknown_provider(name, [info.name for info in known])


def _list(setup: Setup, *, as_json: bool) -> None:
    from modelway.provider import describe

    known = described(setup, ask=as_json)
    if as_json:
        say_json({"providers": [describe(info) for info in known]})
    else:
        say_table(("name", "ready", "default model", "what it lacks"), map(_row, known))


def _row(info: ProviderInfo) -> tuple[str, str, str, str]:
    return info.name, _readiness(info), info.default_model, info.missing


def _readiness(info: ProviderInfo) -> str:
    if not info.ready:
        return "no"
    return "not asked" if info.untried else "yes"


def _show(setup: Setup, name: str, *, as_json: bool) -> None:
    from modelway.provider import describe

    info = find(described(setup, ask=True), name)
    fields = describe(info)
    if as_json:
        say_json(fields)
        return
    say(f"{info.name}{f' ({info.label})' if info.label and info.label != info.name else ''}")
    lines = {
        "documents": info.url,
        "ready": _readiness(info) + (f": {info.missing}" if info.missing else ""),
        "signed in": f"yes ({info.credential_source})" if info.credential_source else _signed_out(info),
        "default model": info.default_model,
        "models": ", ".join(info.models),
        "streams": "yes" if info.supports_stream else "no",
        "supports": ", ".join(info.supports),
        "parameters": ", ".join(f"{param}: {kind}" for param, kind in _types(fields).items()),
    }
    for label, text in lines.items():
        if text:
            say(f"  {label + ':':<15}{text}")


def _types(fields: dict[str, object]) -> dict[str, str]:
    params = fields["params"]
    return params if isinstance(params, dict) else {}


def _signed_out(info: ProviderInfo) -> str:
    return "no" if info.needs_auth else "not needed"

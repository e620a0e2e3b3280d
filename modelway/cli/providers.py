"""`modelway providers`: who can answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelway.cli.examples import examples
from modelway.cli.output import say, say_json, say_table
from modelway.cli.setup import Setup, set_up

if TYPE_CHECKING:
    from modelway.provider import ProviderInfo


@examples("modelway providers", "modelway providers groq --json")
def providers(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show only this one, in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the providers and what they lack."""
    from modelway.provider import describe

    known = described(set_up(context))
    if name is None:
        if as_json:
            say_json({"providers": [describe(info) for info in known]})
        else:
            say_table(("name", "ready", "default model", "what it lacks"), map(_row, known))
        return
    chosen = find(known, name)
    if as_json:
        say_json(describe(chosen))
    else:
        _show(chosen)


def described(setup: Setup) -> list[ProviderInfo]:
    """What every provider says of itself, by the settings; nothing is started or connected."""
    import asyncio

    from modelway.providers.http import HTTPClient
    from modelway.wiring import build_providers

    async def collect() -> list[ProviderInfo]:
        http = HTTPClient(setup.settings.upstream)
        found = build_providers(setup.settings, http, data_dir=setup.directories.data)
        try:
            return [provider.info for provider in found]
        finally:
            for provider in found:
                await provider.aclose()
            await http.aclose()

    return asyncio.run(collect())


def find(known: list[ProviderInfo], name: str) -> ProviderInfo:
    """The provider of this name, in any case; ProviderNotFound with the nearest ones."""
    import difflib

    from modelway.errors import ProviderNotFound

    by_name = {info.name.casefold(): info for info in known}
    if name.casefold() in by_name:
        return by_name[name.casefold()]
    nearest = [by_name[near].name for near in difflib.get_close_matches(name.casefold(), by_name)]
    raise ProviderNotFound(
        f'no provider is called "{name}"',
        hint=f"did you mean {', '.join(nearest)}?" if nearest else "`modelway providers` lists them",
    )


def _row(info: ProviderInfo) -> tuple[str, str, str, str]:
    return info.name, "yes" if info.ready else "no", info.default_model, info.missing


def _show(info: ProviderInfo) -> None:
    say(f"{info.name}{f' ({info.label})' if info.label and info.label != info.name else ''}")
    lines = {
        "documents": info.url,
        "ready": "yes" if info.ready else f"no: {info.missing}",
        "default model": info.default_model,
        "models": ", ".join(info.models),
        "supports": ", ".join(info.supports),
        "parameters": ", ".join(info.params),
    }
    for label, text in lines.items():
        if text:
            say(f"  {label + ':':<15}{text}")

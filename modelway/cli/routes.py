"""`modelway routes`: where requests would go, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelway.cli.examples import examples
from modelway.cli.output import say, say_json, say_table
from modelway.cli.setup import Setup, set_up

if TYPE_CHECKING:
    from modelway.routing import Explanation, Router

app = typer.Typer(help="Show the routes and try them.", no_args_is_help=True, rich_markup_mode=None)

JSON_OPTION = typer.Option("--json", help="Print one JSON object.")
_OPTIONS = ("on_break", "retries", "deadline_s", "hedge_after_s", "shadow")


@app.command("list")
@examples("modelway routes list")
def list_routes(context: typer.Context, as_json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List the routes, and who would be asked first now."""
    setup = set_up(context)
    found = _told(setup, "")["data"]
    if as_json:
        say_json({"routes": found})
        return
    say_table(("route", "candidates", "asked first now", "options"), map(_row, found))


@app.command("test")
@examples("modelway routes test best", "modelway routes test best --ask")
def try_route(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A route, or any other name of a model.")],
    ask: Annotated[bool, typer.Option("--ask", help="Also ask it a short question.")] = False,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show where a request would go and why: weights, failures, what a candidate lacks."""
    setup = set_up(context)
    found = _told(setup, name)
    asked = _ask(setup, name) if ask else None
    if as_json:
        say_json({**found, "asked": asked} if asked else found)
        return
    kind = "a route" if found["is_route"] else "no route, but a name that leads somewhere"
    order = "the first is drawn by weight" if found["weighted"] else "tried in this order"
    say(f"{name or 'the default'}: {kind}; {order}")
    say_table(("", "candidate", "share", "why"), (_line(one) for one in found["candidates"]))
    if options := _options(found):
        say(f"  {options}")
    if asked:
        say(f"{asked['provider']}/{asked['model']}: {' '.join(asked['text'].split())}")
        say(f"  {asked['trail']}")


def _told(setup: Setup, name: str) -> dict[str, Any]:
    """What the running server says, which knows what has failed; else what the settings say."""
    from urllib.parse import quote

    from modelway.cli.reach import get_json, reach

    reached = reach(setup, server="", no_server=False)
    if reached.url:
        path = f"/v1/routes/{quote(name, safe='/:')}" if name else "/v1/routes"
        if told := get_json(reached.url, path, reached.api_key, timeout_s=10.0):
            return told
    return _told_here(setup, name)


def routes_here(setup: Setup) -> list[Explanation]:
    """Every route as the settings have it; SettingsError where one leads nowhere."""
    from modelway.routing import Breakers, explain

    router = _router(setup)
    return [explain(router, Breakers(), name) for name in router.routes]


def _told_here(setup: Setup, name: str) -> dict[str, Any]:
    import msgspec

    from modelway.routing import Breakers, explain

    if not name:
        return {"object": "list", "data": msgspec.to_builtins(routes_here(setup))}
    return dict(msgspec.to_builtins(explain(_router(setup), Breakers(), name)))


def _router(setup: Setup) -> Router:
    import asyncio

    from modelway.providers.http import HTTPClient
    from modelway.wiring import build_providers, build_router

    async def made() -> Router:
        http = HTTPClient(setup.settings.upstream)
        providers = build_providers(setup.settings, http, data_dir=setup.directories.data)
        try:
            return build_router(providers, setup.settings, setup.loaded.origins)
        finally:
            for provider in providers:
                await provider.aclose()
            await http.aclose()

    return asyncio.run(made())


def _ask(setup: Setup, name: str) -> dict[str, str]:
    from modelway.cli.answering import Waiting
    from modelway.cli.reach import reach
    from modelway.cli.trial import QUESTION

    waiting = Waiting()
    reached = reach(setup, server="", no_server=False)
    with reached.client(waiting.tell) as client, waiting.shown():
        # Not streamed: only then does the reply tell of everybody who was asked.
        reply = client.chat(QUESTION, model=name, stream=False)
        text = reply.collect().text
        return {"provider": reply.provider, "model": reply.model, "text": text, "trail": reply.trail}


def _row(route: dict[str, Any]) -> tuple[str, str, str, str]:
    candidates = route["candidates"]
    first = next((_named(one) for one in candidates if one["verdict"] == "first"), "nobody")
    return route["name"], ", ".join(_shared(one, route) for one in candidates), first, _options(route)


def _shared(candidate: dict[str, Any], route: dict[str, Any]) -> str:
    return f"{_named(candidate)} {candidate['share']:.0%}" if route["weighted"] else _named(candidate)


def _line(candidate: dict[str, Any]) -> tuple[str, str, str, str]:
    share = f"{candidate['share']:.0%}" if candidate["share"] else ""
    return candidate["verdict"], _named(candidate), share, candidate["why"]


def _named(candidate: dict[str, Any]) -> str:
    return "/".join(filter(None, (candidate["provider"], candidate["model"])))


def _options(route: dict[str, Any]) -> str:
    said = {name: route.get(name) for name in _OPTIONS}
    return ", ".join(f"{name} {value}" for name, value in said.items() if value not in (None, "", "fail"))

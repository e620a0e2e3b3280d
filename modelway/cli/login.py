"""`modelway login`, `logout` and `status`: the accounts that are signed in to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from modelway.cli.examples import examples
from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.output import local_time, say, say_json, say_table, warn
from modelway.cli.setup import Setup, set_up

if TYPE_CHECKING:
    from modelway.providers.copilot.profiles import Transport
    from modelway.providers.copilot.sign_ins import SignIn

PROVIDER_ARGUMENT = typer.Argument(metavar="copilot", help="Who to sign in to.")
TRANSPORT_OPTION = typer.Option("--transport", metavar="NAME", help="workiq or graph.")
JSON_OPTION = typer.Option("--json", help="Print one JSON object.")


class Account(Struct, frozen=True, kw_only=True):
    """What `status` tells of one transport. `since` is in seconds since 1970, 0 where nobody signed in."""

    transport: str
    label: str
    signed_in: bool
    account: str = ""
    since: float = 0.0
    problem: str = ""


@examples("modelway login copilot", "modelway login copilot --transport graph")
def login(
    context: typer.Context,
    provider: Annotated[str, PROVIDER_ARGUMENT],
    transport: Annotated[str, TRANSPORT_OPTION] = "",
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Sign in with a code that is entered in a browser."""
    import asyncio

    from modelway.wiring import sign_ins_of

    setup = set_up(context)
    chosen = _transports(setup, provider, transport)[0]
    sign_in = asyncio.run(_signed_in(setup, chosen))
    sign_ins_of(setup.directories.data).save(sign_in)
    account = _account(setup, chosen)
    if as_json:
        say_json(account)
    else:
        say(f"signed in to {account.label} as {account.account}")


@examples("modelway logout copilot")
def logout(
    context: typer.Context,
    provider: Annotated[str, PROVIDER_ARGUMENT],
    transport: Annotated[str, TRANSPORT_OPTION] = "",
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Forget the sign-in on this machine."""
    from modelway.wiring import sign_ins_of

    setup = set_up(context)
    sign_ins = sign_ins_of(setup.directories.data)
    removed = [name for name in _transports(setup, provider, transport, all=True) if sign_ins.remove(name)]
    if as_json:
        say_json({"removed": removed})
    else:
        say(f"signed out of {' and '.join(removed)}" if removed else "nobody was signed in")


@examples("modelway status copilot")
def status(
    context: typer.Context,
    provider: Annotated[str, PROVIDER_ARGUMENT],
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show who is signed in; exit code 4 where nobody is."""
    setup = set_up(context)
    accounts = [_account(setup, name) for name in _transports(setup, provider, "", all=True)]
    if as_json:
        say_json({"accounts": accounts})
    else:
        say_table(
            ("transport", "signed in", "account", "since", "what it is"),
            (
                (
                    one.transport,
                    "yes" if one.signed_in else "no",
                    one.account,
                    local_time(one.since) if one.since else "",
                    one.label if one.signed_in else one.problem,
                )
                for one in accounts
            ),
        )
    if not any(one.signed_in for one in accounts):
        raise typer.Exit(ExitCode.AUTH)


def _transports(setup: Setup, provider: str, transport: str, *, all: bool = False) -> list[Transport]:
    """The transports that are meant, the preferred one first; CommandError where there is no such thing."""
    from modelway.providers.copilot.profiles import PROFILES, transports_of

    if provider.casefold() != "copilot":
        raise CommandError(
            f"nobody signs in to {provider}",
            hint="the others take keys: `modelway providers` says which",
            code=ExitCode.USAGE,
        )
    if transport and transport not in PROFILES:
        raise CommandError(
            f"{transport} is no transport of Copilot",
            hint=f"there are {' and '.join(PROFILES)}",
            code=ExitCode.USAGE,
        )
    known = list(PROFILES) if all else list(transports_of(setup.settings.copilot))
    return [name for name in PROFILES if name == transport] or known


async def _signed_in(setup: Setup, transport: Transport) -> SignIn:
    from contextlib import aclosing

    from modelway.providers.copilot.profiles import PROFILES, authority_of
    from modelway.providers.copilot.signin import begin, wait
    from modelway.providers.http import HTTPClient

    profile, authority = PROFILES[transport], authority_of(setup.settings.copilot)
    async with aclosing(HTTPClient(setup.settings.upstream)) as http:
        prompt = await begin(http, authority, profile)
        warn(profile.notice)
        warn(prompt.instruction)
        return await wait(http, authority, profile, prompt)


def _account(setup: Setup, transport: Transport) -> Account:
    """Who is signed in to a transport, by the file and the settings; nothing is asked of anybody."""
    from modelway.providers.copilot.profiles import PROFILES, authority_of
    from modelway.wiring import sign_ins_of

    label = PROFILES[transport].label
    found = sign_ins_of(setup.directories.data).load(transport)
    if found is None:
        return Account(transport=transport, label=label, signed_in=False, problem="nobody has signed in")
    problem = f"the sign-in has ended ({found.ended})" if found.ended else ""
    if not problem and found.authority != authority_of(setup.settings.copilot):
        problem = "the settings name another application, tenant or authority than the sign-in's"
    return Account(
        transport=transport,
        label=label,
        signed_in=not problem,
        account=found.username or found.account,
        since=found.at,
        problem=problem,
    )

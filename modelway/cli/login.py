"""`modelway login`, `logout` and `status`: the accounts that are signed in to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from modelway.cli.examples import examples
from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.output import local_time, say, say_json, say_table
from modelway.cli.setup import Setup, set_up

if TYPE_CHECKING:
    from modelway.providers.copilot.profiles import Transport
    from modelway.providers.copilot.sign_ins import SignIn

PROVIDER_ARGUMENT = typer.Argument(metavar="copilot", help="Who to sign in to.")
BROWSER_OPTION = typer.Option("--browser", help="Sign in in a browser here instead of with a code.")
TOKEN_OPTION = typer.Option("--with-token", help="Read a token of GitHub's from stdin.")
TRANSPORT_OPTION = typer.Option("--transport", metavar="NAME", help="github, workiq or graph.")
JSON_OPTION = typer.Option("--json", help="Print one JSON object.")


class Account(Struct, frozen=True, kw_only=True):
    """What `status` tells of one transport. `since` is in seconds since 1970, 0 where it is not known.

    `kept` says where the credential is: in the environment, the system's keyring, a file, or with the
    Copilot CLI or the GitHub CLI.
    """

    transport: str
    label: str
    signed_in: bool
    account: str = ""
    since: float = 0.0
    kept: str = ""
    problem: str = ""


@examples(
    "modelway login copilot",
    "modelway login copilot --transport workiq --browser",
    "modelway login copilot --transport github --with-token < token",
)
def login(
    context: typer.Context,
    provider: Annotated[str, PROVIDER_ARGUMENT],
    transport: Annotated[str, TRANSPORT_OPTION] = "",
    browser: Annotated[bool, BROWSER_OPTION] = False,
    with_token: Annotated[bool, TOKEN_OPTION] = False,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Sign in: with a code that is entered in any browser, in a browser here, or with a token."""
    import asyncio

    from modelway.cli.signing import signed_in
    from modelway.wiring import sign_ins_of

    setup = set_up(context)
    chosen = _transports(setup, provider, transport)[0]
    sign_in = asyncio.run(signed_in(setup, chosen, in_browser=browser, with_token=with_token))
    sign_ins_of(setup.directories.data).save(sign_in)
    account = _account(setup, chosen)
    if as_json:
        say_json(account)
    else:
        named = f" as {account.account}" if account.account else ""
        untried = f", but {account.problem}" if account.problem else ""
        say(f"signed in to {account.label}{named}{untried}")


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
            ("transport", "signed in", "account", "since", "kept in", "what it is"),
            (
                (
                    one.transport,
                    "no" if not one.signed_in else "not tried yet" if one.problem else "yes",
                    one.account,
                    local_time(one.since) if one.since else "",
                    one.kept,
                    one.label if one.signed_in else one.problem,
                )
                for one in accounts
            ),
        )
    if not any(one.signed_in for one in accounts):
        raise typer.Exit(ExitCode.AUTH)


def _transports(setup: Setup, provider: str, transport: str, *, all: bool = False) -> list[Transport]:
    """The transports that are meant, the preferred one first; CommandError where there is no such thing."""
    from modelway.providers.copilot.profiles import LABELS, transports_of

    if provider.casefold() != "copilot":
        raise CommandError(
            f"nobody signs in to {provider}",
            hint="the others take keys: `modelway providers` says which",
            code=ExitCode.USAGE,
        )
    if transport and transport not in LABELS:
        raise CommandError(
            f"{transport} is no transport of Copilot",
            hint=f"there are {', '.join(LABELS)}",
            code=ExitCode.USAGE,
        )
    if all or transport:
        return [name for name in LABELS if transport in ("", name)]
    copilot = setup.settings.copilot
    # Whoever has registered an application at Microsoft means to sign in there.
    auto: Transport = "workiq" if copilot.client_id else "github"
    return [auto if copilot.transport == "auto" else transports_of(copilot)[0]]


def _account(setup: Setup, transport: Transport) -> Account:
    """Who is signed in to a transport, by the files and the settings; nothing is asked of anybody."""
    from modelway.providers.copilot.profiles import LABELS

    found = _kept(setup, transport)
    label = LABELS[transport]
    if transport == "github" and setup.settings.copilot.github.sign_in != "modelway":
        return _theirs(setup, label)
    if found is None:
        return Account(transport=transport, label=label, signed_in=False, problem="nobody has signed in")
    problem = f"the sign-in has ended ({found.ended})" if found.ended else ""
    if not problem and not _is_ours(setup, found):
        problem = "the settings name another application, tenant or authority than the sign-in's"
    # Until GitHub has told whose token it is, it is known by a hash.
    untried = transport == "github" and not (found.username or found.tried or found.kept == "copilot-cli")
    return Account(
        transport=transport,
        label=label,
        signed_in=not problem,
        account=found.username or ("" if transport == "github" else found.account),
        since=found.at,
        kept=found.kept,
        problem=problem or ("the token has not been tried yet" if untried else ""),
    )


def _kept(setup: Setup, transport: Transport) -> SignIn | None:
    from modelway.wiring import sign_ins_of

    return sign_ins_of(setup.directories.data).load(transport)


def _is_ours(setup: Setup, found: SignIn) -> bool:
    from modelway.providers.copilot.profiles import authority_of

    wanted = authority_of(setup.settings.copilot, found.transport)
    # GitHub's token stays good whichever application has got it.
    return found.authority.url == wanted.url if found.transport == "github" else found.authority == wanted


def _theirs(setup: Setup, label: str) -> Account:
    """A sign-in to GitHub that others keep."""
    from modelway.providers.copilot.github_account import VARIABLES, credential_of
    from modelway.wiring import sign_ins_of, variable

    found = credential_of(setup.settings.copilot, sign_ins_of(setup.directories.data), variable)
    problem = f"none of {', '.join(VARIABLES)} is set"
    if setup.settings.copilot.github.sign_in == "gh":
        problem = "nobody has signed in to the GitHub CLI"
    return Account(
        transport="github",
        label=label,
        signed_in=found is not None,
        kept=found.source if found else "",
        problem="" if found else problem,
    )

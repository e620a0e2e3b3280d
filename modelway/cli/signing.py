"""The ways to sign in to Copilot: a code, a browser, a token from stdin, the Copilot CLI."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.output import warn
from modelway.cli.setup import Setup
from modelway.errors import ProviderNotConfigured

if TYPE_CHECKING:
    from modelway.providers.copilot.profiles import Microsoft, Transport
    from modelway.providers.copilot.sign_ins import SignIn


async def signed_in(setup: Setup, transport: Transport, *, in_browser: bool, with_token: bool) -> SignIn:
    """Whoever signs in to the transport, in the way that was asked for or else the best there is."""
    if transport == "github":
        if in_browser:
            raise CommandError(
                "GitHub's sign-in needs no browser on this machine",
                hint="leave --browser out",
                code=ExitCode.USAGE,
            )
        return await _at_github(setup, with_token=with_token)
    if with_token:
        raise CommandError(
            "only GitHub's sign-in takes a token", hint="add --transport github", code=ExitCode.USAGE
        )
    return await _at_microsoft(setup, transport, in_browser=in_browser)


async def _at_microsoft(setup: Setup, transport: Microsoft, *, in_browser: bool) -> SignIn:
    import webbrowser

    from modelway.providers.copilot import browser, device
    from modelway.providers.copilot.profiles import PROFILES, authority_of
    from modelway.providers.http import HTTPClient

    def show(page: str) -> None:
        warn(f"Sign in on this page: {page}")
        webbrowser.open(page)

    profile, authority = PROFILES[transport], authority_of(setup.settings.copilot)
    async with aclosing(HTTPClient(setup.settings.upstream)) as http:
        if in_browser:
            warn(profile.notice)
            return await browser.sign_in(http, authority, profile, show=show)
        prompt = await device.begin(http, authority, profile)
        warn(profile.notice)
        warn(prompt.instruction)
        return await device.wait(http, authority, profile, prompt)


async def _at_github(setup: Setup, *, with_token: bool) -> SignIn:
    from modelway.providers.copilot.github_account import checked

    if with_token:
        return await _proven(setup, checked(_token_from_stdin()))
    if setup.settings.copilot.github.client_id:
        return await _proven(setup, await _token_by_code(setup))
    if program := shutil.which("copilot"):
        return _by_copilot_cli(setup, program)
    raise CommandError(
        "there is no way to sign in to GitHub Copilot here",
        hint='pipe a fine-grained token with the account permission "Copilot Requests" into '
        "`modelway login copilot --transport github --with-token`, set [copilot.github] client_id, "
        "or install the Copilot CLI",
        code=ExitCode.CONFIG,
    )


def _token_from_stdin() -> str:
    if sys.stdin.isatty():
        warn("Paste the token and press Enter:")
    token = sys.stdin.readline().strip()
    if not token:
        raise CommandError("there is no token on stdin", code=ExitCode.USAGE)
    return token


async def _token_by_code(setup: Setup) -> str:
    from modelway.providers.copilot import device
    from modelway.providers.copilot.profiles import authority_of
    from modelway.providers.http import HTTPClient

    authority = authority_of(setup.settings.copilot, "github")
    async with aclosing(HTTPClient(setup.settings.upstream)) as http:
        prompt = await device.begin_at_github(http, authority)
        warn(prompt.instruction)
        return await device.token_of_github(http, authority, prompt)


async def _proven(setup: Setup, token: str) -> SignIn:
    """The sign-in of a token that GitHub takes; it is asked for the account's models."""
    from modelway.providers.copilot.github_account import account_of
    from modelway.providers.copilot.profiles import authority_of
    from modelway.providers.copilot.sign_ins import SignIn
    from modelway.wiring import build_github, sign_ins_of

    sign_ins = sign_ins_of(setup.directories.data)
    async with aclosing(build_github(setup.settings, setup.directories.data, sign_ins)) as door:
        try:
            name, tried = await door.who(token), True
        except ProviderNotConfigured as error:
            warn(f"the token is kept without having been tried: {error.explanation}")
            name, tried = "", False
    return SignIn(
        transport="github",
        authority=authority_of(setup.settings.copilot, "github"),
        account=name or account_of(token),
        username=name,
        refresh_token=token,
        tried=tried,
        at=time.time(),
    )


def _by_copilot_cli(setup: Setup, program: str) -> SignIn:
    """Let GitHub's own program sign in; what it keeps, only the runtime reads."""
    from modelway.providers.copilot.launching import cli_environment, home_of
    from modelway.providers.copilot.profiles import authority_of
    from modelway.providers.copilot.sign_ins import SignIn
    from modelway.wiring import COPILOT_FOLDER, variable

    home = home_of(setup.settings.copilot, setup.directories.data / COPILOT_FOLDER, variable)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = cli_environment(home, variable)
    done = subprocess.run([program, "login", "--device-code"], env=environment, check=False)  # noqa: S603
    if done.returncode:
        raise CommandError("the Copilot CLI did not sign in", code=ExitCode.AUTH)
    return SignIn(
        transport="github",
        authority=authority_of(setup.settings.copilot, "github"),
        account="copilot-cli",
        kept="copilot-cli",
        at=time.time(),
    )

"""Finds whose GitHub Copilot it is: the token, or where the runtime will find it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from modelway.config import CopilotSettings
from modelway.errors import ProviderNotConfigured
from modelway.providers.copilot.profiles import authority_of
from modelway.providers.copilot.refusals import sign_in_required
from modelway.providers.copilot.sign_ins import SignIn, SignIns

VARIABLES = ("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN")
CLASSIC = "ghp_"
GH_WAIT_S = 10.0


class Credential(Struct, frozen=True):
    """`source` tells where it is kept. Without `token` and `sign_in` the runtime finds it by itself."""

    source: str
    account: str
    token: str = ""
    sign_in: SignIn | None = None

    def __repr__(self) -> str:
        return f"Credential({self.source})"


def credential_of(
    settings: CopilotSettings, sign_ins: SignIns, variable: Callable[[str], str]
) -> Credential | None:
    """The credential that the settings name, None where it is not there; `variable` reads the environment."""
    if settings.github.base_url:
        return Credential("settings", "test")
    match settings.github.sign_in:
        case "environment":
            token = next(filter(None, map(variable, VARIABLES)), "")
            return Credential("environment", account_of(token), checked(token)) if token else None
        case "copilot-cli":
            return Credential("copilot-cli", "copilot-cli")
        case "gh":
            return Credential("gh", "gh") if _gh_has_account(variable) else None
    sign_in = sign_ins.load("github")
    if sign_in is None or sign_in.ended or sign_in.authority.url != authority_of(settings, "github").url:
        return None
    return Credential(sign_in.kept, sign_in.account, sign_in=sign_in)


async def token_of(credential: Credential, sign_ins: SignIns) -> str:
    """The token, "" where the runtime finds it by itself."""
    if credential.source == "gh":
        return await _token_of_gh()
    if credential.sign_in is not None:
        return await asyncio.to_thread(sign_ins.secret_of, credential.sign_in)
    return credential.token


def checked(token: str) -> str:
    """The token, if it is of a kind that the runtime takes."""
    if token.startswith(CLASSIC):
        raise ProviderNotConfigured(
            "GitHub Copilot does not take classic personal access tokens",
            hint='make a fine-grained one with the account permission "Copilot Requests"',
        )
    return token


def account_of(token: str) -> str:
    """Binds conversations to an account whose name is not known, without telling the token."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _gh_has_account(variable: Callable[[str], str]) -> bool:
    """Whether somebody has signed in to the GitHub CLI, by its variables and its list of hosts.

    https://cli.github.com/manual/gh_help_environment; the token itself may be in the system's keyring.
    """
    if variable("GH_TOKEN") or variable("GITHUB_TOKEN"):
        return True
    places = (("GH_CONFIG_DIR", ""), ("XDG_CONFIG_HOME", "gh"), ("APPDATA", "GitHub CLI"))
    named = (Path(value, folder) for name, folder in places if (value := variable(name)))
    try:
        hosts = next(named, Path("~/.config/gh").expanduser()) / "hosts.yml"
        return "github.com" in hosts.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False


async def _token_of_gh() -> str:
    """The token of the GitHub CLI; SignInRequired where it has none."""
    try:
        process = await asyncio.create_subprocess_exec(
            *("gh", "auth", "token"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise ProviderNotConfigured(
            "the GitHub CLI is not installed", hint="install gh, or change [copilot.github] sign_in"
        ) from None
    try:
        out, _ = await asyncio.wait_for(process.communicate(), GH_WAIT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        out = b""
    token = out.decode("utf-8", "replace").strip()
    if not token:
        raise sign_in_required("nobody has signed in to the GitHub CLI")
    return checked(token)

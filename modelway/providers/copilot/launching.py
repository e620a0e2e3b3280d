"""Decides how GitHub Copilot's runtime is started: which program, whose home, whose token."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from platformdirs import user_cache_path

from modelway.config import CopilotSettings
from modelway.providers.copilot.github_failures import runtime_missing
from modelway.providers.copilot.runtime import Client, Launch

_PROGRAMS = ("copilot-runtime", "copilot")
_SDK_CACHE = "github-copilot-sdk"
# What the runtime's process gets of our environment: how to reach the network, and nothing secret.
_PASSED_ON = (
    *("PATH", "LANG", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "COMSPEC", "PATHEXT"),
    *("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"),
)


async def start(launch: Launch) -> Client:
    """Start the runtime."""
    sdk = await asyncio.to_thread(_sdk)
    client: Client = await sdk.start(launch)
    return client


def require_sdk() -> None:
    """ProviderNotConfigured where the SDK is not installed."""
    if find_spec("copilot") is None:
        raise runtime_missing("the GitHub Copilot SDK is not installed")


def require_runtime(settings: CopilotSettings, variable: Callable[[str], str]) -> None:
    """ProviderNotConfigured where no runtime can be there, as far as it shows without loading the SDK."""
    require_sdk()
    if _named_runtime(settings, variable) or any(map(shutil.which, _PROGRAMS)):
        return
    kept = variable("COPILOT_CLI_EXTRACT_DIR") or user_cache_path(_SDK_CACHE, appauthor=False)
    if not Path(kept).is_dir():
        raise runtime_missing("the runtime of GitHub Copilot is not installed")


async def launch_of(
    settings: CopilotSettings, home: Path, token: str, variable: Callable[[str], str]
) -> Launch:
    """How to start it with this token. `home` is the runtime's, where the settings name none."""
    require_sdk()
    home = home_of(settings, home, variable)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = _passed_on(variable)
    # Its own home keeps the settings and instructions of the user's other programs out.
    is_theirs = settings.github.sign_in == "copilot-cli"
    environment["HOME"] = (is_theirs and variable("HOME")) or str(home)
    path = await asyncio.to_thread(_runtime_path, settings, variable)
    return Launch(path, home, environment, token, settings.github.base_url)


def home_of(settings: CopilotSettings, home: Path, variable: Callable[[str], str]) -> Path:
    """Where the runtime keeps its conversations, and the Copilot CLI its sign-in."""
    if settings.github.home:
        return Path(settings.github.home).expanduser()
    if settings.github.sign_in == "copilot-cli":
        return Path(variable("COPILOT_HOME") or "~/.copilot").expanduser()
    return home


def cli_environment(home: Path, variable: Callable[[str], str]) -> dict[str, str]:
    """The environment for `copilot login`: its sign-in goes where the runtime looks, not into a keyring."""
    theirs = {name: value for name in ("HOME", "TERM") if (value := variable(name))}
    return {**_passed_on(variable), **theirs, "COPILOT_HOME": str(home), "COPILOT_DISABLE_KEYTAR": "1"}


def _passed_on(variable: Callable[[str], str]) -> dict[str, str]:
    return {name: value for name in _PASSED_ON if (value := variable(name))}


def _runtime_path(settings: CopilotSettings, variable: Callable[[str], str]) -> Path:
    if named := _named_runtime(settings, variable):
        return named
    found = _sdk().cached_runtime() or next(filter(None, map(shutil.which, _PROGRAMS)), "")
    if not found:
        raise runtime_missing("the runtime of GitHub Copilot is not installed")
    return Path(found)


def _named_runtime(settings: CopilotSettings, variable: Callable[[str], str]) -> Path | None:
    """The runtime that the user names; ProviderNotConfigured where it is not there."""
    named = settings.github.runtime_path or variable("COPILOT_CLI_PATH")
    if not named:
        return None
    path = Path(named).expanduser()
    if not path.is_file():
        raise runtime_missing(f"there is no runtime of GitHub Copilot at {path}")
    return path


def _sdk() -> ModuleType:
    """Ours around theirs, which takes a second or two to load."""
    require_sdk()
    from modelway.providers.copilot import sdk

    return sdk

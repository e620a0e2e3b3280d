"""The command line in a home of its own, with an upstream that plays scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from msgspec import Struct
from typer.testing import CliRunner

from modelway.cli.app import run
from modelway.testing.fake_upstream import FakeUpstream, closed_port


class Done(Struct, frozen=True):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)


class Home:
    """A user's directories, in which commands are run. Nothing of this machine's configuration is seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.environ: dict[str, str | None] = {
            f"MODELWAY_{name}_DIR": str(folder) for name in ("CONFIG", "DATA", "STATE", "CACHE")
        }
        self.environ |= {"NO_COLOR": "1", "MODELWAY_DEBUG": None}

    def run(self, *arguments: str, input: str = "") -> Done:
        """Run a command; its stdin is not a terminal."""
        with CliRunner().isolation(input=input, env=self.environ) as (out, err, _):
            code = run(arguments)
            return Done(int(code), out.getvalue().decode(), err.getvalue().decode())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home without any file but one that names a port on which nothing listens."""
    made = Home(tmp_path)
    made.config.write_text(f"[server]\nport = {closed_port()}\n")
    return made


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    """An upstream in a thread of its own."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(FakeUpstream()) as fake:
        yield fake


@pytest.fixture
def asking_home(home: Home, upstream: FakeUpstream) -> Home:
    """A home whose default provider is the upstream."""
    home.config.write_text(
        f'provider = "Fake"\n[server]\nport = {closed_port()}\n[upstream]\nretries = 0\n'
        f'[providers.Fake]\nbase_url = "{upstream.url}"\ndefault_model = "model-a"\n'
    )
    return home

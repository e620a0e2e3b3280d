"""What programs of others talk to: the embedded model, or a fake upstream that does what it is asked."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest_local import find_model
from tests.e2e.obliging import obliging
from tests.e2e.running import Running

MODULES = Path(__file__).parent.parent.parent / ".clients/node/node_modules"


class Server(NamedTuple):
    """A server, and a model that it has. The address is without /v1; `log` is what it has written."""

    address: str
    model: str
    log: Sequence[str] = ()

    @property
    def v1(self) -> str:
        """Where OpenAI's formats are."""
        return f"{self.address}/v1"


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The command as users start it, with the model that answers without an account."""
    config = f'[local]\nmodel = "{find_model()}"\nmax_tokens = 160\npreload = true\n'
    with Running(tmp_path_factory.mktemp("embedded"), config=config) as running:
        yield Server(running.address, "Local", running.log)


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server before an upstream that calls the tool it is offered, and then tells what that said."""
    with obliging(tmp_path_factory.mktemp("fake")) as address:
        yield Server(address, "Fake/m")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """One of the two, by its name."""
    chosen: Server = request.getfixturevalue(request.param)
    return chosen


class Programs:
    """Runs programs in Node; where Node or a package is missing, the test fails and says what is."""

    def __init__(self) -> None:
        if shutil.which("node") is None:
            pytest.fail("Node.js 20 or newer is not installed, and this test runs a program in Node")
        if not (MODULES / ".package-lock.json").is_file():
            pytest.fail("the packages of Node are not installed: `make clients` installs them")
        self.bin = MODULES / ".bin"

    async def script(self, source: str, folder: Path, environ: Mapping[str, str] = {}) -> str:
        """What a script prints, run as a file in the folder."""
        (folder / "program.mjs").write_text(source)
        if not (folder / "node_modules").exists():
            (folder / "node_modules").symlink_to(MODULES)
        return await self.run("node", "program.mjs", folder=folder, environ=environ)

    async def run(self, *command: str, folder: Path, environ: Mapping[str, str] = {}) -> str:
        """What a command prints."""
        code, out, err = await self.outcome(*command, folder=folder, environ=environ)
        assert code == 0, out + err
        return out

    async def outcome(
        self, *command: str, folder: Path, environ: Mapping[str, str] = {}
    ) -> tuple[int | None, str, str]:
        """How a command ends, and what it prints. Of the tests' environment it has only the PATH."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(folder / "home"), **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 280)
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
def programs() -> Programs:
    return Programs()

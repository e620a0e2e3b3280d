"""The benchmark's own processes, and a relay that stands for any gateway."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelway.bench.contestants import Contestant, LoadProcess, load_process, upstream
from modelway.bench.processes import free_port, readline, started

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Contestant]:
    with upstream(tmp_path) as contestant:
        yield contestant


@pytest.fixture
def load(tmp_path: Path) -> Iterator[LoadProcess]:
    with load_process(tmp_path) as process:
        yield process


@pytest.fixture
def upstream_port() -> int:
    return free_port()


@pytest.fixture
def relay_port(tmp_path: Path, upstream_port: int) -> Iterator[int]:
    """A gateway that only copies bytes to `upstream_port`."""
    command = [sys.executable, str(Path(__file__).with_name("relay.py")), str(upstream_port)]
    with started(command, log=tmp_path / "relay.log", pipes=True) as process:
        yield int(readline(process))

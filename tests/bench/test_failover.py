"""The sixteen faults of the failover bench, one by one, and its table."""

import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelway.bench.cli import app
from modelway.bench.failover import CASES, Case, Way, judge, settings_text
from modelway.bench.faults import FAULTS
from modelway.bench.faulty import FaultyUpstream
from modelway.bench.processes import free_port, started, wait_until_answers
from modelway.config import UpstreamSettings
from modelway.providers.http import HTTPClient
from modelway.settings import load
from modelway.wiring import build
from tests.serving import serving


class Stand:
    """A gateway with a route for each case, in this process."""

    def __init__(self, address: str, upstream: FaultyUpstream, http: HTTPClient) -> None:
        self.address, self.upstream, self.http = address, upstream, http


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FaultyUpstream())
        http = await stack.enter_async_context(aclosing(HTTPClient(UpstreamSettings())))
        config = tmp_path / "failover.toml"
        config.write_text(settings_text(upstream))
        directories = {f"MODELWAY_{name}_DIR": str(tmp_path) for name in ("CONFIG", "DATA")}
        settings = load(environ=directories, project_file=config).settings
        gateway = build(settings, data_dir=tmp_path)
        yield Stand(await stack.enter_async_context(serving(gateway)), upstream, http)


def test_there_are_sixteen() -> None:
    assert len({case.name for case in CASES}) == 16


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("case", "way"),
    [pytest.param(case, way, id=f"{case.name}-{way}") for case in CASES for way in case.ways],
)
async def test_the_promise_is_kept(stand: Stand, case: Case, way: Way) -> None:
    verdict = await judge(case, way, stand.address, stand.upstream, stand.http)
    assert verdict.kept, verdict.what


def test_the_table_says_sixteen_of_sixteen() -> None:
    done = CliRunner().invoke(app, ["failover"])
    assert done.exit_code == 0, done.output
    assert "16 of 16" in done.output
    for case in CASES:
        assert case.name in done.output


def test_every_fault_is_in_the_document_as_it_is() -> None:
    text = (Path(__file__).parents[2] / "docs" / "testing-failover.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.*?) \| ?(.*?) ?\|$", text, re.MULTILINE)
    assert rows == [(fault.name, fault.what, fault.takes) for fault in FAULTS.values()]


def test_the_command_serves_the_faulty_upstream_and_tells_how_to_ask_it(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "modelway", "bench", "upstream", "--faulty", "--port", str(port)]
    log = tmp_path / "upstream.log"
    with started(command, log=log) as process:
        wait_until_answers(port, process, log)
        request = b"POST /status:418/v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request + b"content-length: 2\r\n\r\n{}")
            assert connection.recv(100).startswith(b"HTTP/1.1 418")
    told = log.read_text()
    assert f"http://127.0.0.1:{port}/FAULT/v1" in told
    assert all(f"  {name}" in told for name in FAULTS)

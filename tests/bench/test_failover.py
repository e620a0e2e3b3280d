"""The sixteen faults of the failover bench, one by one, and its table."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelway.bench.cli import app
from modelway.bench.failover import CASES, Case, Way, judge, settings_text
from modelway.bench.faults import FAULTS
from modelway.bench.faulty import FaultyUpstream
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

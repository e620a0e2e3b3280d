"""What the benchmark's commands show of these promises: simulated worlds, the failover bench."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from modelway.bench import worlds
from modelway.bench.cli import app

Note = Callable[[str, object], None]

WORLDS = 10_000


@pytest.mark.check(4, 12, 21)
@pytest.mark.long
def test_ten_thousand_simulated_worlds_keep_every_promise(record_property: Note) -> None:
    done: list[int] = []
    failures = worlds.run(0, WORLDS, 0, done.append).failures
    record_property(
        "figure", f"{sum(done) - len(failures):,} of {WORLDS:,} simulated worlds kept every promise"
    )
    assert failures == []
    assert sum(done) == WORLDS


@pytest.mark.check(9, 10, 11, 12, 13, 16)
@pytest.mark.slow
def test_the_failover_bench_is_passed(record_property: Note) -> None:
    done = CliRunner().invoke(app, ["failover"])
    found = re.search(r"^(\d+) of (\d+)$", done.output, re.MULTILINE)
    assert found is not None, done.output
    record_property("figure", f"{found[0]} faults of the Failover Bench")
    assert (done.exit_code, found[0]) == (0, "16 of 16")

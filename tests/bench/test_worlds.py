"""Two hundred simulated worlds, and the command that runs more."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelway.bench.cli import app
from modelway.bench.simulation import simulate


@pytest.mark.parametrize("seed", range(8, 208))
def test_every_promise_is_kept_in_many_worlds(seed: int, tmp_path: Path) -> None:
    assert simulate(seed, tmp_path)


def test_the_command_runs_worlds_on_all_cores() -> None:
    done = CliRunner().invoke(app, ["simulate", "--seeds", "41", "--first", "1000", "--jobs", "2"])
    assert done.exit_code == 0, done.output
    assert "41 of 41 worlds kept every promise" in done.output


def test_the_command_plays_one_again() -> None:
    done = CliRunner().invoke(app, ["simulate", "--first", "3", "--trace"])
    assert "asked q" in done.output
    assert "1 of 1" in done.output

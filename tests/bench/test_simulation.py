"""Simulated worlds: every promise is kept in each, and each can be played again."""

import asyncio
from pathlib import Path

import pytest

from modelway.bench.simulation import Failed, simulate
from modelway.bench.virtual_loop import NothingLeft, VirtualLoop
from modelway.bench.worlds import run
from modelway.routing import Breakers


@pytest.mark.parametrize("seed", range(20))
def test_every_promise_is_kept(seed: int, tmp_path: Path) -> None:
    assert simulate(seed, tmp_path)


@pytest.mark.parametrize("seed", [3, 72, 178])
def test_a_seed_is_played_again_exactly(seed: int, tmp_path: Path) -> None:
    assert simulate(seed, tmp_path) == simulate(seed, tmp_path)


class Careless(Breakers):
    """Leaves nobody alone."""

    def admit(self, key: tuple[str, str]) -> bool:
        return False


def test_a_broken_promise_is_found_and_names_its_seed(tmp_path: Path) -> None:
    found = []
    for seed in range(20):
        try:
            simulate(seed, tmp_path, breakers=Careless)
        except Failed as failed:
            found.append(failed)
    assert found
    assert str(found[0]) == f"seed {found[0].seed}: whom the breaker leaves alone is not asked"
    assert found[0].trace


def test_many_run_and_what_fails_is_told() -> None:
    done: list[int] = []
    assert run(500, 25, 1, done.append).failures == []
    assert done == [20, 5]


def test_hours_take_no_time_and_a_deadlock_is_told() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(3600)
        assert await asyncio.to_thread(lambda: 7) == 7
        return loop.time()

    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(wait()) == 3600
    with pytest.raises(NothingLeft), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(wait_for_ever())

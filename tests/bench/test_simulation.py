"""Simulated worlds: every promise is kept in each, and each can be played again."""

import asyncio
import threading
from pathlib import Path

import pytest

from modelway.bench.simulation import Failed, simulate
from modelway.bench.virtual_loop import NothingLeft, VirtualLoop
from modelway.bench.worlds import run
from modelway.routing import Breakers


@pytest.mark.parametrize("seed", [*range(8), 231])
def test_every_promise_is_kept(seed: int, tmp_path: Path) -> None:
    assert simulate(seed, tmp_path)


@pytest.mark.parametrize("seed", [3, 72])
def test_a_seed_is_played_again_exactly(seed: int, tmp_path: Path) -> None:
    assert simulate(seed, tmp_path) == simulate(seed, tmp_path)


class Careless(Breakers):
    """Leaves nobody alone."""

    def admit(self, key: tuple[str, ...]) -> bool:
        return False


def test_a_broken_promise_is_found_and_names_its_seed(tmp_path: Path) -> None:
    def look() -> None:
        for seed in range(20):
            simulate(seed, tmp_path, breakers=Careless)

    with pytest.raises(Failed, match="whom the breaker leaves alone is not asked") as caught:
        look()
    assert str(caught.value).startswith(f"seed {caught.value.seed}: ")
    assert caught.value.trace


def test_many_run_and_what_fails_is_told() -> None:
    done: list[int] = []
    assert run(500, 3, 1, done.append).failures == []
    assert done == [3]


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


def test_the_clock_stands_still_while_a_thread_is_awaited() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        is_idle = threading.Event()
        done: asyncio.Future[None] = loop.create_future()

        def is_awaited() -> bool:
            is_idle.set()
            return not done.done()

        def work() -> None:
            assert is_idle.wait(10)
            loop.call_soon_threadsafe(done.set_result, None)

        loop.is_awaited = is_awaited
        thread = threading.Thread(target=work)
        thread.start()
        try:
            async with asyncio.timeout(3600):
                await done
        finally:
            is_idle.set()
            thread.join()
        return loop.time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(wait()) == 0

"""What writes: on the event loop where that is quick, in a thread where it might not be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from modelway.conversations.database import Database
from modelway.conversations.ledger import Ledger
from modelway.conversations.writer import Writer
from modelway.errors import InvalidRequest, StoreUnavailable

pytestmark = pytest.mark.anyio
REST_S = 5.0


class Clock:
    """Shows a time that goes on by so much whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 100.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def writer(tmp_path: Path, clock: Clock) -> AsyncIterator[Writer]:
    async with aclosing(Writer(Database(tmp_path / "some.sqlite3", "normal"), clock=clock)) as opened:
        yield opened


def thread_of(ledger: Ledger) -> int:
    """Notes something, and tells who does."""
    ledger.run("UPDATE conversations SET title = 'x' WHERE id = :id", {"id": 1})
    return threading.get_ident()


async def is_here(writer: Writer, *, is_quick: bool = True) -> bool:
    return await writer.submit(thread_of, is_quick=is_quick) == threading.get_ident()


async def test_a_quick_command_is_written_here_and_a_long_one_in_the_thread(writer: Writer) -> None:
    assert await is_here(writer)
    assert not await is_here(writer, is_quick=False)
    assert await is_here(writer)


async def test_one_long_command_takes_its_group_along(writer: Writer) -> None:
    ran = await asyncio.gather(
        writer.submit(thread_of), writer.submit(thread_of, is_quick=False), writer.submit(thread_of)
    )
    assert threading.get_ident() not in ran


@pytest.mark.parametrize(("commands", "here"), [(64, True), (65, False)])
async def test_a_large_group_is_written_in_the_thread(writer: Writer, commands: int, here: bool) -> None:
    ran = await asyncio.gather(*(writer.submit(thread_of) for _ in range(commands)))
    assert {one == threading.get_ident() for one in ran} == {here}


async def test_after_three_long_groups_in_a_row_the_thread_writes_for_a_while(
    writer: Writer, clock: Clock
) -> None:
    clock.step = 0.02
    for _ in range(3):
        assert await is_here(writer)
    clock.step = 0.0
    assert not await is_here(writer)
    clock.now += REST_S - 0.1
    assert not await is_here(writer)
    clock.now += 0.2
    assert await is_here(writer)


async def test_a_short_group_in_between_makes_it_count_anew(writer: Writer, clock: Clock) -> None:
    for _ in range(3):
        for clock.step in (0.02, 0.02, 0.001):
            assert await is_here(writer)


async def test_after_many_pages_the_thread_moves_the_log_and_writes_two_groups(writer: Writer) -> None:
    # A group of one is taken to be ten pages, and four thousand are many. The thread needs its time.
    before = 0
    while await is_here(writer):
        before += 1
        assert before < 100_000
    assert before >= 399
    assert [await is_here(writer) for _ in range(3)] == [False, True, True]


async def test_a_closed_writer_takes_nothing(writer: Writer) -> None:
    waiting = writer.submit(thread_of)
    assert (writer.is_busy, writer.is_closed, writer.is_full) == (True, False, False)
    await writer.aclose()
    assert waiting.done()
    assert (writer.is_busy, writer.is_closed, writer.is_full) == (False, True, True)
    with pytest.raises(StoreUnavailable, match=r"^the conversation store is closed$") as refused:
        writer.submit(thread_of, may_refuse=False)
    assert refused.value.retry_after == 1
    ran: list[object] = []
    writer.send(ran.append)
    await writer.aclose()
    await asyncio.sleep(0)
    assert not ran


async def test_so_many_may_wait_and_the_end_of_a_turn_always(writer: Writer) -> None:
    waiting = [writer.submit(thread_of) for _ in range(4096)]
    assert writer.is_full
    with pytest.raises(
        StoreUnavailable, match=r"^too many turns wait for the conversation store$"
    ) as refused:
        writer.submit(thread_of)
    assert refused.value.retry_after == 1
    ending = writer.submit(thread_of, may_refuse=False)
    await asyncio.gather(*waiting, ending)
    assert not writer.is_full


async def test_what_a_command_refuses_is_told_and_its_group_is_written(writer: Writer) -> None:
    def refuse(ledger: Ledger) -> None:
        raise InvalidRequest("no")

    refused, written = await asyncio.gather(
        writer.submit(refuse), writer.submit(thread_of), return_exceptions=True
    )
    assert isinstance(refused, InvalidRequest)
    assert written == threading.get_ident()

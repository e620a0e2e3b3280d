"""One turn at a time: who waits, who is turned away, and what becomes of a holder that died."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from modelway.conversations import Conversations, Turn
from modelway.conversations.claims import Claim
from modelway.errors import ConversationBusy, StoreUnavailable, UpstreamFailed
from modelway.types import Finish, TextDelta
from tests.conversations.holder import Holder
from tests.conversations.talk import (
    ME,
    ask,
    asking,
    begin,
    claim,
    complete,
    history,
    open_store,
    statuses,
    texts,
)
from tests.conversations.test_failures import full_disk
from tests.polling import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Conversations]:
    """A second holder of the same file as `store`."""
    async with aclosing(open_store(tmp_path, wait_s=0.2)) as opened:
        yield opened


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[Conversations]:
    """A holder that waits long."""
    async with aclosing(open_store(tmp_path, wait_s=20.0)) as opened:
        yield opened


def let_lease_run_out(folder: Path) -> None:
    """As when a holder stood still for longer than `lease_s`."""
    with closing(sqlite3.connect(folder / "kept" / "conversations.sqlite3")) as connection, connection:
        connection.execute("UPDATE conversations SET lease_until = 0 WHERE lease_turn IS NOT NULL")


@pytest.mark.check(4)
@pytest.mark.parametrize("same", [True, False])
async def test_who_waits_too_long_is_told_to_come_again(
    store: Conversations, other: Conversations, same: bool
) -> None:
    await begin(store, "c", "one")
    started = time.monotonic()
    with pytest.raises(ConversationBusy) as caught:
        await begin(store if same else other, "c", "two")
    assert 0.1 <= time.monotonic() - started < 4
    assert caught.value.retry_after
    assert caught.value.hint


async def test_other_conversations_do_not_wait(store: Conversations, other: Conversations) -> None:
    held = await begin(store, "c", "one")
    await ask(store, "d", "one", says="two")
    await ask(other, "e", "one", says="two")
    for name in ("d", "e"):
        assert await history(store, name) == ["one", "two"]
    await complete(held, "last")
    assert await history(store, "c") == ["one", "last"]


async def test_waiting_turns_are_let_in_in_the_order_in_which_they_came(patient: Conversations) -> None:
    turn = await begin(patient, "c", "0")
    answered: list[str] = []

    async def wait(text: str) -> None:
        mine = await begin(patient, "c", text)
        answered.append(text)
        await complete(mine, f"to {text}")

    waiting = []
    for number in range(1, 9):
        waiting.append(asyncio.ensure_future(wait(str(number))))
        await asyncio.sleep(0)
    await complete(turn, "to 0")
    await asyncio.gather(*waiting)
    assert answered == [str(number) for number in range(1, 9)]
    assert (await history(patient, "c"))[::2] == [str(number) for number in range(9)]


async def test_who_gives_up_does_not_hold_up_those_behind(patient: Conversations) -> None:
    turn = await begin(patient, "c", "one")
    first = asyncio.ensure_future(begin(patient, "c", "two"))
    second = asyncio.ensure_future(begin(patient, "c", "three"))
    await asyncio.sleep(0)
    first.cancel()
    await complete(turn, "1")
    assert texts((await second).request.messages) == ["one", "1", "three"]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_who_gives_up_when_let_in_does_not_keep_the_conversation(patient: Conversations) -> None:
    for steps in range(6):
        opening = asyncio.ensure_future(begin(patient, f"c{steps}", "one"))
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        (turn,) = await asyncio.gather(opening, return_exceptions=True)
        if isinstance(turn, Turn):
            turn.interrupt()  # it was too late to give up
        await asyncio.wait_for(ask(patient, f"c{steps}", "two"), 5)


async def test_a_line_is_not_endless(patient: Conversations) -> None:
    await begin(patient, "c", "one")
    waiting = [asyncio.ensure_future(begin(patient, "c", "more")) for _ in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(ConversationBusy):
        await begin(patient, "c", "too many")
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("end", ["finish", "fail", "interrupt"])
async def test_another_holder_goes_on_as_soon_as_the_turn_has_ended(
    store: Conversations, patient: Conversations, end: str
) -> None:
    turn = await begin(store, "c", "one")
    waiting = asyncio.ensure_future(begin(patient, "c", "two"))
    await asyncio.sleep(0)
    match end:
        case "finish":
            await complete(turn, "1")
        case "fail":
            await turn.fail(UpstreamFailed("no"))
        case _:
            turn.interrupt()
    given = texts((await asyncio.wait_for(waiting, 5)).request.messages)
    assert given == {"finish": ["one", "1", "two"], "fail": ["two"], "interrupt": ["one", "two"]}[end]


async def test_who_does_not_wait_is_told_at_once_and_leaves_the_line(
    store: Conversations, other: Conversations
) -> None:
    turn = await begin(other, "c", "one")
    told: list[Turn | None] = []
    assert store.open_soon(ME, asking("c", "two"), told.append)
    assert not store.open_soon(ME, asking("c", "three"), told.append), "one that is here already is first"
    await until(lambda: told)
    assert told == [None]
    await complete(turn, "1")
    await ask(store, "c", "two", says="2")
    assert store.open_soon(ME, asking("c", "three"), told.append)
    await until(lambda: len(told) == 2)
    assert told[1] is not None
    assert texts(told[1].request.messages) == ["one", "1", "two", "2", "three"]
    told[1].interrupt()


async def test_a_reader_ends_nothing_with_which_somebody_has_gone_on_meanwhile(
    store: Conversations, other: Conversations, tmp_path: Path
) -> None:
    turn = await store.open_turn(ME, replace(asking("c", "one"), stream=True))
    let_lease_run_out(tmp_path)
    file = tmp_path / "kept" / "conversations.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        reading = asyncio.ensure_future(other.streams.stored(ME, turn.id))
        await until(lambda: other._writer.is_busy)
        connection.execute("UPDATE conversations SET lease_until = 1e12 WHERE lease_turn IS NOT NULL")
        connection.execute("COMMIT")
    assert (await reading).ended_at is None
    await complete(turn, "1")
    assert statuses(await store.show(ME, "c")) == ["done"]


async def test_a_lease_is_held_however_many_wait(tmp_path: Path, other: Conversations) -> None:
    # Long enough that a machine which stops for a second does not end it.
    async with aclosing(open_store(tmp_path, lease_s=2.0)) as store:
        turn = await begin(store, "c", "one")
        ends_at = time.monotonic() + 2.6
        while time.monotonic() < ends_at:
            while not store._writer.is_full:
                store.shelf.measured("turn_never", 0.5)
            await asyncio.sleep(0)
        with pytest.raises(ConversationBusy):
            await begin(other, "c", "two")
        await complete(turn, "1")


async def test_a_key_whose_turn_could_not_be_ended_is_answered_by_what_had_come(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path, on_crash="continue")) as store:
        turn = await store.open_turn(ME, replace(asking("c", "one"), stream=True, when_left="grace"))
        assert (await claim(store, "k", turn.id)).is_new
        turn.record(TextDelta(text="half"))
        await turn.stored()
        with full_disk(), pytest.raises(StoreUnavailable):
            await complete(turn, "1")
        assert await claim(store, "k", "turn_2") == Claim(turn.id, is_new=False)
        assert statuses(await store.show(ME, "c")) == ["interrupted"]


async def lose(store: Conversations, other: Conversations, folder: Path) -> Turn:
    """A turn of `store` that `other` took for dead, and went on without."""
    turn = await begin(store, "c", "one")
    turn.record(TextDelta(text="half"))
    let_lease_run_out(folder)
    await ask(other, "c", "two", says="2")
    return turn


@pytest.mark.check(4)
async def test_a_turn_that_lost_its_lease_is_not_acknowledged_and_overwrites_nothing(
    store: Conversations, other: Conversations, tmp_path: Path
) -> None:
    turn = await lose(store, other, tmp_path)
    before = await other.show(ME, "c")
    with pytest.raises(ConversationBusy):
        await complete(turn, " an answer")
    assert await other.show(ME, "c") == before
    assert texts(before.messages)[-2:] == ["two", "2"]
    assert statuses(before) == ["interrupted", "done"]
    await ask(store, "c", "three", says="3")
    assert (await history(other, "c"))[-4:] == ["two", "2", "three", "3"]


@pytest.mark.parametrize("end", ["fail", "interrupt"])
async def test_a_turn_that_lost_its_lease_ends_without_a_trace(
    store: Conversations, other: Conversations, tmp_path: Path, end: str
) -> None:
    turn = await lose(store, other, tmp_path)
    before = await other.show(ME, "c")
    turn.record(TextDelta(text=" an answer"))
    if end == "fail":
        await turn.fail(UpstreamFailed("no"))
    else:
        turn.interrupt()
    await store.ready()
    assert await other.show(ME, "c") == before


async def test_a_turn_that_lost_its_lease_cannot_end_the_next_one(
    store: Conversations, other: Conversations, tmp_path: Path
) -> None:
    turn = await begin(store, "c", "one")
    let_lease_run_out(tmp_path)
    following = await begin(other, "c", "two")
    turn.interrupt()
    await store.ready()
    with pytest.raises(ConversationBusy):
        await begin(store, "c", "three")
    await complete(following, "2")
    assert await history(store, "c") == ["one", "two", "2"]


async def test_a_living_holder_keeps_a_long_turn(tmp_path: Path) -> None:
    async with (
        aclosing(open_store(tmp_path, lease_s=1.0)) as store,
        aclosing(open_store(tmp_path, lease_s=1.0, wait_s=1.6)) as other,
    ):
        turn = await begin(store, "c", "one")
        with pytest.raises(ConversationBusy):
            await begin(other, "c", "two")
        await complete(turn, "1")
        assert await history(other, "c") == ["one", "1"]


async def wait_for_text(store: Conversations, conversation_id: str, text: str) -> None:
    async def is_there() -> bool:
        answer = (await store.show(ME, conversation_id)).turns[-1].answer
        return answer is not None and answer.text == text

    await until(is_there)


@pytest.mark.check(4)
async def test_a_killed_holder_gives_its_conversation_up_at_once(
    tmp_path: Path, store: Conversations
) -> None:
    with Holder(tmp_path, lease_s=1000) as holder:
        holder.tell("begin c one")
        holder.tell("say half an answer")
        await wait_for_text(store, "c", "half an answer")
        with pytest.raises(ConversationBusy):
            await begin(store, "c", "two")
        holder.kill()
        turn = await begin(store, "c", "two")
    assert texts(turn.request.messages) == ["one", "half an answer", "two"]
    assert statuses(await store.show(ME, "c")) == ["interrupted", "open"]


async def test_what_a_killed_holder_left_is_mended_when_the_store_is_opened(tmp_path: Path) -> None:
    with Holder(tmp_path, lease_s=1000) as holder:
        for name in ("c", "d"):
            holder.tell(f"begin {name} one")
            holder.tell("say half")
        async with aclosing(open_store(tmp_path)) as store:
            await wait_for_text(store, "d", "half")
        holder.kill()
    async with aclosing(open_store(tmp_path)) as store:
        for name in ("c", "d"):
            assert statuses(await store.show(ME, name)) == ["interrupted"]
            assert await history(store, name) == ["one", "half"]
        locks = list((tmp_path / "kept" / "leases").glob("*.lock"))
        assert len(locks) == 1, "only that of the living holder is left"


async def left(folder: Path) -> None:
    """Let a holder be killed in the middle of a stream, with which somebody may go on."""
    with Holder(folder, on_crash="continue") as holder:
        holder.tell("open turn_1")
        holder.tell("say half")
        async with aclosing(open_store(folder, on_crash="continue")) as store:
            await until(lambda: has_text(store, "turn_1"))
        holder.kill()


async def test_what_a_killed_holder_left_waits_for_its_reader_and_then_is_ended(tmp_path: Path) -> None:
    await left(tmp_path)
    async with aclosing(open_store(tmp_path, on_crash="continue")) as store:
        assert (await store.streams.stored(ME, "turn_1")).ended_at is None
        await store.pruner.prune(time.time() + 30)
        assert (await store.streams.stored(ME, "turn_1")).ended_at is None
        await store.pruner.prune(time.time() + 90)
        assert (await store.streams.stored(ME, "turn_1")).ended_at is not None
        assert await store.take_over(ME, "turn_1") is None


async def test_what_a_killed_holder_left_is_ended_where_nobody_is_to_go_on(tmp_path: Path) -> None:
    await left(tmp_path)
    for on_crash in ("continue", "interrupt"):
        async with aclosing(open_store(tmp_path, on_crash=on_crash)) as store:
            ended_at = (await store.streams.stored(ME, "turn_1")).ended_at
            assert (ended_at is not None) == (on_crash == "interrupt")


async def test_one_of_many_takes_over_what_a_killed_holder_left(tmp_path: Path) -> None:
    await left(tmp_path)
    async with (
        aclosing(open_store(tmp_path, on_crash="continue")) as store,
        aclosing(open_store(tmp_path, on_crash="continue")) as other,
    ):
        assert await store.take_over("somebody else", "turn_1") is None
        taken = await asyncio.gather(*(one.take_over(ME, "turn_1") for one in (store, other)))
        [turn] = [one for one in taken if one is not None]
        assert texts(turn.request.messages) == ["one"]
        assert turn.so_far().text == "half"
        turn.record(TextDelta(text=" and half"))
        await turn.stored()
        turn.record(Finish())
        await turn.finish("Provider", "model-1")
        told = await (await other.streams.stored(ME, turn.id)).after(0)
    assert list(told) == [TextDelta(text="half"), TextDelta(text=" and half"), Finish()]


@pytest.mark.parametrize("opened", ["nothing", "a hidden turn", "one with text"])
async def test_a_key_of_a_killed_holder_is_free_unless_its_turn_began(tmp_path: Path, opened: str) -> None:
    with Holder(tmp_path, lease_s=1000) as holder:
        holder.tell("claim k turn_1")
        if opened != "nothing":
            holder.tell("open turn_1")
        if opened == "one with text":
            holder.tell("say half")
            async with aclosing(open_store(tmp_path)) as store:
                await until(lambda: has_text(store, "turn_1"))
        holder.kill()
    async with aclosing(open_store(tmp_path)) as store:
        began = opened == "one with text"
        assert await claim(store, "k", "turn_2") == Claim("turn_1" if began else "turn_2", is_new=not began)


async def has_text(store: Conversations, turn: str) -> bool:
    return (await store.streams.stored(ME, turn)).last is not None


async def test_a_holder_that_stood_still_loses_its_turn_when_the_lease_runs_out(
    tmp_path: Path, patient: Conversations
) -> None:
    with Holder(tmp_path, lease_s=0.3) as holder:
        holder.tell("begin c one")
        holder.tell("say half")
        await wait_for_text(patient, "c", "half")
        holder.stop()
        turn = await begin(patient, "c", "two")
        await complete(turn, "2")
        holder.resume()
        assert holder.tell("finish") == "conversation_busy"
    assert await history(patient, "c") == ["one", "half", "two", "2"]

"""Turns that belong to the gateway: read along by many, here and elsewhere, again, and stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.config import ConversationSettings, Settings
from modelway.errors import (
    IdempotencyKeyReused,
    ModelNotFound,
    NotFound,
    StoreUnavailable,
    TurnInterrupted,
    UpstreamOverloaded,
    UpstreamProtocolError,
)
from modelway.gateway import Gateway
from modelway.types import Caller, ChatRequest, Event, Finish, Message, TextDelta
from tests.conversations.talk import statuses
from tests.polling import until
from tests.scripted import Script, Scripted, Step, says
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio
ME = Caller("me")


def asking(text: str = "hello", **fields: Any) -> ChatRequest:
    """A request to go on with a conversation."""
    named = {"conversation_id": "c", "stream": True, **fields}
    return ChatRequest(messages=(Message(role="user", content=text),), **named)


def gateway(folder: Path, *scripts: Script, **settings: Any) -> tuple[Gateway, Scripted]:
    """A gateway whose provider plays these scripts."""
    local = Scripted("Local", *scripts)
    kept = ConversationSettings(**{"wait_s": 0.2, "checkpoint_s": 0.02, **settings})
    return gateway_of([local], folder, Settings(provider="Local", conversations=kept)), local


async def read(gateway: Gateway, turn: str, after: int = 0, caller: Caller = ME) -> list[Event]:
    """The events of a turn to its end."""
    async with aclosing(gateway.live.subscribe(caller, turn, after=after)) as events:
        return [event async for _, event in events]


def text(events: list[Event]) -> str:
    """What the events say."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_who_reads_along_is_told_that_the_end_could_not_be_stored(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    made, _ = gateway(tmp_path, [TextDelta(text="a"), go_on, *says("b")])
    async with aclosing(made):
        turn = made.live.begin(asking(), ME)
        await turn.begun()
        reading = asyncio.create_task(read(made, turn.id))
        [file] = tmp_path.glob("*.sqlite3")
        aside = file.rename(tmp_path / "aside")
        go_on.set()
        async with asyncio.timeout(10):
            with pytest.raises(StoreUnavailable):
                await reading
        aside.rename(file)


async def test_many_read_one_turn_from_any_event_on(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    made, local = gateway(tmp_path, [TextDelta(text="a"), TextDelta(text="b"), go_on, *says("c", "d")])
    async with aclosing(made):
        turn = made.live.begin(asking(), ME)
        early = asyncio.create_task(read(made, turn.id))
        log = await turn.begun()
        late = [asyncio.create_task(read(made, turn.id, after)) for after in range(6)]
        assert (log.head.provider, log.head.model) == ("Local", "local-1")
        assert [running.turn_id for running in await made.live.running(ME)] == [turn.id]
        assert await made.live.running(Caller("other")) == []
        go_on.set()
        whole = await early
        for after, reading in enumerate(late):
            assert await reading == whole[after:]
        kept = [await read(made, turn.id, after) for after in range(6)]
        assert await made.live.running(ME) == []
    assert text(whole) == "abcd"
    assert isinstance(whole[-1], Finish)
    assert kept == [whole[after:] for after in range(6)]
    assert len(local.requests) == 1


async def test_another_process_reads_along_and_after_a_restart(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    made, _ = gateway(tmp_path, [TextDelta(text="a", raw=b"data: {}\n\n"), go_on, *says("b")])
    other, _ = gateway(tmp_path)
    async with aclosing(other), aclosing(made):
        turn = made.live.begin(asking(), ME)
        await turn.begun()
        elsewhere = asyncio.create_task(read(other, turn.id))
        await until(lambda: has_running(other))
        go_on.set()
        whole = await read(made, turn.id)
        assert await elsewhere == whole
    again, _ = gateway(tmp_path)
    async with aclosing(again):
        assert await read(again, turn.id, 1) == whole[1:]
        with pytest.raises(NotFound):
            await read(again, turn.id, caller=Caller("other"))


async def has_running(gateway: Gateway) -> bool:
    return bool(await gateway.live.running(ME))


async def is_idle(gateway: Gateway) -> bool:
    return not await has_running(gateway)


async def test_a_turn_goes_on_without_readers_and_is_cut_off_at_the_end_of_the_gateway(
    tmp_path: Path,
) -> None:
    go_on, never = asyncio.Event(), asyncio.Event()
    script: list[Step] = [TextDelta(text="a"), go_on, TextDelta(text="b"), never]
    made, local = gateway(tmp_path, script)
    async with aclosing(made):
        turn = made.live.begin(asking(), ME)
        log = await turn.begun()
        go_on.set()
        assert len(await log.after(1)) == 1
        reading = asyncio.create_task(read(made, turn.id))
    with pytest.raises(TurnInterrupted):
        await reading
    assert local.closed == 1
    again, _ = gateway(tmp_path)
    async with aclosing(again):
        with pytest.raises(TurnInterrupted):
            await read(again, turn.id)
        shown = await again.conversations.show("me", "c")
        assert (statuses(shown), shown.messages[-1].text) == (["interrupted"], "ab")


async def test_a_turn_can_be_stopped_by_its_caller_only(tmp_path: Path) -> None:
    made, local = gateway(tmp_path, [TextDelta(text="half"), asyncio.Event()])
    async with aclosing(made):
        turn = made.live.begin(asking(), ME)
        await turn.begun()
        with pytest.raises(NotFound):
            await made.live.cancel(Caller("other"), turn.id)
        assert await made.live.cancel(ME, turn.id)
        assert local.closed == 1
        assert not await made.live.cancel(ME, turn.id)
        shown = await made.conversations.show("me", "c")
    assert [(turn.status, turn.finish_reason) for turn in shown.turns] == [("interrupted", "cancelled")]
    assert shown.messages[-1].text == "half"


async def test_errors_before_and_after_the_first_piece_reach_all_readers(tmp_path: Path) -> None:
    made, _ = gateway(
        tmp_path, [UpstreamProtocolError("no")], [TextDelta(text="a"), UpstreamOverloaded("busy")]
    )
    async with aclosing(made):
        with pytest.raises(ModelNotFound):
            await read(made, made.live.begin(asking(model="nothing"), ME).id)
        failing = made.live.begin(asking(), ME)
        with pytest.raises(UpstreamProtocolError):
            await failing.begun()
        turn = made.live.begin(asking(), ME)
        with pytest.raises(UpstreamOverloaded):
            await read(made, turn.id)
        with pytest.raises(UpstreamOverloaded, match="busy"):
            await read(made, turn.id)


async def test_a_reader_that_leaves_does_not_end_a_turn_within_the_grace_time(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    made, local = gateway(tmp_path, [TextDelta(text="a"), go_on, *says("b")])
    async with aclosing(made):
        turn = made.live.begin(asking(when_left="grace"), ME)
        async with aclosing(made.live.subscribe(ME, turn.id)) as events:
            await anext(events)
        go_on.set()
        assert text(await read(made, turn.id, 1)) == "b"
    made, local = gateway(tmp_path, [TextDelta(text="c"), asyncio.Event()], reconnect_grace_s=0.01)
    async with aclosing(made):
        turn = made.live.begin(asking(when_left="grace"), ME)
        async with aclosing(made.live.subscribe(ME, turn.id)) as events:
            await anext(events)
        await until(lambda: is_idle(made))
        with pytest.raises(TurnInterrupted):
            await read(made, turn.id, 1)
        assert local.closed == 1


@pytest.mark.check(5)
@pytest.mark.check(5)
async def test_ten_equal_requests_at_once_are_one_turn(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    made, local = gateway(tmp_path, [go_on, *says("once")])
    other, elsewhere = gateway(tmp_path)
    async with aclosing(made), aclosing(other):
        once = [made.live.begin_once(asking(conversation_id=""), ME, "k", b"1") for _ in range(10)]
        turns = asyncio.gather(*once)
        # Otherwise the other server might be the first.
        await until(lambda: has_running(made))
        also = [other.live.begin_once(asking(conversation_id=""), ME, "k", b"1") for _ in range(3)]
        others = asyncio.gather(*also)
        go_on.set()
        (turn,) = {*await turns, *await others}
        assert await read(other, turn) == await read(made, turn)
        with pytest.raises(IdempotencyKeyReused):
            await other.live.begin_once(asking("else"), ME, "k", b"2")
        assert await made.live.begin_once(asking("else"), Caller("other"), "k", b"2") != turn
    assert len(local.requests) + len(elsewhere.requests) == 2


async def test_a_key_is_free_again_where_nothing_came(tmp_path: Path) -> None:
    made, local = gateway(tmp_path, [UpstreamProtocolError("no")], says("yes"))
    async with aclosing(made):
        first = await made.live.begin_once(asking(conversation_id=""), ME, "k", b"1")
        with pytest.raises(UpstreamProtocolError):
            await read(made, first)
        second = await made.live.begin_once(asking(conversation_id=""), ME, "k", b"2")
        assert text(await read(made, second)) == "yes"
    assert len(local.requests) == 2


@pytest.mark.parametrize("steps", range(1, 5))
async def test_a_key_is_free_where_its_client_left_before_its_turn_was_begun(
    tmp_path: Path, steps: int
) -> None:
    made, _ = gateway(tmp_path)
    other, _ = gateway(tmp_path)
    async with aclosing(other), aclosing(made), asyncio.timeout(5):
        asked = asyncio.create_task(made.live.begin_once(asking(conversation_id=""), ME, "k", b"1"))
        for _ in range(steps):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait((asked,))
        turn = await other.live.begin_once(asking(conversation_id=""), ME, "k", b"1")
        assert text(await read(other, turn)) == "hello"


async def test_a_turn_is_stopped_from_elsewhere(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    more: list[Step] = [TextDelta(text="x"), go_on, TextDelta(text="never told")]
    made, local = gateway(tmp_path, [*more, asyncio.Event()], lease_s=0.06)
    other, _ = gateway(tmp_path)
    async with aclosing(other), aclosing(made):
        turn = made.live.begin(asking(), ME)
        await turn.begun()
        assert await other.live.cancel(ME, turn.id)
        assert not await other.live.cancel(ME, turn.id)
        shown = await other.conversations.show("me", "c")
        assert [(one.status, one.finish_reason) for one in shown.turns] == [("interrupted", "cancelled")]
        await until(lambda: has_lost(made, turn.id))
        go_on.set()
        with pytest.raises(TurnInterrupted):
            await read(made, turn.id)
        await until(lambda: is_closed(local))
        assert (await other.conversations.show("me", "c")).messages[-1].text in ("hello", "x")


async def test_a_turn_is_noted_as_it_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Scripted):
        async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
            yield TextDelta(text="x")
            if request.messages[-1].text == "break":
                raise ZeroDivisionError("a bug")
            await asyncio.Event().wait()

    made = gateway_of([Broken("Local")], tmp_path, Settings(provider="Local"))
    ended: list[tuple[int, str]] = []
    made.live.on_end = lambda record, completion: ended.append((record.status, record.code))
    async with aclosing(made):
        broken = made.live.begin(asking("break"), ME)
        assert broken.task is not None
        await asyncio.wait((broken.task,))
        stopped = made.live.begin(asking(), ME)
        await stopped.begun()
        await made.live.cancel(ME, stopped.id)
        await made.live.begin(asking(conversation_id="d"), ME).begun()
    assert ended == [(500, "internal_error"), (499, ""), (499, "turn_interrupted")]
    assert f"turn {broken.id} failed" in caplog.text
    assert "a bug" in caplog.text


async def has_lost(gateway: Gateway, turn: str) -> bool:
    found = gateway.conversations._recorder.turn(turn)
    return found is None or found.is_lost


async def is_closed(local: Scripted) -> bool:
    return local.closed > 0


async def test_a_reader_at_another_server_keeps_a_turn_from_ending(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    made, local = gateway(tmp_path, [TextDelta(text="a"), go_on, *says("b")], reconnect_grace_s=0.6)
    other, _ = gateway(tmp_path, reconnect_grace_s=0.6)
    async with aclosing(other), aclosing(made):
        turn = made.live.begin(asking(when_left="grace"), ME)
        async with aclosing(made.live.subscribe(ME, turn.id)) as events:
            await anext(events)
            elsewhere = asyncio.create_task(read(other, turn.id))
            await until(lambda: is_read_elsewhere(made, turn.id))
        begun = time.monotonic()
        await until(lambda: has_waited(begun, 1.0))
        go_on.set()
        assert text(await elsewhere) == "ab"
    assert local.closed == 1


async def is_read_elsewhere(gateway: Gateway, turn: str) -> bool:
    return await gateway.conversations.streams.read_until(turn) > 0


async def has_waited(begun: float, wait_s: float) -> bool:
    return time.monotonic() - begun > wait_s

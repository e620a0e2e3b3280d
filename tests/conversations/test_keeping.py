"""What the store keeps for a while only, and what it does not give up at once."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from modelway.conversations import Conversations, Turn, new_turn_id
from modelway.conversations.claims import Asking
from modelway.conversations.log import Head, Log, decode_piece, encode_piece
from modelway.errors import ConversationNotFound, NotFound, StoreUnavailable, UpstreamProtocolError
from modelway.types import Citation, Event, Finish, TextDelta, ToolCallDelta
from tests.conversations.talk import (
    ME,
    ask,
    asking,
    begin,
    complete,
    history,
    open_store,
    statuses,
    user,
)
from tests.conversations.test_responses import request, respond, rows
from tests.polling import until

pytestmark = pytest.mark.anyio
DAY_S = 86400.0


async def stream(store: Conversations, name: str, **fields: Any) -> Turn:
    """A streamed turn that is answered to the end."""
    named = {"conversation_id": name} if name else {"store": True}
    asked = asking("c", "hello")
    turn = await store.open_turn(
        ME, replace(asked, stream=True, **{"conversation_id": "", **named, **fields})
    )
    await complete(turn, "hi")
    return turn


async def test_streams_and_keys_are_kept_for_a_day(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path)) as store:
        turn = await stream(store, "c")
        running = await begin(store, "d", "hello")
        key = Asking(ME, "k", b"1", turn.id)
        assert (await store.streams.claim(key, lambda turn: False)).is_new
        await store.pruner.prune(time.time() + DAY_S - 60)
        assert [item async for item in items(store, turn)] == [TextDelta(text="hi"), Finish()]
        again = key._replace(turn=new_turn_id())
        assert (await store.streams.claim(again, lambda turn: False)).turn == turn.id
        await store.pruner.prune(time.time() + DAY_S + 60)
        with pytest.raises(NotFound, match="not kept") as caught:
            await store.streams.stored(ME, turn.id)
        assert (caught.value.code, caught.value.hint) == (
            "stream_not_found",
            "the conversation has the answer",
        )
        assert (await store.streams.claim(again, lambda turn: False)).is_new
        assert await history(store, "c") == ["hello", "hi"]
        await complete(running, "still here")


async def test_a_key_whose_turn_never_came_is_free_after_a_minute(tmp_path: Path) -> None:
    key = Asking(ME, "k", b"1", new_turn_id())
    async with aclosing(open_store(tmp_path)) as other, aclosing(open_store(tmp_path)) as store:
        assert (await other.streams.claim(key, lambda turn: True)).is_new
        again = key._replace(turn=new_turn_id())
        assert not (await store.streams.claim(again, lambda turn: False)).is_new
        with closing(sqlite3.connect(tmp_path / "kept" / "conversations.sqlite3")) as database, database:
            database.execute("UPDATE request_keys SET created_at = created_at - 66")
        assert (await store.streams.claim(again, lambda turn: False)).is_new
        other.streams.give_up(key)
        await other.streams.settled()
        assert not (await store.streams.claim(key, lambda turn: True)).is_new


async def items(store: Conversations, turn: Turn) -> Any:
    log = await store.streams.stored(ME, turn.id)
    place = 0
    while found := await log.after(place):
        place += len(found)
        for item in found:
            yield item


async def test_a_log_of_many_pieces_is_stored_when_that_is_asked_for_and_read_to_its_end(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"on_crash": "continue", "checkpoint_s": 3600}
    async with asyncio.timeout(30), aclosing(open_store(tmp_path, **settings)) as store:
        turn = await store.open_turn(ME, replace(asking("c", "hello"), stream=True))
        for number in range(40):
            turn.record(TextDelta(text=f"{number} "))
            await turn.stored()
        await complete(turn, "end")
        log = await store.streams.stored(ME, turn.id)
        read: list[Any] = []
        while items := await log.after(len(read)):
            read += items
    assert "".join(one.text for one in read[:-1]) == " ".join([*map(str, range(40)), "end"])
    assert isinstance(read[-1], Finish)
    assert log.ended_at is not None


@pytest.mark.parametrize(
    ("on_crash", "fields", "survives"),
    [
        ("continue", {"stream": True}, True),
        ("continue", {"when_left": "grace"}, True),
        ("continue", {}, False),
        ("interrupt", {"stream": True}, False),
    ],
)
async def test_a_turn_survives_its_server_where_it_can_be_read_again_and_the_settings_want_it(
    tmp_path: Path, on_crash: str, fields: dict[str, Any], survives: bool
) -> None:
    async with aclosing(open_store(tmp_path, on_crash=on_crash)) as store:
        turn = await store.open_turn(ME, replace(asking("c", "hello"), **fields))
        assert turn.survives is survives
        assert (turn.log is not None) is bool(fields)
        turn.interrupt()


async def test_who_reads_a_turn_that_failed_is_told_its_error(store: Conversations) -> None:
    turn = await store.open_turn(ME, replace(asking("c", "hello"), stream=True))
    await turn.fail(UpstreamProtocolError("it was cut", code="upstream_reset"))
    with pytest.raises(UpstreamProtocolError, match=r"^it was cut") as caught:
        await store.streams.stored(ME, turn.id)
    assert caught.value.code == "upstream_reset"


async def test_responses_outside_of_conversations_are_kept_for_thirty_days(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path)) as store:
        first = await respond(store, "1")
        await respond(store, "2", conversation_id="c")
        unasked = await stream(store, "")
        await store.pruner.prune(time.time() + DAY_S + 60)
        assert await rows(tmp_path, "conversations") == 2
        with pytest.raises(NotFound):
            await store.streams.stored(ME, unasked.id)
        second = await respond(store, "3", after_turn=first.id)
        with closing(sqlite3.connect(tmp_path / "kept" / "conversations.sqlite3")) as database, database:
            name = "~" + first.id
            database.execute("UPDATE conversations SET updated_at = 1 WHERE name = ?", (name,))
        await store.pruner.prune(time.time() + 60)
        with pytest.raises(NotFound):
            await store.turn(ME, first.id)
        assert (await store.turn(ME, second.id)).turn.answer is not None
        assert (await store.after(ME, request("4", after_turn=second.id))).new_from == 4
        await store.pruner.prune(time.time() + 31 * DAY_S)
        assert await rows(tmp_path, "conversations") == 1
        assert await history(store, "c") == ["2", "yes"]
    async with aclosing(open_store(tmp_path, response_days=0)) as store:
        kept = await respond(store, "1")
        await store.pruner.prune(time.time() + 1000 * DAY_S)
        assert (await store.turn(ME, kept.id)).turn.status == "done"


@pytest.mark.parametrize(("streams", "is_kept"), [(False, False), (True, True)])
async def test_a_hidden_turn_that_nobody_was_told_of_goes_with_its_holder(
    tmp_path: Path, streams: bool, is_kept: bool
) -> None:
    async with aclosing(open_store(tmp_path, checkpoint_s=0.01)) as one:
        turn = await one.open_turn(ME, request("1", stream=streams))
        turn.record(TextDelta(text="half"))
        await until(lambda: has_rows(tmp_path, "checkpoints"))
        with closing(sqlite3.connect(tmp_path / "kept" / "conversations.sqlite3")) as database, database:
            database.execute("UPDATE conversations SET lease_until = 0")
        async with aclosing(open_store(tmp_path)) as other:
            assert await other.streams.running(ME) == []
            assert await other.streams.end_if_lost(ME, turn.id)
            assert bool(await rows(tmp_path, "conversations")) is is_kept


async def test_nobody_sees_a_turn_run_for_ever_whose_holder_is_gone(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path)) as one, aclosing(open_store(tmp_path)) as other:
        await begin(one, "c", "hello")
        assert [turn.conversation_id for turn in await other.streams.running(ME)] == ["c"]
        with closing(sqlite3.connect(tmp_path / "kept" / "conversations.sqlite3")) as database, database:
            database.execute("UPDATE conversations SET lease_until = 0")
        assert await other.streams.running(ME) == []
        assert statuses(await other.show(ME, "c")) == ["interrupted"]


async def has_rows(folder: Path, table: str) -> bool:
    return await rows(folder, table) > 0


async def test_the_end_of_a_turn_is_written_again_where_that_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "kept" / "conversations.sqlite3"
    async with aclosing(open_store(tmp_path)) as store:
        turn = await begin(store, "c", "hello")
        turn.record(TextDelta(text="all of it"))
        turn.record(Finish())
        with caplog.at_level(logging.WARNING, logger="modelway"):
            file.rename(tmp_path / "away")
            ending = asyncio.create_task(turn.finish("Provider", "model-1"))
            await until(lambda: has_warned(caplog))
            (tmp_path / "away").rename(file)
        await ending
        assert await history(store, "c") == ["hello", "all of it"]
        await ask(store, "c", "more")


async def has_warned(caplog: pytest.LogCaptureFixture) -> bool:
    return bool(caplog.records)


async def test_it_is_given_up_after_a_while_and_the_conversation_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "conversations.sqlite3"
    async with aclosing(open_store(tmp_path)) as store:
        turn = await begin(store, "c", "hello")
        turn.record(Finish())
        file.rename(tmp_path / "away")
        with pytest.raises(StoreUnavailable):
            await turn.finish("Provider", "model-1")
        (tmp_path / "away").rename(file)
        await ask(store, "c", "more")
        assert await history(store, "c") == ["hello", "more", "yes"]


def test_a_piece_of_a_log_holds_what_json_cannot() -> None:
    log = Log(Head(turn="t", created_at=1.0))
    broken: list[Event] = [
        TextDelta(text="\ud83d"),
        ToolCallDelta(arguments="\udc00"),
        Citation(url="\ud83d"),
    ]
    for item in (*broken, TextDelta(text="x" * 5000, raw=b"\xff\x00")):
        log.add(item)
    piece = log.take(Finish())
    assert log.take() == encode_piece([])
    head, *read = decode_piece(piece)
    assert head == log.head
    assert len(read) == 5
    assert read[3] == log.items[3]
    assert user("x").text == "x"


@pytest.mark.parametrize(
    ("length", "is_small"), [(900, False), (5000, True), (60_000, True), (70_000, False)]
)
def test_pieces_that_are_worth_it_are_compressed(length: int, is_small: bool) -> None:
    items = [TextDelta(text="x" * length), TextDelta(text="y")]
    piece = encode_piece(items)
    assert (len(piece) < length / 10) is is_small
    assert decode_piece(piece) == items
    assert len(encode_piece(items, compact=False)) > length


async def test_notes_that_are_made_at_the_same_time_are_all_kept(store: Conversations) -> None:
    await ask(store, "c", "one")
    await store.shelf.annotate(ME, "c", {"old": "1", "other": "2"})
    noted = {f"key-{number}": str(number) for number in range(9)}
    await asyncio.gather(
        store.shelf.note(ME, "c", "old", ""),
        *(store.shelf.note(ME, "c", key, value) for key, value in noted.items()),
    )
    assert (await store.show(ME, "c")).metadata == {"other": "2", **noted}
    with pytest.raises(ConversationNotFound):
        await store.shelf.note(ME, "d", "key", "value")
    with pytest.raises(ConversationNotFound):
        await store.shelf.note("somebody else", "c", "key", "value")

"""What was acknowledged is there after a kill, and what was not is there as far as it came."""

from __future__ import annotations

import sqlite3
import time
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from modelway.conversations import Conversations
from modelway.types import Message, TextDelta, ToolCall, ToolCallDelta
from tests.conversations.holder import Holder
from tests.conversations.talk import ME, ask, begin, complete, history, open_store, statuses
from tests.polling import until

pytestmark = pytest.mark.anyio


async def test_a_turn_that_was_finished_survives_a_kill(tmp_path: Path) -> None:
    with Holder(tmp_path) as holder:
        for number in range(3):
            holder.tell(f"begin c question {number}")
            holder.tell(f"say answer {number}")
            assert holder.tell("finish") == "ok"
        holder.kill()
    async with aclosing(open_store(tmp_path)) as store:
        shown = await store.show(ME, "c")
        assert [message.text for message in shown.messages] == [
            "question 0",
            "answer 0",
            "question 1",
            "answer 1",
            "question 2",
            "answer 2",
        ]
        assert statuses(shown) == ["done"] * 3


async def test_a_question_survives_a_kill_before_its_answer(tmp_path: Path) -> None:
    with Holder(tmp_path, lease_s=1000) as holder:
        holder.tell("begin c question")
        holder.kill()
    async with aclosing(open_store(tmp_path)) as store:
        assert await history(store, "c") == ["question"]
        await ask(store, "c", "next", says="answer")
        assert await history(store, "c") == ["question", "next", "answer"]


async def test_a_finished_turn_can_be_read_from_the_file_alone(store: Conversations, tmp_path: Path) -> None:
    await ask(store, "c", "question", says="answer")
    with closing(sqlite3.connect(tmp_path / "kept" / "conversations.sqlite3")) as connection:
        rows = connection.execute("SELECT role, text FROM messages ORDER BY depth").fetchall()
        leases = connection.execute("SELECT lease_turn FROM conversations").fetchall()
    assert rows == [("user", "question"), ("assistant", "answer")]
    assert leases == [(None,)]


async def test_of_a_plain_message_only_its_text_is_written(store: Conversations, tmp_path: Path) -> None:
    await ask(store, "c", "hello", Message(role="user", content="named", name="Heiner"))
    with closing(sqlite3.connect(tmp_path / "kept" / "conversations.sqlite3")) as database:
        rows = database.execute("SELECT text, rest IS NULL FROM messages ORDER BY depth").fetchall()
    assert rows == [("hello", 1), ("named", 0), ("yes", 1)]


async def test_the_text_of_an_open_turn_is_written_while_it_grows(tmp_path: Path) -> None:
    async with (
        aclosing(open_store(tmp_path, checkpoint_s=0.1)) as store,
        aclosing(open_store(tmp_path)) as other,
    ):
        turn = await begin(store, "c", "question")
        so_far = ""
        for piece in ("one ", "two ", "three"):
            so_far += piece
            recorded = time.monotonic()
            turn.record(TextDelta(text=piece))

            async def is_there(wanted: str = so_far) -> bool:
                answer = (await other.show(ME, "c")).turns[0].answer
                return answer is not None and answer.text == wanted

            await until(is_there)
            assert time.monotonic() - recorded < 3
        assert statuses(await other.show(ME, "c")) == ["open"]
        await complete(turn, "")
        assert await history(other, "c") == ["question", "one two three"]


async def test_much_text_is_written_without_waiting(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path, checkpoint_s=1000)) as store:
        turn = await begin(store, "c", "question")
        turn.record(TextDelta(text="x" * 5000))

        async def is_there() -> bool:
            answer = (await store.show(ME, "c")).turns[0].answer
            return answer is not None and len(answer.text) == 5000

        await until(is_there)


async def test_a_tool_call_that_was_cut_off_is_kept(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path, checkpoint_s=0.02)) as store:
        turn = await begin(store, "c", "question")
        turn.record(TextDelta(text="I call"))
        turn.record(ToolCallDelta(id="call_1", name="add", arguments='{"a":'))

        async def is_there() -> bool:
            answer = (await store.show(ME, "c")).turns[0].answer
            return answer is not None and answer.tool_calls == (ToolCall("call_1", "add", '{"a":'),)

        await until(is_there)


async def test_checkpoints_are_gone_when_the_turn_has_ended(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path, checkpoint_s=0.01)) as store:
        turn = await begin(store, "c", "question")
        turn.record(TextDelta(text="half"))

        async def is_there() -> bool:
            return (await store.show(ME, "c")).turns[0].answer is not None

        await until(is_there)
        await complete(turn, " and half")
        with closing(sqlite3.connect(tmp_path / "kept" / "conversations.sqlite3")) as connection:
            assert connection.execute("SELECT count(*) FROM checkpoints").fetchone() == (0,)


@pytest.mark.parametrize(("synchronous", "level"), [("normal", 1), ("full", 2)])
async def test_the_setting_decides_whether_each_commit_reaches_the_disk(
    tmp_path: Path, synchronous: str, level: int
) -> None:
    from modelway.conversations.database import Database

    database = Database(tmp_path / "c.sqlite3", synchronous)  # type: ignore[arg-type]
    with closing(database.ledger()) as ledger:
        assert ledger.one("PRAGMA synchronous", {}) == (level,)
        assert ledger.one("PRAGMA journal_mode", {}) == ("wal",)

"""Turns that can be asked for by their id: continued, shown, forgotten; also on an upgraded database."""

from __future__ import annotations

import sqlite3
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest

from modelway.conversations import Conversations, Turn, refuse_contradictions
from modelway.errors import (
    ConversationBusy,
    ConversationNotFound,
    InvalidRequest,
    NotFound,
    UpstreamFailed,
)
from modelway.types import (
    THIS_TURN_ONLY,
    ChatRequest,
    Finish,
    ImagePart,
    Message,
    TextDelta,
    TextPart,
    UpstreamState,
)
from tests.conversations.talk import ME, ask, begin, complete, history, open_store, system, texts, user
from tests.polling import until

pytestmark = pytest.mark.anyio


def request(*messages: Message | str, **fields: Any) -> ChatRequest:
    """A request whose answer can be asked for."""
    said = tuple(user(one) if isinstance(one, str) else one for one in messages)
    return ChatRequest(messages=said, **{"store": True, "echo": {"metadata": {"a": "b"}}, **fields})


async def respond(
    store: Conversations,
    *messages: Message | str,
    says: str = "yes",
    state: dict[str, Any] | None = None,
    caller: str = ME,
    **fields: Any,
) -> Turn:
    """A turn that can be asked for, answered to the end."""
    turn = await store.open_turn(caller, request(*messages, **fields))
    if state is not None:
        turn.record(UpstreamState(state))
    await complete(turn, says)
    return turn


def once(text: str) -> Message:
    """Instructions for one turn."""
    return Message(role="system", content=text, extra={THIS_TURN_ONLY: True})


async def checkpointed(folder: Path) -> bool:
    """Whether anything of an answer under way is stored."""
    return await rows(folder, "checkpoints") > 0


async def rows(folder: Path, table: str) -> int:
    with closing(sqlite3.connect(folder / "kept" / "conversations.sqlite3")) as database:
        (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)


async def test_a_turn_is_shown_with_what_was_new_and_what_its_answer_repeats(store: Conversations) -> None:
    first = await respond(store, once("brief"), "1", says="one", conversation_id="c")
    second = await respond(store, "2", "3", says="two", after_turn=first.id)
    kept = await store.turn(ME, second.id)
    assert (texts(kept.turn.messages), kept.turn.answer and kept.turn.answer.text) == (["2", "3"], "two")
    assert (kept.conversation_id, kept.asked, kept.turn.status) == ("c", {"metadata": {"a": "b"}}, "done")
    assert (kept.turn.provider, kept.turn.model) == ("Provider", "model-1")
    assert texts((await store.turn(ME, first.id)).turn.instructions) == ["brief"]


async def test_a_turn_is_shown_with_all_parts_of_its_messages(store: Conversations) -> None:
    picture = Message(role="user", content=(TextPart("see"), ImagePart("https://x/y.png")), name="Heiner")
    first = await respond(store, picture, user("and this"))
    assert (await store.turn(ME, first.id)).turn.messages == (picture, user("and this"))


async def test_a_turn_of_a_chat_cannot_be_asked_for(store: Conversations) -> None:
    turn = await ask(store, "c", "hello")
    with pytest.raises(NotFound):
        await store.turn(ME, turn.id)
    with pytest.raises(InvalidRequest):
        await store.open_turn(ME, request("more", after_turn=turn.id))


async def test_what_is_kept_out_of_the_lists_is_in_none_of_them(store: Conversations) -> None:
    turn = await respond(store, "hidden words")
    assert turn.conversation_id == ""
    assert (await store.turn(ME, turn.id)).conversation_id == ""
    name = turn.request.conversation_id
    assert list(await store.list(ME)) == []
    assert list(await store.search(ME, "hidden")) == []
    for attempt in (store.show(ME, name), store.delete(ME, name), store.fork(ME, name, "mine")):
        with pytest.raises(ConversationNotFound):
            await attempt
    with pytest.raises(InvalidRequest):
        await begin(store, name, "hello")


async def test_two_turns_may_follow_one_and_at_the_same_time(store: Conversations) -> None:
    first = await respond(store, "1", says="one")
    left = await store.open_turn(ME, request("left", after_turn=first.id))
    right = await store.open_turn(ME, request("right", after_turn=first.id))
    assert texts(left.request.messages) == ["1", "one", "left"]
    assert texts(right.request.messages) == ["1", "one", "right"]
    assert left.request.new_from == right.request.new_from == 2
    await complete(left, "L")
    await complete(right, "R")
    after = await store.open_turn(ME, request("more", after_turn=left.id))
    assert texts(after.request.messages) == ["1", "one", "left", "L", "more"]


async def test_the_newest_turn_of_a_conversation_is_continued_in_it_and_an_older_one_beside_it(
    store: Conversations,
) -> None:
    first = await respond(store, "1", says="one", conversation_id="c")
    second = await respond(store, "2", says="two", after_turn=first.id)
    beside = await respond(store, "2'", says="other", after_turn=first.id)
    assert (second.conversation_id, beside.conversation_id) == ("c", "")
    assert await history(store, "c") == ["1", "one", "2", "two"]
    assert texts(beside.request.messages) == ["1", "one", "2'"]


async def test_a_conversation_that_is_busy_is_not_waited_for(store: Conversations) -> None:
    first = await respond(store, "1", says="one", conversation_id="c")
    chat = await begin(store, "c", "2")
    beside = await respond(store, "2'", after_turn=first.id)
    assert beside.conversation_id == ""
    await complete(chat, "two")
    assert await history(store, "c") == ["1", "one", "2", "two"]


async def test_a_turn_of_the_chat_follows_when_the_continued_one_has_ended(store: Conversations) -> None:
    first = await respond(store, "1", says="one", conversation_id="c")
    held = await store.open_turn(ME, request("2", after_turn=first.id))
    with pytest.raises(ConversationBusy):
        await begin(store, "c", "3")
    await complete(held, "two")
    assert texts((await begin(store, "c", "3")).request.messages) == ["1", "one", "2", "two", "3"]


async def test_what_an_upstream_keeps_goes_on_once(store: Conversations) -> None:
    first = await respond(store, "1", state={"thread": 7})
    next_ = await store.open_turn(ME, request("2", after_turn=first.id))
    beside = await store.open_turn(ME, request("2'", after_turn=first.id))
    assert next_.take_state("Provider") == {"thread": 7}
    assert beside.take_state("Provider") is None
    named = await respond(store, "1", state={"thread": 8}, conversation_id="c")
    later = await store.open_turn(ME, request("2", after_turn=named.id))
    assert later.take_state("Provider") == {"thread": 8}


async def test_instructions_for_one_turn_are_not_inherited(store: Conversations) -> None:
    await ask(store, "c", system("lasting"), "1")
    turn = await respond(store, once("passing"), "2", conversation_id="c")
    assert texts(turn.request.messages)[:2] == ["passing", "lasting"]
    chat = await ask(store, "c", "3")
    assert texts(chat.request.messages)[0] == "lasting"
    first = await respond(store, once("passing"), system("in the input"), "1")
    second = await store.open_turn(ME, request("2", after_turn=first.id))
    assert texts(second.request.messages)[:2] == ["in the input", "1"]


async def test_the_same_words_may_pass_and_then_last(store: Conversations) -> None:
    await respond(store, once("be brief"), "1", conversation_id="c")
    await ask(store, "c", system("be brief"), "2")
    assert texts((await begin(store, "c", "3")).request.messages)[0] == "be brief"


async def test_instructions_that_stay_the_same_keep_the_upstream_s_state(store: Conversations) -> None:
    first = await respond(store, once("brief"), "1", state={"at": 1})
    second = await store.open_turn(ME, request(once("brief"), "2", after_turn=first.id))
    assert second.take_state("Provider") == {"at": 1}
    await complete(second, "two")
    first = await respond(store, once("brief"), "1", state={"at": 1})
    third = await store.open_turn(ME, request(once("long"), "2", after_turn=first.id))
    assert third.take_state("Provider") is None


async def test_a_request_that_keeps_nothing_is_given_the_history(store: Conversations) -> None:
    first = await respond(store, once("passing"), system("lasting"), "1", says="one")
    found = await store.after(ME, request(once("now"), "2", after_turn=first.id, store=False))
    assert texts(found.messages) == ["now", "lasting", "1", "one", "2"]
    assert found.new_from == 4
    with pytest.raises(InvalidRequest):
        await store.after("you", request("2", after_turn=first.id, store=False))


async def test_what_was_not_to_be_stored_cannot_be_asked_for(store: Conversations) -> None:
    turn = await respond(store, "1", echo={"store": False})
    with pytest.raises(NotFound):
        await store.turn(ME, turn.id)
    kept = await respond(store, "1", echo={"store": True})
    assert (await store.turn(ME, kept.id)).asked == {"store": True}


async def test_a_turn_in_the_background_is_known_before_its_first_event(store: Conversations) -> None:
    turn = await store.open_turn(ME, request("1", when_left="finish"))
    assert turn.log is not None
    log = await store.streams.stored(ME, turn.id)
    assert (log.head.turn, log.head.created_at) == (turn.id, turn.log.head.created_at)
    assert log.head.request == b"", "nobody is to go on with it"
    assert (log.last, log.ended_at) == (None, None)
    turn.interrupt()


async def test_a_turn_of_another_caller_does_not_exist(store: Conversations) -> None:
    turn = await respond(store, "mine")
    for attempt in (store.turn("you", turn.id), store.forget_turn("you", turn.id)):
        with pytest.raises(NotFound) as caught:
            await attempt
        assert caught.value.code == "response_not_found"
    with pytest.raises(InvalidRequest) as refused:
        await store.open_turn("you", request("more", after_turn=turn.id))
    assert refused.value.code == "previous_response_not_found"
    assert refused.value.hint == "it was not stored, or deleted"
    assert refused.value.param == "previous_response_id"
    assert (await store.turn(ME, turn.id)).turn.id == turn.id


@pytest.mark.parametrize(
    ("fields", "said", "param", "hint"),
    [
        (
            {"after_turn": "turn_1"},
            "`previous_response_id` and a conversation cannot both be continued",
            "previous_response_id",
            "send one of them",
        ),
        (
            {"store": False},
            "a conversation keeps its turns, so `store` cannot be false",
            "store",
            "leave out `store`, or continue with `previous_response_id`",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], said: str, param: str, hint: str) -> None:
    refuse_contradictions(request("1", **fields))
    with pytest.raises(InvalidRequest) as caught:
        refuse_contradictions(request("1", conversation_id="c", **fields))
    assert (caught.value.message, caught.value.param, caught.value.hint) == (said, param, hint)


async def test_a_forgotten_turn_goes_with_its_words_unless_another_needs_them(
    store: Conversations, tmp_path: Path
) -> None:
    first = await respond(store, "1", says="one")
    second = await respond(store, "2", says="two", after_turn=first.id)
    await store.forget_turn(ME, first.id)
    with pytest.raises(NotFound):
        await store.turn(ME, first.id)
    assert await rows(tmp_path, "messages") == 4
    third = await respond(store, "3", says="three", after_turn=second.id)
    await store.forget_turn(ME, third.id)
    assert await rows(tmp_path, "messages") == 4
    await store.forget_turn(ME, second.id)
    for table in ("messages", "turns", "conversations", "instructions"):
        assert await rows(tmp_path, table) == 0


async def test_a_forgotten_turn_of_a_conversation_stays_part_of_it(store: Conversations) -> None:
    turn = await respond(store, "1", says="one", conversation_id="c")
    await store.forget_turn(ME, turn.id)
    with pytest.raises(NotFound):
        await store.turn(ME, turn.id)
    assert await history(store, "c") == ["1", "one"]


async def test_a_deleted_conversation_leaves_what_was_said_beside_it(store: Conversations) -> None:
    first = await respond(store, "1", says="one", conversation_id="c")
    await respond(store, "2", conversation_id="c")
    beside = await respond(store, "2'", says="other", after_turn=first.id)
    await store.delete(ME, "c")
    assert (await store.turn(ME, first.id)).conversation_id == ""
    await store.forget_turn(ME, first.id)
    more = await store.open_turn(ME, request("3", after_turn=beside.id))
    assert texts(more.request.messages) == ["1", "one", "2'", "other", "3"]


async def test_a_turn_that_is_open_is_neither_continued_nor_forgotten(store: Conversations) -> None:
    turn = await store.open_turn(ME, request("1"))
    assert (await store.turn(ME, turn.id)).turn.status == "open"
    for attempt in (
        store.open_turn(ME, request("2", after_turn=turn.id)),
        store.after(ME, request("2", after_turn=turn.id)),
        store.forget_turn(ME, turn.id),
    ):
        with pytest.raises(ConversationBusy):
            await attempt
    await complete(turn, "one")


async def test_what_failed_before_it_began_leaves_nothing_but_in_a_conversation(
    store: Conversations, tmp_path: Path
) -> None:
    alone = await store.open_turn(ME, request("1"))
    await alone.fail(UpstreamFailed("it broke"))
    for table in ("messages", "turns", "conversations"):
        assert await rows(tmp_path, table) == 0
    first = await respond(store, "1", says="one", conversation_id="c")
    failed = await store.open_turn(ME, request("2", after_turn=first.id))
    await failed.fail(UpstreamFailed("it broke"))
    assert (await store.turn(ME, failed.id)).turn.error_code == "upstream_error"
    with pytest.raises(InvalidRequest) as caught:
        await store.open_turn(ME, request("3", after_turn=failed.id))
    assert caught.value.message == "a response that is failed cannot be continued"
    assert caught.value.param == "previous_response_id"
    assert (await respond(store, "2", after_turn=first.id)).conversation_id == "c"


async def test_a_turn_that_was_cut_off_is_continued_from_what_had_come(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path, checkpoint_s=0.01)) as store:
        turn = await store.open_turn(ME, request("1", stream=True))
        turn.record(TextDelta(text="half"))
    async with aclosing(open_store(tmp_path)) as store:
        kept = (await store.turn(ME, turn.id)).turn
        assert (kept.status, kept.answer and kept.answer.text) == ("interrupted", "half")
        again = await store.open_turn(ME, request("go on", after_turn=turn.id))
        assert texts(again.request.messages) == ["1", "half", "go on"]


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_kept_of_a_turn_that_was_cut_off_before_its_id_was_told(
    store: Conversations, tmp_path: Path, stream: bool
) -> None:
    first = await respond(store, "1")
    turn = await store.open_turn(ME, request("2", after_turn=first.id, stream=stream))
    if not stream:
        turn.record(TextDelta(text="half"))
    turn.interrupt()
    await store.forget_turn(ME, first.id)
    assert await rows(tmp_path, "messages") == 0


async def test_a_turn_whose_holder_lost_its_lease_is_ended_and_continued(tmp_path: Path) -> None:
    async with (
        aclosing(open_store(tmp_path, lease_s=0.3, wait_s=0.2, checkpoint_s=0.01)) as one,
        aclosing(open_store(tmp_path, wait_s=5.0)) as other,
    ):
        turn = await one.open_turn(ME, request("1", stream=True))
        turn.record(TextDelta(text="half"))
        await until(lambda: checkpointed(tmp_path))
        with closing(sqlite3.connect(tmp_path / "kept" / "conversations.sqlite3")) as database, database:
            database.execute("UPDATE conversations SET lease_until = 0")
        again = await other.open_turn(ME, request("2", after_turn=turn.id))
        assert texts(again.request.messages) == ["1", "half", "2"]
        lost = (await other.turn(ME, turn.id)).turn
        assert (lost.status, lost.finish_reason, lost.provider, lost.model) == ("interrupted", "", "", "")
        turn.record(Finish())
        with pytest.raises(ConversationBusy, match=r"^this turn was silent for so long that") as caught:
            await turn.finish("Provider", "model-1")
        assert caught.value.hint == "send the message again"

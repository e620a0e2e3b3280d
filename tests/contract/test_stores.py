"""The contract of every store. A new one joins by an entry in PLACES.

A place makes stores: those that it makes are holders of the same conversations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from msgspec.structs import replace

from modelway.conversations import Conversations
from modelway.errors import (
    ConversationBusy,
    ConversationNotFound,
    InvalidRequest,
    StoreUnavailable,
    UpstreamFailed,
)
from modelway.types import (
    FilePart,
    Finish,
    ImagePart,
    Message,
    OtherPart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    UpstreamState,
    Usage,
)
from tests.conversations.talk import (
    ME,
    answer,
    ask,
    asking,
    begin,
    complete,
    history,
    open_store,
    statuses,
    system,
    texts,
    user,
)

pytestmark = pytest.mark.anyio

Place = Callable[[], Conversations]


def sqlite(folder: Path) -> Place:
    """A file."""
    return lambda: open_store(folder, wait_s=0.2, checkpoint_s=0.02)


PLACES: list[Callable[[Path], Place]] = [sqlite]


@pytest.fixture(params=PLACES, ids=lambda place: str(place.__name__))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    made: Place = request.param(tmp_path)
    return made


async def test_a_turn_is_given_everything_that_was_said_before(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", "one", says="1")
        turn = await begin(store, "c", "two")
        assert texts(turn.request.messages) == ["one", "1", "two"]
        assert [message.role for message in turn.request.messages] == ["user", "assistant", "user"]
        assert turn.request.new_from == 2
        assert turn.request.turn_id == turn.id
        assert turn.conversation_id == "c"


async def test_a_finished_turn_is_seen_by_the_next_holder(place: Place) -> None:
    async with aclosing(place()) as one, aclosing(place()) as other:
        await ask(one, "c", "hello", says="hi")
        assert await history(other, "c") == ["hello", "hi"]
        await ask(other, "c", "again", says="hi again")
        assert await history(one, "c") == ["hello", "hi", "again", "hi again"]
        turn = await begin(one, "c", "third")
        assert texts(turn.request.messages) == ["hello", "hi", "again", "hi again", "third"]


async def test_a_store_that_is_opened_again_has_kept_everything(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", system("be brief"), "hello", says="hi")
        before = await store.show(ME, "c")
    async with aclosing(place()) as store:
        assert await store.show(ME, "c") == before


@pytest.mark.check(34)
async def test_two_callers_with_one_id_never_meet(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", "my secret", says="mine")
        turn = await ask(store, "c", "something else", says="theirs", caller="you")
        assert texts(turn.request.messages) == ["something else"]
        assert await history(store, "c") == ["my secret", "mine"]
        assert [found.title for found in await store.list("you")] == ["something else"]
        assert await store.search("you", "secret") == []
        await store.fork("you", "c", "d")
        with pytest.raises(ConversationNotFound):
            await store.show(ME, "d")
        await store.delete("you", "c")
        assert await history(store, "c") == ["my secret", "mine"]
        assert [found.conversation_id for found in await store.list(ME)] == ["c"]


async def test_a_turn_of_one_caller_does_not_hold_up_another_caller(place: Place) -> None:
    async with aclosing(place()) as store:
        mine = await begin(store, "c", "mine")
        await ask(store, "c", "theirs", says="answered", caller="you")
        assert await history(store, "c", "you") == ["theirs", "answered"]
        await complete(mine, "later")
        assert await history(store, "c") == ["mine", "later"]


async def test_one_caller_cannot_match_into_the_conversation_of_another(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", "guess", says="guessed")
        turn = await begin(store, "c", "guess", answer("guessed"), "more", caller="you")
        assert turn.request.new_from == 0


@pytest.mark.check(42)
@pytest.mark.parametrize("bad", ["", "a/b", "a b", "ä", "a\n", "x" * 129, "٣"])
async def test_what_cannot_name_a_conversation_is_refused(place: Place, bad: str) -> None:
    async with aclosing(place()) as store:
        with pytest.raises(InvalidRequest) as caught:
            await begin(store, bad, "hello")
        assert caught.value.param == "conversation_id"
        await ask(store, "c", "hello")
        with pytest.raises(InvalidRequest) as caught:
            await store.fork(ME, "c", bad)
        assert caught.value.param == "conversation_id"


async def test_every_permitted_character_can_name_a_conversation(place: Place) -> None:
    async with aclosing(place()) as store:
        for name in ("x" * 128, "a.b_c:d-E9", "..", "-", ":"):
            await ask(store, name, "hello", says=name)
            assert await history(store, name) == ["hello", name]


async def test_a_message_that_utf_8_cannot_carry_is_refused_and_nothing_is_stored(place: Place) -> None:
    async with aclosing(place()) as store:
        with pytest.raises(InvalidRequest) as caught:
            await begin(store, "c", "half a pair: \ud83d")
        assert caught.value.message == "a message holds something that JSON in UTF-8 cannot carry"
        assert caught.value.hint == "look for unpaired surrogates and for very large numbers"
        assert caught.value.param == "messages"
        with pytest.raises(ConversationNotFound):
            await store.show(ME, "c")
        await ask(store, "c", "whole")


MESSAGES = [
    user(""),
    user("NUL \x00, a rocket 🚀, עברית, \u2028 and e\u0301"),
    Message(role="user", content="named", name="Heiner"),
    Message(role="user", content=(TextPart("look"), ImagePart("data:image/png;base64,AA==", "low"))),
    Message(
        role="user",
        content=(FilePart("data:application/pdf;base64,AA==", "", "a.pdf"), FilePart(file_id="7")),
    ),
    Message(role="user", content=(TextPart("only"),)),
    Message(role="user", content=(TextPart("cached", {"anthropic": {"cache_control": {"a": 1}}}),)),
    Message(role="user", content=()),
    Message(role="user", content=(OtherPart("openai_chat", {"type": "audio", "audio": {"x": [1, None]}}),)),
    Message(role="assistant", tool_calls=(ToolCall("call_1", "add", '{"a": 1}'), ToolCall("2", "x"))),
    Message(role="assistant", content="so", reasoning="because", extra={"openai_chat": {"audio": None}}),
    Message(role="tool", content="3", tool_call_id="call_1"),
    Message(role="system", content="in the middle"),
]


async def test_messages_come_back_as_they_were_sent(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", "begin", *MESSAGES, says="end")
    async with aclosing(place()) as store:
        expected = (user("begin"), *MESSAGES, answer("end"))
        assert (await store.show(ME, "c")).messages == expected
        assert (await begin(store, "c", "on")).request.messages == (*expected, user("on"))


async def test_an_answer_is_kept_with_all_its_parts(place: Place) -> None:
    async with aclosing(place()) as store:
        turn = await begin(store, "c", "add 1 and 2")
        for event in (
            ReasoningDelta(text="hm"),
            TextDelta(text="I "),
            TextDelta(text="call", raw=b"bytes of the upstream"),
            ToolCallDelta(index=0, id="a", name="add", arguments='{"x":'),
            ToolCallDelta(index=1, id="b", name="add", arguments="{}"),
            ToolCallDelta(index=0, arguments="1}"),
            Finish(reasons=("tool_calls",), usage=Usage(7, 5, 3, 2), model="m-2"),
        ):
            turn.record(event)
        completion = await turn.finish("P", "")
        assert completion.conversation_id == "c"
        assert completion.provider == "P"
        shown = await store.show(ME, "c")
        (record,) = shown.turns
        assert shown.messages[-1] == completion.message == record.answer
        assert shown.messages[-1].tool_calls == (ToolCall("a", "add", '{"x":1}'), ToolCall("b", "add", "{}"))
        assert (record.status, record.finish_reason, record.usage) == (
            "done",
            "tool_calls",
            Usage(7, 5, 3, 2),
        )
        assert (record.provider, record.model) == ("P", "m-2")
        assert record.finished_at is not None
        assert record.finished_at >= record.created_at


async def test_all_alternatives_of_an_answer_are_kept_and_any_can_be_continued(place: Place) -> None:
    async with aclosing(place()) as store:
        turn = await begin(store, "c", "choose")
        turn.record(TextDelta(text="left"))
        turn.record(TextDelta(text="right", choice=1))
        await complete(turn, "")
        assert await history(store, "c") == ["choose", "left"]
        turn = await begin(store, "c", "choose", answer("right"), "why?")
        assert turn.request.new_from == 2
        await complete(turn, "so")
        assert await history(store, "c") == ["choose", "right", "why?", "so"]


async def test_broken_surrogates_of_an_upstream_do_not_stop_a_turn(place: Place) -> None:
    async with aclosing(place()) as store:
        turn = await begin(store, "c", "hello")
        for event in (
            TextDelta(text="a\ud83d"),
            TextDelta(text="\ude80"),
            ToolCallDelta(id="\ud83d", name="f", arguments="\udc00"),
            RefusalDelta(text="\udc00"),
            ReasoningDelta(text="\udc00"),
        ):
            turn.record(event)
        await complete(turn, "")
        stored = (await store.show(ME, "c")).messages[-1]
        assert stored.text == "a🚀"
        assert stored.tool_calls == (ToolCall("\ufffd", "f", "\ufffd"),)
        await ask(store, "c", "next")


async def test_a_failed_turn_can_be_looked_at_but_is_not_part_of_the_history(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", "one", says="1")
        turn = await begin(store, "c", "two")
        await turn.fail(UpstreamFailed("it broke", hint="try again"))
        shown = await store.show(ME, "c")
        assert texts(shown.messages) == ["one", "1"]
        assert statuses(shown) == ["done", "failed"]
        failed = shown.turns[-1]
        assert texts(failed.messages) == ["two"]
        assert failed.answer is None
        assert (failed.error_code, failed.error) == ("upstream_error", "it broke; try again")
        turn = await begin(store, "c", "three")
        assert texts(turn.request.messages) == ["one", "1", "three"]


async def test_an_error_after_the_first_delta_leaves_the_text_so_far_in_the_history(place: Place) -> None:
    async with aclosing(place()) as store:
        turn = await begin(store, "c", "one")
        turn.record(TextDelta(text="half an"))
        await turn.fail(UpstreamFailed("it broke"))
        shown = await store.show(ME, "c")
        assert texts(shown.messages) == ["one", "half an"]
        assert statuses(shown) == ["interrupted"]
        assert shown.turns[0].error_code == "upstream_error"


async def test_an_interrupted_turn_is_part_of_the_history(place: Place) -> None:
    async with aclosing(place()) as store:
        turn = await begin(store, "c", "one")
        turn.record(TextDelta(text="half an"))
        turn.interrupt("P", "m")
        turn = await begin(store, "c", "two")
        assert texts(turn.request.messages) == ["one", "half an", "two"]
        turn.interrupt()
        turn = await begin(store, "c", "three")
        assert texts(turn.request.messages) == ["one", "half an", "two", "three"]
        turns = (await store.show(ME, "c")).turns
        assert [(turn.provider, turn.model) for turn in turns] == [("P", "m"), ("", ""), ("", "")]
        assert {turn.finish_reason for turn in turns} == {""}


async def test_closing_the_store_keeps_the_turns_under_way_as_interrupted(place: Place) -> None:
    async with aclosing(place()) as store:
        turn = await begin(store, "c", "one")
        turn.record(TextDelta(text="half an"))
    async with aclosing(place()) as store:
        shown = await store.show(ME, "c")
        assert texts(shown.messages) == ["one", "half an"]
        assert statuses(shown) == ["interrupted"]


async def test_a_turn_ends_once(place: Place) -> None:
    async with aclosing(place()) as store:
        turn = await ask(store, "c", "one", says="1")
        turn.interrupt()
        await turn.fail(UpstreamFailed("too late"))
        with pytest.raises(StoreUnavailable):
            await turn.finish("P", "m")
        shown = await store.show(ME, "c")
        assert texts(shown.messages) == ["one", "1"]
        assert statuses(shown) == ["done"]


@pytest.mark.check(4)
async def test_one_turn_at_a_time_across_holders(place: Place) -> None:
    async with aclosing(place()) as one, aclosing(place()) as other:
        held = await begin(one, "c", "one")
        for store in (one, other):
            with pytest.raises(ConversationBusy):
                await begin(store, "c", "two")
        await complete(held, "1")
        turn = await begin(other, "c", "two")
        assert texts(turn.request.messages) == ["one", "1", "two"]


async def test_turns_of_many_conversations_go_on_at_the_same_time(place: Place) -> None:
    async with aclosing(place()) as store:
        turns = [await begin(store, f"c{i}", f"question {i}") for i in range(20)]
        await asyncio.gather(*(complete(turn, f"answer {i}") for i, turn in enumerate(turns)))
        for i in range(20):
            assert await history(store, f"c{i}") == [f"question {i}", f"answer {i}"]


async def test_instructions_hold_until_other_ones_come(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", system("be brief"), "one", says="1")
        turn = await ask(store, "c", "two", says="2")
        assert texts(turn.request.messages) == ["be brief", "one", "1", "two"]
        assert turn.request.new_from == 3
        developer = Message(role="developer", content="in German")
        turn = await ask(store, "c", system("be long"), developer, "three", says="3")
        assert texts(turn.request.messages) == ["be long", "in German", "one", "1", "two", "2", "three"]
        assert turn.request.new_from == 6
        shown = await store.show(ME, "c")
        assert shown.instructions == (system("be long"), developer)
        assert texts(shown.messages) == ["one", "1", "two", "2", "three", "3"]


async def test_instructions_of_a_failed_turn_do_not_hold(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", system("be brief"), "one", says="1")
        turn = await begin(store, "c", system("be long"), "two")
        await turn.fail(UpstreamFailed("no"))
        turn = await begin(store, "c", "three")
        assert texts(turn.request.messages) == ["be brief", "one", "1", "three"]


async def remembering(store: Conversations, *messages: Message | str) -> None:
    turn = await begin(store, "c", *messages)
    turn.record(UpstreamState({"id": "upstream-1"}))
    await complete(turn, "1")


async def test_an_upstream_state_is_given_back_to_its_provider_only(place: Place) -> None:
    async with aclosing(place()) as store:
        await remembering(store, "one")
    async with aclosing(place()) as store:
        turn = await begin(store, "c", "two")
        assert turn.take_state("Other") is None
        assert turn.take_state("Provider") == {"id": "upstream-1"}
        assert turn.request.upstream_state is None


async def test_a_state_is_dropped_when_the_conversation_went_on_without_it(place: Place) -> None:
    async with aclosing(place()) as store:
        await remembering(store, "one")
        await ask(store, "c", "two")
        assert (await begin(store, "c", "three")).take_state("Provider") is None


async def test_a_state_is_not_given_to_a_branch_or_under_other_instructions(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", "zero", says="0")
        await remembering(store, "one")
        again = await begin(store, "c", "zero", answer("0"), "edited")
        assert again.take_state("Provider") is None
        await again.fail(UpstreamFailed("no"))
        other = await begin(store, "c", system("be brief"), "two")
        assert other.take_state("Provider") is None


async def test_a_state_holds_however_long_the_conversation_is(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", "zero", says="0")
        await remembering(store, "one")
        turn = await begin(store, "c", "two")
        assert turn.take_state("Provider") == {"id": "upstream-1"}
        turn.interrupt()


async def test_a_failed_turn_drops_the_state_only_where_the_upstream_was_given_it(place: Place) -> None:
    async with aclosing(place()) as store:
        await remembering(store, "one")
        unused = await begin(store, "c", "two")
        unused.take_state("Other")
        await unused.fail(UpstreamFailed("no"))
        used = await begin(store, "c", "two")
        assert used.take_state("Provider") == {"id": "upstream-1"}
        await used.fail(UpstreamFailed("no"))
        assert (await begin(store, "c", "two")).take_state("Provider") is None


async def test_an_interrupted_turn_drops_the_state(place: Place) -> None:
    async with aclosing(place()) as store:
        await remembering(store, "one")
        turn = await begin(store, "c", "two")
        turn.record(UpstreamState({"id": "upstream-2"}))
        turn.interrupt()
        assert (await begin(store, "c", "three")).take_state("Provider") is None


async def test_a_turn_can_go_on_after_any_message_of_its_conversation(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", "one", says="two")
        await ask(store, "c", "three", says="four")
        first, second = [node.id for node in (await store.show(ME, "c")).tree][:2]
        for after, expected in ((second, ["one", "two", "new"]), (first, ["one", "new"]), ("", ["new"])):
            turn = await store.open_turn(ME, replace(asking("c", "new"), after_message=after))
            assert texts(turn.request.messages) == expected
            await complete(turn, "said")
            assert await history(store, "c") == [*expected, "said"]
        again = await store.open_turn(ME, replace(asking("c", "one"), after_message=first))
        assert texts(again.request.messages) == ["one"]


async def test_a_turn_after_a_message_that_is_not_there_leaves_all_as_it_was(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", "mine", says="yes")
        await ask(store, "other", "mine too", says="no")
        elsewhere = (await store.show(ME, "other")).head
        for name, after in (("c", elsewhere), ("c", "msg_99"), ("c", "x"), ("new", elsewhere)):
            with pytest.raises(ConversationNotFound):
                await store.open_turn(ME, replace(asking(name, "guess"), after_message=after))
        assert await history(store, "c") == ["mine", "yes"]
        assert {found.conversation_id for found in await store.list(ME)} == {"c", "other"}


async def test_a_fork_and_its_origin_go_separate_ways(place: Place) -> None:
    async with aclosing(place()) as store:
        first = await ask(store, "c", "one", says="1")
        await ask(store, "c", "two", says="2")
        await store.fork(ME, "c", "early", at_turn=first.id)
        await store.fork(ME, "c", "late")
        await ask(store, "early", "else", says="3")
        assert await history(store, "c") == ["one", "1", "two", "2"]
        assert await history(store, "early") == ["one", "1", "else", "3"]
        assert await history(store, "late") == ["one", "1", "two", "2"]


async def test_what_does_not_exist_is_not_found(place: Place) -> None:
    async with aclosing(place()) as store:
        for attempt in (
            store.show(ME, "nothing"),
            store.delete(ME, "nothing"),
            store.fork(ME, "nothing", "something"),
        ):
            with pytest.raises(ConversationNotFound):
                await attempt


async def test_a_deleted_conversation_is_gone_and_its_id_begins_anew(place: Place) -> None:
    async with aclosing(place()) as store:
        await ask(store, "c", "a pomegranate", says="indeed")
        await store.delete(ME, "c")
        with pytest.raises(ConversationNotFound):
            await store.show(ME, "c")
        assert await store.list(ME) == []
        assert await store.search(ME, "pomegranate") == []
        turn = await begin(store, "c", "hello")
        assert texts(turn.request.messages) == ["hello"]


async def test_a_turn_whose_conversation_is_deleted_is_not_acknowledged(place: Place) -> None:
    async with aclosing(place()) as store:
        turn = await begin(store, "c", "hello")
        await store.delete(ME, "c")
        with pytest.raises(ConversationBusy):
            await complete(turn, "hi")
        with pytest.raises(ConversationNotFound):
            await store.show(ME, "c")
        await ask(store, "c", "anew")


async def test_a_message_is_found_at_once(place: Place) -> None:
    async with aclosing(place()) as store:
        turn = await ask(store, "c", "the quick brown fox", says="jumps over")
        (found,) = await store.search(ME, "fox QUI")
        assert (found.conversation_id, found.turn_id, found.role) == ("c", turn.id, "user")
        assert found.snippet == "the quick brown fox"


async def test_a_closed_store_says_so(place: Place) -> None:
    store = place()
    await store.ready()
    await store.aclose()
    for attempt in (
        store.ready(),
        store.list(ME),
        store.search(ME, "x"),
        store.open_turn(ME, asking("c", "hello")),
    ):
        with pytest.raises(StoreUnavailable, match=r"^the conversation store is closed$") as caught:
            await attempt
        assert caught.value.retry_after == 1
    await store.aclose()

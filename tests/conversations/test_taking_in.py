"""A conversation that was exported is taken in under another name, as it was."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from modelway.conversations import Conversation, Conversations, StoredMessage, TurnRecord
from modelway.errors import InvalidRequest, UpstreamFailed
from modelway.types import Finish, TextDelta, Usage
from tests.conversations.talk import ME, answer, ask, begin, complete, history, system, user

pytestmark = pytest.mark.anyio


async def told(store: Conversations) -> Conversation:
    """A conversation with instructions, two branches, a failed turn, notes and a title."""
    first = await begin(store, "c", system("be brief"), "hello")
    first.record(TextDelta(text="hi"))
    first.record(Finish(usage=Usage(input_tokens=3, output_tokens=5)))
    await first.finish("Provider", "model-1")
    await ask(store, "c", "more", says="much more")
    await ask(store, "c", system("be brief"), "hello", answer("hi"), "other", says="another branch")
    failed = await begin(store, "c", "and now?")
    await failed.fail(UpstreamFailed("it broke"), "Provider", "model-2")
    await store.shelf.annotate(ME, "c", {"colour": "blue"})
    await store.shelf.rename(ME, "c", "A title")
    return await store.show(ME, "c")


def comparable(found: Conversation) -> dict[str, Any]:
    """What is to be the same, with numbers for the ids that are given anew."""
    ids = {"": ""} | {one.id: f"message {number}" for number, one in enumerate(found.tree)}
    ids |= {turn.id: f"turn {number}" for number, turn in enumerate(found.turns)}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(one) for key, one in value.items()}
        return list(map(renamed, value)) if isinstance(value, list | tuple) else ids.get(value, value)

    plain: dict[str, Any] = renamed(msgspec.to_builtins(replace(found, conversation_id="")))
    for turn in plain["turns"]:
        # It was paid where it ran.
        turn["cost"] = None
    return plain


async def test_it_is_the_same_conversation(store: Conversations) -> None:
    before = await told(store)
    await store.shelf.take_in(ME, "d", before)
    after = await store.show(ME, "d")
    assert comparable(after) == comparable(before)
    assert [turn.status for turn in after.turns] == ["done", "done", "done", "failed"]
    assert not {turn.id for turn in after.turns} & {turn.id for turn in before.turns}
    assert not {one.id for one in after.tree} & {one.id for one in before.tree}


async def test_what_was_under_way_goes_on_nowhere(store: Conversations) -> None:
    turn = await begin(store, "c", "hello")
    await store.shelf.take_in(ME, "d", await store.show(ME, "c"))
    [taken] = (await store.show(ME, "d")).turns
    assert (taken.status, taken.messages) == ("interrupted", (user("hello"),))
    turn.interrupt()


async def test_it_goes_on_where_it_stood_and_under_its_instructions(store: Conversations) -> None:
    await store.shelf.take_in(ME, "d", await told(store))
    turn = await begin(store, "d", "go on")
    said = [message.text for message in turn.request.messages]
    assert said == ["be brief", "hello", "hi", "other", "another branch", "go on"]
    await complete(turn, "gladly")
    assert (await history(store, "d"))[-3:] == ["another branch", "go on", "gladly"]
    await store.delete(ME, "d")
    assert "another branch" in await history(store, "c")


async def test_messages_without_turns_are_one_turn(store: Conversations) -> None:
    before = await told(store)
    began = time.time()
    bare = replace(before, turns=(), instructions=(), created_at=0, updated_at=0, title="x" * 300)
    await store.shelf.take_in(ME, "d", bare)
    after = await store.show(ME, "d")
    assert (after.title, after.instructions) == ("x" * 200, ())
    assert began <= after.created_at == after.updated_at <= time.time()
    [turn] = after.turns
    assert (turn.status, turn.parent, turn.answer, turn.error, turn.usage) == ("done", "", None, "", None)
    assert (turn.provider, turn.model, turn.finish_reason, turn.error_code) == ("", "", "", "")
    assert turn.tail == after.head
    assert began <= turn.created_at == turn.finished_at
    assert {one.turn_id for one in after.tree} == {turn.id}
    assert await history(store, "d") == ["hello", "hi", "other", "another branch"]


async def test_nothing_at_all_is_an_empty_conversation(store: Conversations) -> None:
    await store.shelf.take_in(ME, "d", EMPTY)
    after = await store.show(ME, "d")
    assert (after.messages, after.turns, after.tree, after.head, after.metadata) == ((), (), (), "", {})
    assert (await begin(store, "d", "hello")).request.messages == (user("hello"),)


EMPTY = Conversation(
    conversation_id="",
    title="",
    created_at=1,
    updated_at=2,
    instructions=(),
    messages=(),
    turns=(),
    branches=(),
    tree=(),
)


def turn_of(**fields: Any) -> TurnRecord:
    plain: dict[str, Any] = dict.fromkeys(("id", "provider", "model", "parent", "tail", "answer_id"), "")
    plain |= dict.fromkeys(("finish_reason", "error_code", "error"), "")
    plain |= {"messages": (), "instructions": (), "answer": None, "usage": None}
    return TurnRecord(**plain | {"status": "done", "created_at": 1, "finished_at": 2} | fields)


def message_of(id: str, parent: str) -> StoredMessage:
    return StoredMessage(id=id, parent=parent, turn_id="", message=user(id))


@pytest.mark.parametrize(
    ("found", "said", "param"),
    [
        (
            replace(EMPTY, tree=(message_of("b", "a"), message_of("a", ""))),
            "a message stands before the one that it follows",
            "tree",
        ),
        (replace(EMPTY, turns=(turn_of(id="t"), turn_of(id="t"))), "two turns have the same id", "turns"),
        (replace(EMPTY, created_at=-1), "a time is not in seconds since 1970$", "created_at"),
        (replace(EMPTY, updated_at=1e12), "a time is not in seconds since 1970", "created_at"),
        (replace(EMPTY, updated_at=221_845_392_000), "a time is not in seconds since 1970", "created_at"),
        (replace(EMPTY, turns=(turn_of(created_at=1e12),)), "a time is not in seconds", "created_at"),
        (replace(EMPTY, turns=(turn_of(finished_at=-1),)), "a time is not in seconds", "created_at"),
    ],
)
async def test_parts_that_do_not_fit_are_refused(
    store: Conversations, found: Conversation, said: str, param: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{said}") as refused:
        await store.shelf.take_in(ME, "d", found)
    assert refused.value.param == param
    assert not await store.list(ME)


async def test_the_last_second_of_the_year_8999_is_a_time(store: Conversations) -> None:
    unfinished = turn_of(id="t", finished_at=None)
    await store.shelf.take_in(ME, "d", replace(EMPTY, updated_at=221_845_391_999, turns=(unfinished,)))
    assert (await store.show(ME, "d")).updated_at == 221_845_391_999


async def test_a_name_that_is_taken_is_refused(store: Conversations) -> None:
    before = await told(store)
    with pytest.raises(InvalidRequest, match=r'^there is a conversation "c" already$') as refused:
        await store.shelf.take_in(ME, "c", before)
    assert refused.value.param == "conversation_id"
    assert comparable(await store.show(ME, "c")) == comparable(before)
    with pytest.raises(InvalidRequest):
        await store.shelf.take_in(ME, "no name", before)

"""What people do with their conversations as a whole: begin, name, note, go back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from modelway.conversations import Conversations
from modelway.errors import ConversationBusy, ConversationNotFound, InvalidRequest
from tests.conversations.talk import ME, answer, ask, begin, history, system, user
from tests.polling import until

pytestmark = pytest.mark.anyio


async def test_a_conversation_that_is_begun_is_empty(store: Conversations) -> None:
    await store.shelf.create(ME, "c", {"colour": "blue"})
    found = await store.show(ME, "c")
    assert (found.title, found.metadata, found.messages, found.turns) == ("", {"colour": "blue"}, (), ())
    assert found.created_at == found.updated_at
    await ask(store, "c", "hello")
    assert (await store.show(ME, "c")).title == "hello"
    await store.shelf.create(ME, "without", {})
    assert [summary.conversation_id for summary, _ in await store.shelf.noted(ME)] == ["c"]


async def test_a_title_that_was_given_stays(store: Conversations) -> None:
    await ask(store, "c", "hello")
    await ask(store, "other", "hello")
    await store.shelf.rename(ME, "c", "A title")
    await ask(store, "c", "more")
    assert [found.title for found in await store.list(ME)] == ["A title", "hello"]


async def test_notes_are_made_one_by_one(store: Conversations) -> None:
    await ask(store, "c", "hello")
    await ask(store, "other", "hello")
    await store.shelf.note(ME, "c", "colour", "blue")
    await store.shelf.note(ME, "c", "shape", "round")
    await store.shelf.note(ME, "c", "colour", "red")
    [(summary, noted)] = await store.shelf.noted(ME)
    assert (summary, noted) == ((await store.list(ME))[1], {"colour": "red", "shape": "round"})
    await store.shelf.note(ME, "c", "colour", "")
    await store.shelf.note(ME, "c", "never there", "")
    assert (await store.show(ME, "c")).metadata == {"shape": "round"}
    await store.shelf.note(ME, "c", "shape", "")
    assert await store.shelf.noted(ME) == []
    await store.shelf.annotate(ME, "other", {"all": "new"})
    await store.shelf.annotate(ME, "other", {})
    assert await store.shelf.noted(ME) == []


async def test_a_conversation_goes_on_after_any_of_its_messages(store: Conversations) -> None:
    await ask(store, "c", "hello", says="hi")
    await ask(store, "c", "more", says="yes")
    tree = (await store.show(ME, "c")).tree
    await store.shelf.move(ME, "c", tree[1].id)
    assert await history(store, "c") == ["hello", "hi"]
    await store.shelf.move(ME, "c", tree[3].id)
    assert await history(store, "c") == ["hello", "hi", "more", "yes"]
    await store.shelf.move(ME, "c", "")
    assert await history(store, "c") == []
    assert len((await store.show(ME, "c")).tree) == 4


@pytest.mark.parametrize("message", ["msg_nonsense", "msg_ffff", "of another"])
async def test_only_its_own_messages_can_be_gone_back_to(store: Conversations, message: str) -> None:
    await ask(store, "c", "hello")
    await ask(store, "other", "hello")
    if message == "of another":
        message = (await store.show(ME, "other")).tree[0].id
    with pytest.raises(ConversationNotFound, match=r"^the conversation has no message of this") as refused:
        await store.shelf.move(ME, "c", message)
    assert refused.value.param == "message"
    assert await history(store, "c") == ["hello", "yes"]


async def test_nothing_is_moved_while_a_turn_is_under_way(store: Conversations) -> None:
    await ask(store, "c", "hello")
    turn = await begin(store, "c", "more")
    with pytest.raises(ConversationBusy) as refused:
        await store.shelf.move(ME, "c", "")
    assert refused.value.retry_after == 1
    turn.interrupt()


async def test_instructions_can_be_dropped(store: Conversations) -> None:
    await ask(store, "c", system("be brief"), "hello")
    await ask(store, "other", system("be loud"), "hello")
    await store.shelf.drop_instructions(ME, "c")
    assert [one.text for one in (await begin(store, "c", "more")).request.messages] == [
        "hello",
        "yes",
        "more",
    ]
    assert (await store.show(ME, "other")).instructions == (system("be loud"),)


ON_ANY: list[Callable[[Conversations, str, str], Awaitable[object]]] = [
    lambda store, caller, name: store.shelf.rename(caller, name, "x"),
    lambda store, caller, name: store.shelf.note(caller, name, "key", "x"),
    lambda store, caller, name: store.shelf.annotate(caller, name, {"key": "x"}),
    lambda store, caller, name: store.shelf.move(caller, name, ""),
    lambda store, caller, name: store.shelf.drop_instructions(caller, name),
]


@pytest.mark.parametrize("act", ON_ANY)
@pytest.mark.parametrize(("caller", "name"), [("you", "c"), (ME, "d")])
async def test_another_caller_s_conversation_and_none_are_the_same(
    store: Conversations, act: Callable[[Conversations, str, str], Awaitable[object]], caller: str, name: str
) -> None:
    await ask(store, "c", system("be brief"), "hello")
    before = await store.show(ME, "c")
    with pytest.raises(ConversationNotFound, match=f'^there is no conversation "{name}"$') as refused:
        await act(store, caller, name)
    assert refused.value.param == "conversation_id"
    assert await store.show(ME, "c") == before


@pytest.mark.parametrize("name", ["", "with space", "x" * 129, "ä"])
async def test_what_cannot_name_a_conversation_is_refused(store: Conversations, name: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"^conversation_id must be 1 to 128 of the characters"
    ) as refused:
        await store.shelf.create(ME, name, {})
    assert refused.value.param == "conversation_id"


async def test_a_name_that_is_taken_is_refused(store: Conversations) -> None:
    await ask(store, "c", "hello")
    with pytest.raises(InvalidRequest, match=r'^there is a conversation "c" already$') as refused:
        await store.shelf.create(ME, "c", {})
    assert refused.value.param == "conversation_id"
    await store.shelf.create("you", "c", {})


async def test_messages_are_added_without_an_answer_and_told_with_their_names(store: Conversations) -> None:
    await store.shelf.create(ME, "c", {})
    said = (system("be brief"), user("hello"), answer("hi"))
    added = await store.add(ME, "c", said)
    assert tuple(message for _, message in added) == said
    assert len({name for name, _ in added}) == 3
    assert list(await store.messages(ME, "c")) == list(added)
    more = await store.add(ME, "c", (user("more"),))
    assert [message for _, message in more] == [user("more")]
    assert list(await store.messages(ME, "c")) == [*added, *more]
    turn = await begin(store, "c", "go on")
    assert turn.request.messages == (*said, user("more"), user("go on"))
    turn.interrupt()
    with pytest.raises(ConversationNotFound):
        await store.add(ME, "d", said)
    with pytest.raises(ConversationNotFound):
        await store.messages("you", "c")


async def test_where_it_stands_differs_when_something_has_changed(store: Conversations) -> None:
    await ask(store, "c", "hello")
    before = await store.shelf.standing(ME, "c")
    assert await store.shelf.standing(ME, "c") == before
    assert await store.shelf.standing("you", "c") != before
    assert (await store.shelf.standing(ME))[1] is None
    assert (await store.shelf.standing(ME))[0] == before[0]
    await store.shelf.rename(ME, "c", "A title")
    renamed = await store.shelf.standing(ME, "c")
    assert renamed != before
    await ask(store, "other", "hello")
    other = await store.shelf.standing(ME, "c")
    assert (other[0] != renamed[0], other[1] == renamed[1]) == (True, True)
    turn = await begin(store, "c", "more")
    assert (await store.shelf.standing(ME, "c"))[1] != other[1]
    turn.interrupt()


async def test_how_long_a_turn_took_is_told_with_its_conversation(store: Conversations) -> None:
    first = await ask(store, "c", "hello")
    await ask(store, "c", "more")
    store.shelf.measured(first.id, 0.25)
    store.shelf.measured("turn_never", 0.5)

    async def told() -> bool:
        return await store.shelf.figures(ME, "c") == {first.id: (0.25, None)}

    await until(told)
    assert await store.shelf.figures("you", "c") == {}

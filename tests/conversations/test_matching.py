"""Which messages of a request are new, and after which stored one they come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Struct

from modelway.conversations import Conversations
from modelway.conversations.matching import Node, Placement, place
from modelway.errors import InvalidRequest, UpstreamFailed
from modelway.types import ImagePart, Message, TextDelta, TextPart, ToolCall, ToolCallDelta
from tests.conversations.talk import ME, answer, ask, begin, complete, history, system, texts, user

pytestmark = pytest.mark.anyio


class Case(Struct, frozen=True, kw_only=True):
    """What is `stored`, what is `sent`, what the provider is then `given`, and how much of that is `new`.

    Messages are words: those in capitals are answers. A word that ends with "…" begins an answer that was
    cut off, "∅" stands for an answer that was cut off before it began, "✗" for a failure.
    """

    name: str
    stored: list[str]
    sent: str
    given: str
    new: int


CASES = [
    Case(name="the first message", stored=[], sent="a", given="a", new=1),
    Case(name="nothing at all", stored=[], sent="", given="", new=0),
    Case(name="several first messages", stored=[], sent="a B c", given="a B c", new=3),
    Case(name="only what is new", stored=["a B"], sent="c", given="a B c", new=1),
    Case(name="several new ones", stored=["a B"], sent="c d", given="a B c d", new=2),
    Case(name="the whole history", stored=["a B"], sent="a B c", given="a B c", new=1),
    Case(
        name="the whole of a long history", stored=["a B", "c D"], sent="a B c D e", given="a B c D e", new=1
    ),
    Case(name="the same question again", stored=["a B"], sent="a", given="a B a", new=1),
    Case(name="the same question a third time", stored=["a B", "a C"], sent="a", given="a B a C a", new=1),
    Case(name="an edited question", stored=["a B", "c D"], sent="a B x", given="a B x", new=1),
    Case(name="an edited answer", stored=["a B", "c D"], sent="a B c X e", given="a B c X e", new=2),
    Case(name="regenerate", stored=["a B", "c D"], sent="a B c", given="a B c", new=1),
    Case(name="regenerate nothing new", stored=["a B", "c D"], sent="a B", given="a B", new=0),
    Case(
        name="back to an older branch",
        stored=["a B", "c D", "a B x Y"][:2],
        sent="a B c D",
        given="a B c D",
        new=0,
    ),
    Case(
        name="from the newer branch to the older one",
        stored=["a B", "c D", "a B x Y"],
        sent="a B c D e",
        given="a B c D e",
        new=1,
    ),
    Case(
        name="only what is new after a branch",
        stored=["a B", "c D", "a B x Y"],
        sent="e",
        given="a B x Y e",
        new=1,
    ),
    Case(name="an edited first question", stored=["a B"], sent="x", given="a B x", new=1),
    Case(
        name="a shared question without its answer",
        stored=["a B", "c D"],
        sent="a x",
        given="a B c D a x",
        new=2,
    ),
    Case(name="another first answer", stored=["a B"], sent="a X c", given="a B a X c", new=3),
    Case(name="another history", stored=["a B"], sent="x Y z", given="a B x Y z", new=3),
    Case(name="the end of the history", stored=["a B", "c D"], sent="c D e", given="a B c D c D e", new=3),
    Case(name="after a failure", stored=["a B", "c ✗"], sent="d", given="a B d", new=1),
    Case(name="again after a failure", stored=["a B", "c ✗"], sent="c", given="a B c", new=1),
    Case(name="the history again after a failure", stored=["a B", "c ✗"], sent="a B c", given="a B c", new=1),
    Case(
        name="on from a failed question", stored=["a B", "c ✗", "d E"], sent="a B c x", given="a B c x", new=1
    ),
    Case(name="again after the first failure", stored=["a ✗"], sent="a", given="a", new=1),
    Case(name="after a cut", stored=["a B…"], sent="c", given="a B… c", new=1),
    Case(name="the history with what was cut", stored=["a B…"], sent="a B… c", given="a B… c", new=1),
    Case(name="again after a cut without text", stored=["a ∅"], sent="a", given="a", new=1),
    Case(name="again after a late cut without text", stored=["a B", "c ∅"], sent="c", given="a B c", new=1),
    Case(
        name="the history again after such a cut", stored=["a B", "c ∅"], sent="a B c", given="a B c", new=1
    ),
    Case(name="something else after such a cut", stored=["a B", "c ∅"], sent="d", given="a B c d", new=1),
    Case(name="a longer try after such a cut", stored=["a B", "c d ∅"], sent="c d", given="a B c d", new=2),
    Case(name="a part of such a try", stored=["a B", "c d ∅"], sent="d", given="a B c d", new=2),
    Case(name="again after two cuts", stored=["a B", "c ∅", "c ∅"], sent="c", given="a B c", new=1),
]


def message(word: str) -> Message:
    return answer(word) if word.isupper() or word.endswith("…") else user(word)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
async def test_placing(store: Conversations, case: Case) -> None:
    for exchange in case.stored:
        *said, end = exchange.split()
        turn = await begin(store, "c", *map(message, said))
        match end:
            case "✗":
                await turn.fail(UpstreamFailed("no"))
            case "∅":
                turn.interrupt()
            case _ if end.endswith("…"):
                turn.record(TextDelta(text=end))
                turn.interrupt()
            case _:
                await complete(turn, end)
    turn = await begin(store, "c", *map(message, case.sent.split()))
    assert turn.request.messages == tuple(map(message, case.given.split()))
    assert len(turn.request.messages) - turn.request.new_from == case.new
    await complete(turn, "END")
    assert await history(store, "c") == [*case.given.split(), "END"]


CALL = ToolCall("call_1", "add", "{}")
SAME = [
    (user("a"), Message(role="user", content=(TextPart("a"),))),
    (user("a"), Message(role="user", content=(TextPart("a", {"x": 1}),))),
    (user(""), Message(role="user", content=())),
    (user("a"), Message(role="user", content="a", extra={"openai_chat": {"x": 1}})),
    (user("a"), Message(role="user", content="a", reasoning="hm")),
    (user("e\u0301"), user("e\u0301")),
    (user("ab"), Message(role="user", content=(TextPart("a"), TextPart("b")))),
    (answer("ab"), Message(role="assistant", content=(TextPart("a"), TextPart("b")))),
    # A mark for a cache moves from message to message.
    (
        Message(role="user", content=(TextPart("a"), TextPart("b", {"x": {"cache_control": {}}}))),
        Message(role="user", content=(TextPart("a", {"x": {"cache_control": {}}}), TextPart("b"))),
    ),
    (
        Message(role="user", content=(TextPart("a"), ImagePart("http://x/"))),
        Message(role="user", content=(TextPart("a"), ImagePart("http://x/", "auto", {"x": {"y": 1}}))),
    ),
    (
        Message(role="assistant", tool_calls=(ToolCall("call_1", "add", ""),)),
        Message(role="assistant", tool_calls=(ToolCall("call_1", "add", "{}"),)),
    ),
    (
        Message(role="assistant", tool_calls=(ToolCall("1", "f", '{"a":[1.0,{"b":[2e0]}]}'),)),
        Message(role="assistant", tool_calls=(ToolCall("1", "f", '{"a":[1,{"b":[2]}]}'),)),
    ),
    # Too large for any number of a machine.
    (
        Message(role="assistant", tool_calls=(ToolCall("1", "f", '{"a": 1' + "0" * 400 + "}"),)),
        Message(role="assistant", tool_calls=(ToolCall("1", "f", '{"a":1' + "0" * 400 + "}"),)),
    ),
    # As a program in JavaScript writes them again.
    (
        Message(role="assistant", tool_calls=(ToolCall("1", "f", '{"a":1.0,"b":1e2,"c":9007199254740993}'),)),
        Message(role="assistant", tool_calls=(ToolCall("1", "f", '{"a":1,"b":100,"c":9007199254740992}'),)),
    ),
    (
        Message(role="assistant", content="a", extra={"refusal": "no"}),
        Message(role="assistant", content="ano"),
    ),
    (
        Message(role="assistant", extra={"refusal": "no"}),
        Message(role="assistant", extra={"openai_chat": {"refusal": "no"}}),
    ),
    (
        Message(role="tool", content="1", tool_call_id="a"),
        Message(role="tool", content="1", tool_call_id="b", name="add"),
    ),
    (
        Message(role="assistant", tool_calls=(ToolCall("call_1", "add", '{"a": 1, "b": 2}'),)),
        Message(role="assistant", tool_calls=(ToolCall("mine", "add", '{"b":2,"\\u0061":1}'),)),
    ),
]
OTHER = [
    (user("a"), user("a ")),
    (user("a"), answer("a")),
    (user("a"), system("a")),
    (user("é"), user("e\u0301")),
    (user("a"), Message(role="user", content="a", name="Heiner")),
    (user("a"), Message(role="user", content=(TextPart("a"), ImagePart("http://x/")))),
    (
        Message(role="user", content=(TextPart("a"), ImagePart("http://x/"))),
        Message(role="user", content=(ImagePart("http://x/"), TextPart("a"))),
    ),
    (
        Message(role="user", content=(ImagePart("http://x/"),)),
        Message(role="user", content=(ImagePart("http://y/"),)),
    ),
    (
        Message(role="tool", content="1", tool_call_id="a"),
        Message(role="tool", content="2", tool_call_id="a"),
    ),
    (
        Message(role="assistant", tool_calls=(CALL,)),
        Message(role="assistant", tool_calls=(ToolCall("call_1", "add", '{"a":2}'),)),
    ),
    (
        Message(role="assistant", tool_calls=(CALL,)),
        Message(role="assistant", tool_calls=(ToolCall("call_1", "sub", CALL.arguments),)),
    ),
    (
        Message(role="assistant", tool_calls=(ToolCall("call_1", "add", '{"a'),)),
        Message(role="assistant", tool_calls=(ToolCall("call_1", "add", '{"b'),)),
    ),
    (Message(role="assistant", tool_calls=(CALL,)), answer("")),
    (
        Message(role="assistant", content=(TextPart("a"), ImagePart("http://x/")), extra={"refusal": "no"}),
        Message(role="assistant", content=(TextPart("a"), ImagePart("http://x/")), extra={"refusal": "yes"}),
    ),
    (
        Message(role="user", content=(TextPart("see"), ImagePart("https://x/a.png"))),
        Message(role="user", content=(TextPart("see"), ImagePart("https://x/b.png"))),
    ),
    # Fields must not run into each other.
    (user('a","b'), Message(role="user", content="a", name="b")),
]


async def place_again(store: Conversations, first: Message, second: Message) -> tuple[Message, ...]:
    await ask(store, "c", "q", answer("A"), first, says="B")
    turn = await begin(store, "c", "q", answer("A"), second, answer("B"), "next")
    assert turn.request.messages[-3:] == (turn.request.messages[-3], answer("B"), user("next"))
    return turn.request.messages[turn.request.new_from :]


@pytest.mark.parametrize(("first", "second"), SAME)
async def test_messages_of_one_content_are_one_message(
    store: Conversations, first: Message, second: Message
) -> None:
    assert await place_again(store, first, second) == (user("next"),)


@pytest.mark.parametrize(("first", "second"), OTHER)
async def test_messages_of_another_content_branch(
    store: Conversations, first: Message, second: Message
) -> None:
    assert await place_again(store, first, second) == (second, answer("B"), user("next"))


async def test_a_question_without_an_answer_is_new_as_often_as_it_is_asked(store: Conversations) -> None:
    await ask(store, "c", "q", says="A")
    (await begin(store, "c", "unanswered", "both")).interrupt()
    turn = await begin(store, "c", "q", answer("A"), "unanswered", "both")
    assert texts(turn.request.messages) == ["q", "A", "unanswered", "both"]
    assert turn.request.new_from == 2
    turn.interrupt()


async def test_a_tool_call_that_is_sent_back_is_known(store: Conversations) -> None:
    turn = await begin(store, "c", "add")
    turn.record(ToolCallDelta(id="call_1", name="add", arguments='{"a":'))
    turn.record(ToolCallDelta(arguments=" 1}"))
    await complete(turn, "")
    call = Message(role="assistant", tool_calls=(ToolCall("call_1", "add", '{"a": 1}'),))
    result = Message(role="tool", content="3", tool_call_id="call_1")
    turn = await ask(store, "c", "add", call, result, says="3")
    assert turn.request.new_from == 2
    turn = await ask(store, "c", "and now?", says="4")
    assert turn.request.messages == (user("add"), call, result, answer("3"), user("and now?"))


async def test_a_result_names_its_call_as_the_store_does(store: Conversations) -> None:
    turn = await begin(store, "c", "add")
    turn.record(ToolCallDelta(index=0, id="call_a", name="add", arguments='{"a": 1}'))
    turn.record(ToolCallDelta(index=1, id="call_b", name="sub", arguments="{}"))
    await complete(turn, "")
    mine = (ToolCall("call_1", "add", '{"a":1}'), ToolCall("call_2", "sub", "{}"))
    results = [Message(role="tool", content=str(n), tool_call_id=f"call_{n}") for n in (2, 1)]
    turn = await begin(store, "c", "add", Message(role="assistant", tool_calls=mine), *results)
    assert turn.request.new_from == 2
    assert [message.tool_call_id for message in turn.request.messages[2:]] == ["call_b", "call_a"]
    turn.interrupt()


async def test_two_results_of_the_same_words_are_two(store: Conversations) -> None:
    turn = await begin(store, "c", "add")
    for index in (0, 1):
        turn.record(ToolCallDelta(index=index, id=f"k{index}", name="f", arguments="{}"))
    await complete(turn, "")
    for id in ("k0", "k1"):
        turn = await begin(store, "c", Message(role="tool", content="done", tool_call_id=id))
        await complete(turn, "")
    assert [message.tool_call_id for message in turn.request.messages[2:]] == ["k0", "k1"]


async def test_a_new_call_may_have_the_id_that_the_client_gave_an_old_one(store: Conversations) -> None:
    turn = await begin(store, "c", "add")
    turn.record(ToolCallDelta(id="k1", name="f", arguments="{}"))
    await complete(turn, "")
    first = Message(role="assistant", tool_calls=(ToolCall("call_1", "f", "{}"),))
    edited = Message(role="assistant", tool_calls=(ToolCall("call_1", "g", "{}"),))
    result = Message(role="tool", content="2", tool_call_id="call_1")
    turn = await begin(store, "c", "add", first, edited, result)
    assert turn.request.messages[-1].tool_call_id == "call_1"


async def test_a_result_that_names_only_its_function_answers_the_call_of_it(store: Conversations) -> None:
    turn = await begin(store, "c", "add")
    turn.record(ToolCallDelta(index=0, id="call_a", name="add", arguments="{}"))
    turn.record(ToolCallDelta(index=1, id="call_b", name="sub", arguments="{}"))
    turn.record(ToolCallDelta(index=2, id="call_c", name="sub", arguments="{}"))
    await complete(turn, "")
    results = [Message(role="tool", content="1", name=name) for name in ("sub", "add", "sub")]
    with pytest.raises(InvalidRequest, match="answers no call"):
        await begin(store, "c", *results, results[0])
    turn = await begin(store, "c", *results)
    assert [message.tool_call_id for message in turn.request.messages[2:]] == ["call_b", "call_a", "call_c"]


async def test_an_answer_that_thought_is_known_without_its_thoughts(store: Conversations) -> None:
    turn = await begin(store, "c", "add")
    turn.record(TextDelta(text="3"))
    await complete(turn, "")
    turn = await begin(store, "c", "add", answer("3"), "why?")
    assert turn.request.new_from == 2


async def test_instructions_are_no_part_of_what_is_matched(store: Conversations) -> None:
    await ask(store, "c", system("be brief"), "a", says="B")
    turn = await ask(store, "c", "a", answer("B"), "c", says="D")
    assert texts(turn.request.messages) == ["be brief", "a", "B", "c"]
    assert turn.request.new_from == 3
    turn = await ask(store, "c", system("be long"), "a", answer("B"), "c", answer("D"), "e", says="F")
    assert texts(turn.request.messages) == ["be long", "a", "B", "c", "D", "e"]
    assert turn.request.new_from == 5


async def test_a_request_of_instructions_alone_adds_no_message(store: Conversations) -> None:
    await ask(store, "c", "a", says="B")
    turn = await begin(store, "c", system("be brief"))
    assert texts(turn.request.messages) == ["be brief", "a", "B"]


async def test_instructions_alone_may_follow_a_question_without_an_answer(store: Conversations) -> None:
    (await begin(store, "c", "q")).interrupt()
    turn = await begin(store, "c", system("be brief"))
    assert texts(turn.request.messages) == ["be brief", "q"]
    turn.interrupt()


async def test_later_system_messages_are_messages(store: Conversations) -> None:
    await ask(store, "c", system("be brief"), "a", system("be long"), says="B")
    turn = await begin(store, "c", "a", system("be long"), answer("B"), "c")
    assert texts(turn.request.messages) == ["be brief", "a", "be long", "B", "c"]
    assert turn.request.new_from == 4


async def test_equal_instructions_are_stored_once(store: Conversations) -> None:
    for _ in range(3):
        await ask(store, "c", system("be brief"), "a")
    turns = (await store.show(ME, "c")).turns
    assert [turn.instructions for turn in turns] == [(system("be brief"),), (), ()]


async def test_a_branch_keeps_the_shared_beginning_once(store: Conversations) -> None:
    await ask(store, "c", "a", says="B")
    await ask(store, "c", "c", says="D")
    await ask(store, "c", "a", answer("B"), "x", says="Y")
    shown = await store.show(ME, "c")
    assert sorted(texts(tuple(one.message for one in shown.tree))) == ["B", "D", "Y", "a", "c", "x"]


async def test_a_request_is_matched_where_the_conversation_stands_when_its_turn_comes(
    store: Conversations,
) -> None:
    first = await begin(store, "c", "a")
    waiting = asyncio.ensure_future(begin(store, "c", "a", answer("B"), "c"))
    await asyncio.sleep(0)
    await complete(first, "B")
    turn = await waiting
    assert texts(turn.request.messages) == ["a", "B", "c"]
    assert turn.request.new_from == 2


def test_a_history_that_comes_as_it_is_stored_is_compared_and_not_hashed() -> None:
    said = [user("a"), answer("B"), user("c")]
    # Hashes that no message has, and nothing to ask: only the messages themselves can tell.
    path = tuple(Node(number, b"unlike", message) for number, message in enumerate(said[:2]))

    def never(_: object) -> Any:
        raise AssertionError("the store was asked")

    assert place(path, said, never, never) == Placement(path, 2)
    assert place(path, said[:2], never, never) == Placement(path, 2)


async def test_a_message_that_cannot_be_stored_is_refused_before_anything_is_written(
    store: Conversations,
) -> None:
    await ask(store, "c", "a", says="B")
    with pytest.raises(InvalidRequest):
        await begin(store, "c", user("a"), answer("B"), user("\ud800"))
    kept = await store.show(ME, "c")
    assert texts(kept.messages) == ["a", "B"]
    # Nor is the conversation held.
    await ask(store, "c", "c", says="D")

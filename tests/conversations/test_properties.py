"""Whatever a client does: it ends with the history that it expects, and nothing that was said is lost."""

from __future__ import annotations

from itertools import count
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from modelway.conversations import Conversation, Conversations, Turn
from modelway.errors import UpstreamFailed
from modelway.types import Message, TextDelta, ToolCall, ToolCallDelta
from tests.conversations.talk import ME, answer, begin, complete, user

pytestmark = pytest.mark.anyio

_names = count()
several = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

End = Literal["done", "cut", "cut before text", "failed"]
ENDS: tuple[End, ...] = ("done", "done", "cut", "cut before text", "failed")
# Few words, so that different turns often say the same.
WORDS = st.sampled_from(["yes", "no", "", "e\u0301", "ok"])


class Exchange(Struct, frozen=True):
    """What is asked, and how it ends; `calls` a tool where it is answered."""

    asked: tuple[Message, ...]
    said: str
    end: End
    calls: bool = False


questions = st.lists(
    st.one_of(
        WORDS.map(user),
        WORDS.map(lambda word: Message(role="tool", content=word, tool_call_id="call_1")),
        WORDS.map(lambda word: Message(role="user", content=word, name="Heiner")),
    ),
    min_size=1,
    max_size=2,
).map(tuple)
exchanges = st.lists(
    st.builds(Exchange, questions, WORDS, st.sampled_from(ENDS), st.booleans()), min_size=1, max_size=6
)


async def play(turn: Turn, exchange: Exchange) -> tuple[Message, ...]:
    """Let the turn end like the exchange; returns the answer that stays."""
    if exchange.end == "failed":
        await turn.fail(UpstreamFailed("no"))
        return ()
    if exchange.end == "cut before text":
        turn.interrupt()
        return ()
    calls = (ToolCall("call_1", "f", "{}"),) if exchange.calls else ()
    if exchange.said:
        turn.record(TextDelta(text=exchange.said))
    if calls:
        turn.record(ToolCallDelta(id="call_1", name="f", arguments="{}"))
    if exchange.end == "cut":
        turn.interrupt()
    else:
        await complete(turn, "")
    if not exchange.said and not calls:
        return ()
    return (Message(role="assistant", content=exchange.said, tool_calls=calls),)


@several
@given(exchanges)
async def test_sending_everything_and_sending_what_is_new_end_with_one_history(
    store: Conversations, exchanges: list[Exchange]
) -> None:
    name = f"c{next(_names)}"
    said: tuple[Message, ...] = ()
    for number, exchange in enumerate(exchanges):
        asked = exchange.asked
        if said and said[-1].role != "assistant":
            # An equal question that comes again is the unanswered one; these are to be new ones.
            asked = (user(f"question {number}"), *asked)
        everything = await begin(store, f"{name}.all", *said, *asked)
        only_new = await begin(store, f"{name}.new", *asked)
        assert everything.request.messages == only_new.request.messages == (*said, *asked)
        assert everything.request.new_from == only_new.request.new_from == len(said)
        kept = await play(everything, exchange)
        assert await play(only_new, exchange) == kept
        if exchange.end != "failed":
            said = (*said, *asked, *kept)
    await store.ready()  # what was cut has been written by then
    one, other = await store.show(ME, f"{name}.all"), await store.show(ME, f"{name}.new")
    assert one.messages == other.messages == said
    assert [turn.status for turn in one.turns] == [turn.status for turn in other.turns]


class Move(Struct, frozen=True):
    """A client goes back to one of the histories that it knows, cuts it somewhere and goes on from there."""

    history: int
    keeps: int
    said: str
    end: End
    again: bool


moves = st.lists(
    st.builds(Move, st.integers(0, 50), st.integers(0, 50), WORDS, st.sampled_from(ENDS), st.booleans()),
    min_size=2,
    max_size=10,
)


def shared_with(history: tuple[Message, ...], move: Move) -> tuple[Message, ...]:
    """A beginning that holds an answer: a shorter one cannot be told from new messages."""
    answers = [i + 1 for i, message in enumerate(history) if message.role == "assistant"]
    if not answers:
        return history
    first = answers[0]
    return history[: first + move.keeps % (len(history) - first + 1)]


@several
@given(moves)
async def test_edits_lose_no_message_and_old_branches_stay_readable(
    store: Conversations, moves: list[Move]
) -> None:
    name = f"c{next(_names)}"
    histories: dict[str, tuple[Message, ...]] = {}
    current: tuple[Message, ...] = ()
    said: list[Message] = []
    for number, move in enumerate(moves):
        known = [*histories.values()] or [current]
        beginning = shared_with(known[move.history % len(known)], move)
        if not any(message.role == "assistant" for message in beginning):
            beginning = current
        new = () if move.again and beginning else (user(f"question {number}"),)
        turn = await begin(store, name, *beginning, *new)
        assert turn.request.messages == (*beginning, *new)
        said.extend(new)
        exchange = Exchange(new, move.said, move.end)
        kept = await play(turn, exchange)
        said.extend(kept)
        if move.end != "failed":
            current = histories[turn.id] = (*beginning, *new, *kept)
    await store.ready()
    shown = await store.show(ME, name)
    assert shown.messages == current
    stored = [one.message for one in shown.tree]
    assert all(message in stored for message in said)
    assert {one.turn_id for one in shown.branches} <= set(histories)
    for turn_id, expected in histories.items():
        assert path_of(shown, turn_id) == expected
        await store.fork(ME, name, f"{name}.{turn_id}", at_turn=turn_id)
        assert (await store.show(ME, f"{name}.{turn_id}")).messages == expected
    await store.delete(ME, name)
    for turn_id, expected in histories.items():
        assert (await store.show(ME, f"{name}.{turn_id}")).messages == expected
        await store.delete(ME, f"{name}.{turn_id}")


def path_of(shown: Conversation, turn_id: str) -> tuple[Message, ...]:
    """The messages up to the end of a turn, as they can be read from the tree."""
    messages = {one.id: one for one in shown.tree}
    (record,) = [turn for turn in shown.turns if turn.id == turn_id]
    found: list[Message] = []
    one = record.answer_id or record.tail
    while one:
        found.append(messages[one].message)
        one = messages[one].parent
    return tuple(reversed(found))


@several
@given(st.text(max_size=40), st.text(max_size=40))
async def test_any_text_comes_back_as_it_was(store: Conversations, asked: str, said: str) -> None:
    name = f"c{next(_names)}"
    try:
        (asked + said).encode()
    except UnicodeEncodeError:
        return
    turn = await begin(store, name, asked)
    await complete(turn, said)
    expected = (user(asked), answer(said)) if said else (user(asked),)
    assert (await store.show(ME, name)).messages == expected
    turn = await begin(store, name, *expected, "next")
    assert turn.request.new_from == len(expected)
    turn.interrupt()

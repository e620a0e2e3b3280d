"""Calls that an upstream writes by turns, with text between them, in every format that callers read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.dialects import anthropic_messages, ollama_chat, openai_chat, openai_responses
from modelway.dialects.envelope import Envelope
from modelway.types import Event, Finish, ReasoningDelta, TextDelta, ToolCallDelta, collect

ENVELOPE = Envelope(id="x_1", created=1, model="m", provider="P")

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
arguments = st.dictionaries(words, words | st.integers(-9, 9), max_size=3).map(json.dumps)


@st.composite
def by_turns(draw: st.DrawFn) -> list[Event]:
    """Up to four calls in pieces, each in its own order, mixed with each other and with text and thoughts."""
    queues: list[list[Event]] = []
    for index in range(draw(st.integers(1, 4))):
        told = draw(arguments)
        cuts = sorted(draw(st.lists(st.integers(0, len(told)), max_size=3)))
        pieces = [told[a:b] for a, b in zip([0, *cuts], [*cuts, len(told)], strict=True)]
        begun: Event = ToolCallDelta(index=index, id=f"call_{index}", name=draw(words), arguments=pieces[0])
        queues.append([begun, *(ToolCallDelta(index=index, arguments=piece) for piece in pieces[1:])])
    said = draw(st.lists(words, max_size=3))
    queues.append([TextDelta(text=text) for text in said])
    queues.append([ReasoningDelta(text=text) for text in draw(st.lists(words, max_size=2))])
    events: list[Event] = []
    while queues := [queue for queue in queues if queue]:
        # A call begins only after those before it.
        begun_calls = {event.index for event in events if isinstance(event, ToolCallDelta)}
        able = [
            queue
            for queue in queues
            if not isinstance(queue[0], ToolCallDelta) or queue[0].index in {*begun_calls, len(begun_calls)}
        ]
        events.append(draw(st.sampled_from(able)).pop(0))
    return [*events, Finish(reasons=("tool_calls",))]


def decoded(dialect: Any, stream: bytes) -> list[Event]:
    decoder = dialect.EventDecoder()
    return [*decoder.feed(stream), *decoder.close()]


def of_response(stream: bytes) -> list[Event]:
    data = [line[6:] for line in stream.decode().split("\n") if line.startswith("data: ")]
    response = json.loads(data[-1])["response"]
    events: list[Event] = []
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    for item in response["output"]:
        for part in item.get("content", ()):
            kind = ReasoningDelta if item["type"] == "reasoning" else TextDelta
            events.append(kind(text=part["text"]))
    events += [
        ToolCallDelta(index=index, id=item["call_id"], name=item["name"], arguments=item["arguments"])
        for index, item in enumerate(calls)
    ]
    return [*events, Finish(reasons=("tool_calls",))]


READERS: dict[str, tuple[Any, Callable[[bytes], list[Event]]]] = {
    "openai_chat": (openai_chat, lambda stream: decoded(openai_chat, stream)),
    "openai_responses": (openai_responses, of_response),
    "anthropic_messages": (anthropic_messages, lambda stream: decoded(anthropic_messages, stream)),
    "ollama_chat": (ollama_chat, lambda stream: decoded(ollama_chat, stream)),
}


@pytest.mark.parametrize("format", READERS)
@given(events=by_turns())
def test_calls_written_by_turns_arrive_whole_and_in_order(format: str, events: list[Event]) -> None:
    dialect, read = READERS[format]
    encoder = dialect.EventEncoder(ENVELOPE)
    stream = b"".join(map(encoder.encode, events)) + encoder.end()
    found, meant = collect(read(stream)).choices[0], collect(events).choices[0]
    assert [(call.id, call.name, json.loads(call.arguments)) for call in found.message.tool_calls] == [
        (call.id, call.name, json.loads(call.arguments)) for call in meant.message.tool_calls
    ]
    assert (found.message.text, found.message.reasoning) == (meant.message.text, meant.message.reasoning)
    assert found.finish_reason == "tool_calls"


def test_a_block_of_anthropic_s_is_never_written_to_after_its_end() -> None:
    first = ToolCallDelta(index=0, id="a", name="f", arguments='{"x":')
    other = ToolCallDelta(index=1, id="b", name="g", arguments="{}")
    encoder = anthropic_messages.EventEncoder(ENVELOPE)
    live = encoder.encode(first) + encoder.encode(other)
    assert b'"name":"g"' not in live
    whole = encoder.encode(ToolCallDelta(index=0, arguments="1}"))
    assert b'"partial_json":"1}"' in whole
    assert b'"name":"g"' in encoder.encode(Finish(reasons=("tool_calls",)))


def test_calls_one_after_the_other_are_written_as_they_come() -> None:
    encoder = anthropic_messages.EventEncoder(ENVELOPE)
    encoder.encode(ToolCallDelta(index=0, id="a", name="f", arguments='{"x":1}'))
    assert b'"name":"g"' in encoder.encode(ToolCallDelta(index=1, id="b", name="g"))

"""Anthropic's format as its own SDK types it: what we send upstream, and what callers get of us."""

from __future__ import annotations

from typing import Any, cast, get_type_hints

import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message as Published
from anthropic.types import RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from pydantic import TypeAdapter

from modelway.dialects.anthropic_messages import EventEncoder, encode_completion, encode_request
from modelway.dialects.envelope import Envelope
from modelway.types import (
    ChatRequest,
    Citation,
    Event,
    FilePart,
    Finish,
    ImagePart,
    Message,
    Params,
    ReasoningDelta,
    RefusalDelta,
    ResponseFormat,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    Usage,
    collect,
)

ENVELOPE = Envelope(id="msg_1", created=1, model="m", provider="P", conversation_id="c")
LOOK = Tool("look", "looks", {"type": "object"}, strict=True)
PARTS = (
    TextPart("read"),
    ImagePart("data:image/png;base64,AAAA"),
    ImagePart("https://x/y.png"),
    FilePart("data:application/pdf;base64,AAAA", name="a.pdf"),
    FilePart("https://x/y.pdf"),
    FilePart("data:text/plain,hi"),
    FilePart(file_id="file_1"),
)
THOUGHT = [
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "redacted_thinking", "data": "d"},
    {"type": "tool_use", "id": "1", "name": "look", "input": {}},
]
LOOP = (
    Message(role="system", content="be brief"),
    Message(role="user", content=PARTS),
    Message(role="assistant", content="I look", tool_calls=(ToolCall("1", "look"),)),
    Message(role="tool", content=(TextPart("a cat"), ImagePart("https://x/y.png")), tool_call_id="1"),
)
EVENTS: list[Event] = [
    ReasoningDelta(text="hm"),
    TextDelta(text="a"),
    Citation(url="https://x/", title="X"),
    ToolCallDelta(index=0, id="1", name="f", arguments='{"a":'),
    ToolCallDelta(index=0, arguments="1}"),
    ToolCallDelta(index=1, id="2", name="g", arguments="{}"),
]
FINISH = Finish(reasons=("tool_calls",), usage=Usage(30, 4, 20, 2, 3))


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-4-5"])
@pytest.mark.parametrize(
    "params",
    [
        Params(),
        Params(max_tokens=9, stop=("x",), tools=(LOOK,), tool_choice=ToolChoice("none")),
        Params(tools=(LOOK,), tool_choice=ToolChoice("named", "look"), parallel_tool_calls=False),
        Params(tools=(LOOK,), tool_choice=ToolChoice("required"), reasoning_effort="minimal"),
        Params(tools=(LOOK,), parallel_tool_calls=False, reasoning_effort="none"),
        Params(
            reasoning_effort="max", response_format=ResponseFormat("json_schema", "x", {"type": "object"})
        ),
    ],
)
def test_every_request_is_of_the_published_type(params: Params, model: str) -> None:
    for state in (None, {"turns": [THOUGHT]}):
        request = ChatRequest(messages=LOOP, model=model, stream=True, params=params, upstream_state=state)
        body = msgspec.json.decode(encode_request(request))
        assert set(body) <= set(get_type_hints(MessageCreateParamsStreaming))
        TypeAdapter(MessageCreateParamsStreaming).validate_python(body)


@pytest.mark.parametrize("refusal", ["", "not this"])
def test_every_answer_is_of_the_published_type(refusal: str) -> None:
    events = [*EVENTS, *([RefusalDelta(text=refusal)] if refusal else []), FINISH]
    streamed = accumulated(events)
    whole = Published.model_validate_json(encode_completion(collect(events), ENVELOPE))
    for message in (streamed, whole):
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert message.stop_reason == ("refusal" if refusal else "tool_use")
        assert (message.stop_details.explanation if message.stop_details else "") == refusal
        assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (7, 20)
        assert [block.input for block in message.content if block.type == "tool_use"] == [{"a": 1}, {}]


def accumulated(events: list[Event]) -> Published:
    """What the SDK makes of a stream."""
    encoder = EventEncoder(ENVELOPE)
    stream = b"".join(map(encoder.encode, events)) + encoder.end()
    read = TypeAdapter[Any](RawMessageStreamEvent)
    message, buffers = None, dict[int, bytes]()
    for part in stream.split(b"\n\n")[:-1]:
        event = read.validate_json(part.partition(b"data: ")[2])
        message = accumulate_event(event=event, current_snapshot=message, json_bufs=cast("Any", buffers))
    return cast("Published", message)

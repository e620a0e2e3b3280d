"""Ollama's format: what its one half writes its other half reads, and what callers are told."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.dialects import ollama_chat
from modelway.dialects.envelope import Envelope
from modelway.dialects.translation import Inline, inline
from modelway.errors import InvalidRequest, UpstreamError, UpstreamProtocolError
from modelway.types import (
    ChatRequest,
    Citation,
    Event,
    Finish,
    ImagePart,
    Message,
    Opaque,
    Params,
    RefusalDelta,
    ResponseFormat,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
    collect,
)

ENVELOPE = Envelope(id="1", created=1, model="m", provider="P", conversation_id="c")
PNG = "data:image/png;base64,iVBORw0KGgo="


def written(events: list[Event]) -> bytes:
    encoder = ollama_chat.EventEncoder(ENVELOPE)
    return b"".join(map(encoder.encode, events)) + encoder.end()


def read(*pieces: bytes, raw: bool = False) -> list[Event]:
    decoder = ollama_chat.EventDecoder(raw=raw)
    return [*(event for piece in pieces for event in decoder.feed(piece)), *decoder.close()]


# Answers.


def test_the_first_line_says_who_answers_in_which_conversation_and_the_last_how_it_ended() -> None:
    usage = Usage(input_tokens=5, output_tokens=2, cached_tokens=1)
    lines = written([TextDelta(text="Hi"), Finish(reasons=("length",), usage=usage)]).splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "model": "m",
            "created_at": "1970-01-01T00:00:01Z",
            "message": {"role": "assistant", "content": "Hi"},
            "done": False,
            "provider": "P",
            "conversation_id": "c",
        },
        {
            "model": "m",
            "created_at": "1970-01-01T00:00:01Z",
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "length",
            "prompt_eval_count": 5,
            "eval_count": 2,
            "prompt_eval_cached_count": 1,
        },
    ]


def test_a_relayed_stream_gets_our_fields_once() -> None:
    upstream = b'{"message":{"content":"a"}}\n{"message":{"content":""},"done":true}\n'
    relayed = written(read(upstream, raw=True)).splitlines()
    assert json.loads(relayed[0]) == {"message": {"content": "a"}, "provider": "P", "conversation_id": "c"}
    assert relayed[1] == b'{"message":{"content":""},"done":true}'


def test_lines_that_say_nothing_reach_only_callers_of_this_dialect() -> None:
    line = b'{"model":"m","message":{"role":"assistant","content":""},"done":false}\n'
    end = b'{"done":true,"done_reason":"stop"}\n'
    assert [type(event) for event in read(line + end)] == [Finish]
    assert read(line + end, raw=True)[0] == Opaque(line)


def test_a_refusal_is_text_and_sources_have_no_place() -> None:
    events: list[Event] = [RefusalDelta(text="No."), Citation(url="https://example.org"), Finish()]
    assert collect(read(written(events))).text == "No."


def test_lines_of_api_generate_are_read_too() -> None:
    found = read(b'{"response":"a","thinking":"hm"}\n{"response":"b","done":true,"done_reason":"length"}\n')
    completion = collect(found)
    assert (completion.text, completion.message.reasoning, completion.finish_reason) == ("ab", "hm", "length")


def test_an_answer_is_written_for_api_generate() -> None:
    encoder = ollama_chat.EventEncoder(ENVELOPE, "generate")
    line = json.loads(encoder.encode(TextDelta(text="Hi")))
    assert line["response"] == "Hi"
    assert "message" not in line
    body = ollama_chat.encode_completion(collect([TextDelta(text="Hi"), Finish()]), ENVELOPE, "generate")
    assert json.loads(body)["response"] == "Hi"


def test_calls_without_an_id_get_one_each() -> None:
    call = b'{"function":{"name":"look","arguments":{"a":1}}}'
    stream = b'{"message":{"tool_calls":[%b,%b]}}\n{"done":true,"done_reason":"stop"}\n' % (call, call)
    completion = collect(read(stream))
    first, second = completion.message.tool_calls
    assert first.id.startswith("call_")
    assert first.id != second.id
    assert completion.finish_reason == "tool_calls"


def test_arguments_that_are_no_object_cannot_be_written() -> None:
    events: list[Event] = [ToolCallDelta(id="1", name="look", arguments='{"half'), Finish()]
    with pytest.raises(UpstreamProtocolError, match="JSON object"):
        written(events)


def test_a_stream_that_just_ends_is_an_error_and_never_a_stop() -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        read(written([TextDelta(text="half an ans")]))
    assert caught.value.code == "upstream_truncated"


def test_text_before_an_error_line_is_given_first() -> None:
    encoder = ollama_chat.EventEncoder(ENVELOPE)
    stream = encoder.encode(TextDelta(text="so far")) + encoder.error(UpstreamError("it broke"))
    found: list[Event] = []
    with pytest.raises(UpstreamError, match="it broke"):
        found.extend(ollama_chat.EventDecoder().feed(stream))
    assert collect(found).text == "so far"


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b'{"message":1}\n', b'{"done":"yes"}\n'])
def test_what_is_no_answer_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        read(line)


def test_a_line_without_end_is_given_up() -> None:
    decoder = ollama_chat.EventDecoder(max_event_bytes=100)
    with pytest.raises(UpstreamProtocolError) as caught:
        list(decoder.feed(b"a" * 101))
    assert caught.value.code == "upstream_too_large"


def test_an_error_is_one_string() -> None:
    assert json.loads(ollama_chat.encode_error(UpstreamError("it broke", hint="wait"))) == {
        "error": "it broke; wait"
    }


# Requests.

REQUESTS = [
    ChatRequest(messages=(Message(role="user", content="hi"),), stream=True),
    ChatRequest(
        messages=(
            Message(role="system", content="be brief"),
            Message(role="user", content=(TextPart("what is this?"), ImagePart(PNG))),
            Message(role="assistant", reasoning="hm", tool_calls=(ToolCall("c1", "look", '{"at":1}'),)),
            Message(role="tool", content="a cat", tool_call_id="c1"),
        ),
        model="m",
        params=Params(
            temperature=0.5,
            top_p=0.9,
            max_tokens=10,
            stop=("a", "b"),
            seed=3,
            presence_penalty=0.1,
            frequency_penalty=-0.1,
            reasoning_effort="low",
            tools=(Tool("look", "looks", {"type": "object"}),),
            response_format=ResponseFormat("json_schema", "answer", {"type": "object"}),
        ),
    ),
    ChatRequest(
        messages=(Message(role="user", content="hi"),),
        params=Params(reasoning_effort="none", response_format=ResponseFormat("json_object")),
    ),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_survives_the_round_trip(request_: ChatRequest) -> None:
    found = ollama_chat.decode_request(ollama_chat.encode_request(request_))
    assert found.extra == {"truncate": False}
    assert msgspec.structs.replace(found, dialect="", extra={}, include_usage=False) == request_


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def test_an_answer_is_streamed_unless_the_caller_says_otherwise() -> None:
    assert ollama_chat.decode_request(body()).stream
    assert not ollama_chat.decode_request(body(stream=False)).stream


def test_fields_that_are_not_known_are_kept_for_an_upstream_of_the_same_dialect() -> None:
    asked = body(keep_alive="5m", think=True, options={"num_ctx": 9, "seed": 1, "num_predict": -1})
    request = ollama_chat.decode_request(asked)
    assert request.params == Params(seed=1)
    sent = json.loads(ollama_chat.encode_request(request))
    assert sent["keep_alive"] == "5m"
    assert sent["think"] is True
    assert sent["options"] == {"num_ctx": 9, "seed": 1, "num_predict": -1}


def test_results_find_their_calls_by_name_or_by_order() -> None:
    def call(name: str) -> dict[str, object]:
        return {"function": {"name": name, "arguments": {}}}

    request = ollama_chat.decode_request(
        body(
            messages=[
                {"role": "user", "content": "hi"},
                {"role": "assistant", "tool_calls": [call("a"), call("b"), call("a")]},
                {"role": "tool", "tool_name": "b", "content": "of b"},
                {"role": "tool", "content": "of the first a"},
                {"role": "tool", "tool_name": "a", "content": "of the second a"},
            ]
        )
    )
    ids = [call.id for call in request.messages[1].tool_calls]
    assert [message.tool_call_id for message in request.messages[2:]] == [ids[1], ids[0], ids[2]]


def test_a_prompt_of_api_generate_is_a_message() -> None:
    asked = {"model": "m", "system": "be brief", "prompt": "hi", "images": ["/9j/AA"]}
    request = ollama_chat.decode_generate_request(json.dumps(asked).encode())
    assert request.messages == (
        Message(role="system", content="be brief"),
        Message(role="user", content=(TextPart("hi"), ImagePart("data:image/jpeg;base64,/9j/AA"))),
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [], "model": ""}, "messages"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "images": [1]}]}, "messages[0].images[0]"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"stop": [1]}}, "options.stop[0]"),
        ({"format": 5}, "format"),
        ({"think": 3}, "think"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ],
)
def test_a_mistake_is_named_by_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ollama_chat.decode_request(body(**fields))
    assert caught.value.param == param


@given(
    body_=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["messages", "role", "content", "images", "options", "tools", "format"]),
                inner,
            )
        ),
    ).map(msgspec.json.encode)
)
def test_any_body_is_a_request_or_an_invalid_request(body_: bytes) -> None:
    for decode in (ollama_chat.decode_request, ollama_chat.decode_generate_request):
        with suppress(InvalidRequest):
            assert isinstance(decode(body_), ChatRequest)


# Images in the middle of URLs.


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("data:image/png;base64,aGk=", Inline("image/png", "aGk=")),
        ("DATA:Image/PNG;charset=x;BASE64,aGk%3D", Inline("image/png", "aGk=")),
        ("data:,hi%21", Inline("text/plain", "aGkh")),
        ("data:image/png;base64,***", None),
        ("data:image/png", None),
        ("https://example.org/cat.png", None),
    ],
)
def test_a_data_url_is_taken_apart(url: str, found: Inline | None) -> None:
    assert inline(url) == found

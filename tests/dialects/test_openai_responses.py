"""OpenAI's Responses format: what callers may send, and what its own SDK makes of our answers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import TypeAdapter

from modelway.dialects import openai_responses
from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_responses import (
    EventEncoder,
    decode_request,
    encode_completion,
    encode_error,
    encode_items,
    encode_response,
    input_items,
)
from modelway.errors import InvalidRequest, UpstreamOverloaded, UpstreamRateLimited, all_errors
from modelway.types import (
    THIS_TURN_ONLY,
    ChatRequest,
    Citation,
    Event,
    FilePart,
    Finish,
    FinishReason,
    ImagePart,
    Message,
    Opaque,
    OtherPart,
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
    UpstreamState,
    Usage,
    collect,
)

ENVELOPE = Envelope(id="resp_1", created=1, completed=2, model="m", provider="P", conversation_id="c")
EVENTS = TypeAdapter[Any](ResponseStreamEvent)
# What the Open Responses specification demands of every response.
REQUIRED = [
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "model",
    "previous_response_id",
    "instructions",
    "output",
    "error",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "user",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
]

text = st.text(min_size=1, max_size=20)
deltas = st.one_of(
    st.builds(TextDelta, text=text),
    st.builds(ReasoningDelta, text=text),
    st.builds(RefusalDelta, text=text),
    st.builds(Citation, url=text, title=st.text(max_size=20), start_index=st.none() | st.integers(0, 99)),
    st.builds(ToolCallDelta, index=st.integers(0, 2), arguments=text, name=st.just("f"), id=text),
    st.just(TextDelta(text="another choice", choice=1)),
    st.just(UpstreamState({})),
    st.just(Opaque(b"")),
)
finishes = st.builds(
    Finish,
    reasons=st.sampled_from(get_args(FinishReason)).map(lambda reason: (reason,)),
    usage=st.none() | st.builds(Usage, input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9)),
)


def request(**fields: Any) -> ChatRequest:
    return decode_request(msgspec.json.encode({"input": "hi", **fields}))


def messages(*items: Any) -> tuple[Message, ...]:
    return request(input=list(items)).messages


def streamed(stream: bytes) -> list[Any]:
    """The events of a stream as JSON; each is what the SDK says that it is."""
    found = []
    for part in stream.split(b"\n\n")[:-1]:
        name, _, body = part.partition(b"\ndata: ")
        event = msgspec.json.decode(body)
        assert name == b"event: " + event["type"].encode()
        assert type(EVENTS.validate_python(event)).model_fields["type"].annotation is not None
        found.append(event)
    return found


def written(events: list[Event]) -> list[Any]:
    encoder = EventEncoder(replace(ENVELOPE, now=lambda: 2.5))
    return streamed(b"".join(map(encoder.encode, events)) + encoder.end())


def accumulated(events: list[Any]) -> list[Any]:
    """The output that the SDK puts together from the pieces, without looking at the last event."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events[:-1]:
        state.handle_event(EVENTS.validate_python(event))
    snapshot: Any = vars(state)["_ResponseStreamState__current_snapshot"]
    return list(map(pieces_of, snapshot.output))


def pieces_of(item: Any) -> dict[str, Any]:
    """An item without what the SDK takes only from its end."""
    fields: dict[str, Any] = item.to_dict()
    del fields["status"]
    if fields["type"] == "reasoning":
        del fields["content"]
    for part in fields.get("content", ()):
        part.pop("annotations", None)
        part.pop("refusal", None)
    return fields


@given(events=st.lists(deltas, max_size=12), finish=finishes)
def test_every_stream_says_in_pieces_what_it_says_at_the_end(events: list[Event], finish: Finish) -> None:
    found = written([*events, finish])
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    response = found[-1]["response"]
    assert found[-1]["type"] == "response." + response["status"]
    added = [event["item"]["id"] for event in found if event["type"] == "response.output_item.added"]
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert len(set(added)) == len(added)
    assert sorted(done, key=lambda item: added.index(item["id"])) == response["output"]
    assert all(item["status"] != "in_progress" for item in response["output"])
    for kind, field in (("output_text", "text"), ("refusal", "refusal"), ("reasoning_text", "text")):
        pieces = [event["delta"] for event in found if event["type"] == f"response.{kind}.delta"]
        wholes = [event[field] for event in found if event["type"] == f"response.{kind}.done"]
        assert "".join(pieces) == "".join(wholes)


@given(events=st.lists(deltas, max_size=12), finish=finishes)
def test_the_sdk_puts_a_stream_together_as_it_was_meant(events: list[Event], finish: Finish) -> None:
    # Two calls under one id, which no upstream should make, are what the SDK refuses.
    calls = [event for event in events if isinstance(event, ToolCallDelta) and event.id]
    named = {(call.choice, call.index): call.id for call in calls}
    assume(len(set(named.values())) == len(named))
    found = written([*events, finish])
    whole = Response.model_validate(found[-1]["response"])
    assert accumulated(found) == list(map(pieces_of, whole.output))


@given(
    thought=st.text(max_size=9),
    said=st.text(max_size=9),
    refusal=st.text(max_size=9),
    calls=st.lists(text, max_size=3),
    finish=finishes,
)
def test_streamed_and_whole_answers_are_the_same_response(
    thought: str, said: str, refusal: str, calls: list[str], finish: Finish
) -> None:
    events: list[Event] = []
    events += [ReasoningDelta(text=thought)] if thought else []
    events += [TextDelta(text=said), Citation(url="https://x/")] if said else []
    events += [RefusalDelta(text=refusal)] if refusal else []
    events += [ToolCallDelta(index=index, id=id, name="f", arguments="{}") for index, id in enumerate(calls)]
    events += [finish]
    body = msgspec.json.decode(encode_completion(collect(events), ENVELOPE))
    Response.model_validate(body)
    last = written(events)[-1]["response"]
    assert last == body


def test_a_response_has_every_field_and_repeats_the_request() -> None:
    asked = request(
        model="x", temperature=0.5, metadata={"a": "b"}, instructions="brief", text={"verbosity": "low"},
        reasoning={"effort": "low"}, tools=[{"type": "function", "name": "f"}], user="me",
    )  # fmt: skip
    envelope = msgspec.structs.replace(ENVELOPE, echo=asked.echo)
    found = msgspec.json.decode(encode_completion(collect([TextDelta(text="hi"), Finish()]), envelope))
    assert set(REQUIRED) <= found.keys()
    assert (found["created_at"], found["completed_at"], found["status"]) == (1, 2, "completed")
    assert (found["temperature"], found["top_p"], found["user"]) == (0.5, 1.0, "me")
    assert (found["instructions"], found["metadata"]) == ("brief", {"a": "b"})
    assert found["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert found["reasoning"] == {"effort": "low", "summary": None}
    assert found["tools"][0]["name"] == "f"
    assert (found["conversation"], found["provider"], found["model"]) == ({"id": "c"}, "P", "m")


@pytest.mark.parametrize(
    ("reason", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_the_end_is_a_status(reason: FinishReason, status: str, details: Any) -> None:
    last = written([TextDelta(text="hi"), Finish(reasons=(reason,))])[-1]
    assert (last["type"], last["response"]["incomplete_details"]) == (f"response.{status}", details)
    assert last["response"]["output"][0]["status"] == status


def test_calls_that_come_at_once_are_kept_apart() -> None:
    found = written(
        [
            ToolCallDelta(index=0, id="1", name="f", arguments='{"a":'),
            ToolCallDelta(index=1, id="2", name="g", arguments="{"),
            ToolCallDelta(index=0, arguments="1}"),
            ToolCallDelta(index=1, arguments="}"),
            Finish(reasons=("tool_calls",)),
        ]
    )
    output = found[-1]["response"]["output"]
    assert [(item["call_id"], item["arguments"]) for item in output] == [("1", '{"a":1}'), ("2", "{}")]


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    (item,) = written([Finish()])[-1]["response"]["output"]
    assert item["content"] == [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]


@pytest.mark.parametrize("begun", [[], [TextDelta(text="half")]])
def test_an_error_in_the_middle_ends_what_is_open_and_says_why(begun: list[Event]) -> None:
    encoder = EventEncoder(ENVELOPE)
    stream = b"".join(map(encoder.encode, begun)) + encoder.error(UpstreamRateLimited("slow down"))
    found = streamed(stream)
    failed, error = found[-2:]
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "rate_limit_exceeded", "message": "slow down"}
    assert [item["status"] for item in failed["response"]["output"]] == ["incomplete"] * len(begun)
    assert (error["type"], error["code"], error["error"]["code"]) == ("error", *["upstream_rate_limited"] * 2)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))


def test_every_error_is_written_with_message_type_param_and_code() -> None:
    for kind in all_errors():
        error = kind("what happened", hint="what to do", param="field")
        told = {
            "message": "what happened; what to do",
            "type": kind.type,
            "param": "field",
            "code": kind.code,
        }
        assert msgspec.json.decode(encode_error(error)) == {"error": told}


def test_a_kept_response_is_written_as_it_stands() -> None:
    answer = Message(role="assistant", extra={"refusal": "no"})
    kept = Response.model_validate_json(encode_response(ENVELOPE, "incomplete", answer))
    assert kept.output[0].to_dict() == {
        "id": "msg_1",
        "type": "message",
        "status": "incomplete",
        "role": "assistant",
        "content": [{"type": "refusal", "refusal": "no"}],
    }
    error = openai_responses.response_error(UpstreamOverloaded.status, "too many")
    failed = Response.model_validate_json(encode_response(ENVELOPE, "failed", None, error=error))
    assert (failed.output, failed.status, failed.completed_at) == ([], "failed", None)


ITEMS: list[Any] = [
    {"type": "message", "role": "developer", "content": "be brief"},
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "what is this?"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
            {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
            {"type": "input_file", "file_url": "https://x/y.pdf"},
            {"type": "input_file", "file_id": "file-1"},
        ],
    },
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
    {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "status": "completed",
        "content": [{"type": "output_text", "text": "I look", "annotations": []}],
    },
    {"type": "function_call", "id": "fc_1", "call_id": "1", "name": "look", "arguments": "{}"},
    {"type": "function_call", "call_id": "2", "name": "look", "arguments": '{"at": 1}'},
    {"type": "function_call_output", "call_id": "1", "output": "a cat"},
    {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "a dog"}]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
]
MESSAGES = (
    Message(role="developer", content="be brief"),
    Message(
        role="user",
        content=(
            TextPart("what is this?"),
            ImagePart("data:image/png;base64,AA", "low"),
            FilePart("data:application/pdf;base64,AA==", name="a.pdf", media_type="application/pdf"),
            FilePart("https://x/y.pdf"),
            FilePart(file_id="file-1"),
        ),
    ),
    Message(
        role="assistant",
        content="I look",
        reasoning="hm",
        tool_calls=(ToolCall("1", "look"), ToolCall("2", "look", '{"at": 1}')),
    ),
    Message(role="tool", content="a cat", tool_call_id="1"),
    Message(role="tool", content="a dog", tool_call_id="2"),
    Message(role="assistant", extra={"refusal": "no"}),
)


def test_items_are_messages_and_what_the_model_did_at_once_is_one() -> None:
    assert messages(*ITEMS) == MESSAGES


def test_listed_items_are_of_the_published_type_and_are_read_as_what_they_were() -> None:
    listed = input_items(MESSAGES, "resp_1")
    page = ResponseItemList.model_validate_json(encode_items(listed, has_more=False))
    assert (page.first_id, page.last_id) == (listed[0]["id"], listed[-1]["id"])
    assert len({item["id"] for item in listed}) == len(listed)
    assert messages(*listed) == MESSAGES


def test_a_part_of_another_format_is_listed_as_it_is() -> None:
    sound = OtherPart("openai_chat", {"type": "input_audio"})
    (item,) = input_items([Message(role="user", content=(sound,))], "resp_1")
    assert item["content"] == [{"type": "input_audio"}]


def test_what_follows_a_call_is_another_message() -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    said = {"role": "assistant", "content": "so"}
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    found = messages(
        call, said, thought, {"type": "reasoning", "summary": [], "encrypted_content": "x"}, said
    )
    assert [(message.text, message.reasoning, len(message.tool_calls)) for message in found] == [
        ("", "", 1),
        ("so", "", 0),
        ("so", "hm", 0),
    ]


def test_params_are_read() -> None:
    tool = {
        "type": "function",
        "name": "f",
        "description": "d",
        "parameters": {"type": "object"},
        "strict": True,
    }
    found = request(
        model="m",
        temperature=1,
        top_p=0.5,
        max_output_tokens=9,
        presence_penalty=1,
        frequency_penalty=-1,
        reasoning={"effort": "low", "summary": "auto"},
        tools=[tool],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}},
        truncation="disabled",
        background=False,
        service_tier="auto",
        include=["reasoning.encrypted_content"],
    )
    assert found.params == Params(
        temperature=1,
        top_p=0.5,
        max_tokens=9,
        presence_penalty=1,
        frequency_penalty=-1,
        reasoning_effort="low",
        tools=(Tool("f", "d", {"type": "object"}, strict=True),),
        tool_choice=ToolChoice("named", "f"),
        parallel_tool_calls=False,
        response_format=ResponseFormat("json_schema", "a", {"type": "object"}, strict=True),
    )
    assert found.extra == {"service_tier": "auto"}
    assert request(text={"format": {"type": "json_object"}}).params.response_format == ResponseFormat(
        "json_object"
    )


def test_allowed_tools_are_those_that_the_model_is_told_of() -> None:
    tools = [{"type": "function", "name": name} for name in "abc"]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [tools[1]]}
    found = request(tools=tools, tool_choice=allowed)
    assert found.params.tools == (Tool("b"),)
    assert found.params.tool_choice == ToolChoice("required")
    assert found.echo is not None
    assert (len(found.echo["tools"]), found.echo["tool_choice"]) == (3, allowed)


def test_where_a_turn_belongs() -> None:
    plain = request()
    assert (plain.store, plain.conversation_id, plain.after_turn) == (True, "", "")
    assert request(store=False).store is False
    assert request(store=None).store is True
    assert request(conversation="c").conversation_id == "c"
    assert request(conversation={"id": "c"}, conversation_id="c").conversation_id == "c"
    assert request(previous_response_id="resp_12").after_turn == "turn_12"
    own = request(instructions="brief").messages[0]
    assert own == Message(role="system", content="brief", extra={THIS_TURN_ONLY: True})


USER = {"role": "user", "content": "hi"}
MISTAKES: list[tuple[str, dict[str, Any]]] = [
    ("input", {"input": None}),
    ("input", {"input": []}),
    ("input", {"input": 7}),
    ("input[0]", {"input": ["hi"]}),
    ("input[0].type", {"input": [{"type": "web_search_call"}]}),
    ("input[0]", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
    ("input[1].role", {"input": [USER, {"role": "tool", "content": "x"}]}),
    ("input[0].content", {"input": [{"role": "user"}]}),
    ("input[0].content[0].type", {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}),
    ("input[0].content[0].text", {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}),
    (
        "input[0].content[0].file_id",
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
    ),
    (
        "input[0].content[0].detail",
        {"input": [{"role": "user", "content": [{"type": "input_image", "detail": "fine"}]}]},
    ),
    (
        "input[0].content[0].file_data",
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "AAAA"}]}]},
    ),
    ("input[0].content[0].type", {"input": [{"role": "assistant", "content": [{"type": "input_image"}]}]}),
    ("input[0].content", {"input": [{"role": "assistant", "content": None}]}),
    ("input[0].call_id", {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}),
    ("input[0].arguments", {"input": [{"type": "function_call", "call_id": "1", "name": "f"}]}),
    ("input[0].output", {"input": [{"type": "function_call_output", "call_id": "1"}]}),
    ("input[0].summary[0].text", {"input": [{"type": "reasoning", "summary": [{}]}]}),
    ("instructions", {"instructions": ["brief"]}),
    ("model", {"model": "x" * 513}),
    ("stream", {"stream": "yes"}),
    ("store", {"store": 1}),
    ("conversation", {"conversation": 1}),
    ("conversation.id", {"conversation": {}}),
    ("conversation", {"conversation": "a", "conversation_id": "b"}),
    ("previous_response_id", {"previous_response_id": "chatcmpl-1"}),
    ("background", {"background": True, "store": False}),
    ("prompt", {"prompt": {"id": "pmpt_1"}}),
    ("context_management", {"context_management": [{"type": "compaction"}]}),
    ("moderation", {"moderation": {"model": "x"}}),
    ("truncation", {"truncation": "auto"}),
    ("truncation", {"truncation": True}),
    ("top_logprobs", {"top_logprobs": 2}),
    ("include[0]", {"include": ["message.output_text.logprobs"]}),
    ("include[0]", {"include": ["everything"]}),
    ("include", {"include": "everything"}),
    ("metadata", {"metadata": {str(number): "" for number in range(17)}}),
    ("metadata", {"metadata": {"x" * 65: ""}}),
    ("metadata.a", {"metadata": {"a": 1}}),
    ("metadata.a", {"metadata": {"a": "x" * 513}}),
    ("temperature", {"temperature": 3}),
    ("top_p", {"top_p": "high"}),
    ("max_output_tokens", {"max_output_tokens": 0}),
    ("max_tool_calls", {"max_tool_calls": "few"}),
    ("parallel_tool_calls", {"parallel_tool_calls": 1}),
    ("reasoning", {"reasoning": "low"}),
    ("reasoning.effort", {"reasoning": {"effort": 1}}),
    ("reasoning.mode", {"reasoning": {"mode": "pro"}}),
    ("text.verbosity", {"text": {"verbosity": 1}}),
    ("text.format", {"text": {"format": "json"}}),
    ("text.format.type", {"text": {"format": {"type": "xml"}}}),
    ("text.format.schema", {"text": {"format": {"type": "json_schema", "name": "a"}}}),
    ("text.format.strict", {"text": {"format": {"type": "json_schema", "schema": {}, "strict": 1}}}),
    ("tools", {"tools": {}}),
    ("tools[0].type", {"tools": [{"type": "web_search"}]}),
    ("tools[0].name", {"tools": [{"type": "function"}]}),
    ("tools[0].parameters", {"tools": [{"type": "function", "name": "f", "parameters": []}]}),
    ("tools[0].strict", {"tools": [{"type": "function", "name": "f", "strict": "yes"}]}),
    ("tool_choice", {"tool_choice": "any"}),
    ("tool_choice.type", {"tool_choice": {"type": "web_search_preview"}}),
    ("tool_choice.name", {"tool_choice": {"type": "function"}}),
    ("tool_choice.mode", {"tool_choice": {"type": "allowed_tools", "mode": "none"}}),
    ("tool_choice.tools", {"tool_choice": {"type": "allowed_tools", "mode": "auto"}}),
    ("tool_choice.tools[0].name", {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{}]}}),
]


@pytest.mark.parametrize(("param", "fields"), MISTAKES)
def test_every_mistake_names_its_field(param: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request(**fields)
    assert caught.value.param == param


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["user", "message"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "role",
                    "content",
                    "text",
                    "name",
                    "call_id",
                    "arguments",
                    "output",
                    "summary",
                    "effort",
                    "format",
                    "id",
                ]
            ),
            inner,
        )
    ),
)
FIELDS = (
    "input model stream tools tool_choice text reasoning include metadata conversation store truncation user"
)


@given(
    body=st.binary(max_size=200)
    | st.dictionaries(st.sampled_from(FIELDS.split()), VALUES).map(msgspec.json.encode)
)
def test_any_body_is_a_request_or_an_invalid_request(body: bytes) -> None:
    with suppress(InvalidRequest):
        found = decode_request(body)
        assert found.messages
        assert msgspec.json.encode(found.echo)

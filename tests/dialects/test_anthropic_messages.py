"""Anthropic's messages: what callers may send, what upstreams do send, and both directions together."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from modelway.dialects.anthropic_messages import (
    NAME,
    EventDecoder,
    EventEncoder,
    decode_completion,
    decode_error,
    decode_models,
    decode_request,
    encode_completion,
    encode_error,
    encode_models,
    encode_request,
    headers_for,
)
from modelway.dialects.envelope import Envelope
from modelway.dialects.replay import replayed
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    all_errors,
)
from modelway.types import (
    ChatRequest,
    Citation,
    Event,
    FilePart,
    Finish,
    FinishReason,
    ImagePart,
    Message,
    Model,
    Opaque,
    OtherPart,
    Params,
    ReasoningDelta,
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

ENVELOPE = Envelope(id="msg_1", created=1, model="m", provider="P", conversation_id="c")
USER = {"role": "user", "content": "hi"}
MODEL = "claude-opus-5-5"
LOOK = Tool("look", "looks", {"type": "object", "properties": {}})


def asking(*messages: Message, **fields: Any) -> ChatRequest:
    params = fields.pop("params", Params())
    return ChatRequest(messages=messages or (user("hi"),), model=MODEL, params=params, **fields)


def user(content: Any) -> Message:
    return Message(role="user", content=content)


def sent(request: ChatRequest) -> Any:
    return msgspec.json.decode(encode_request(request))


def body(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": MODEL, "max_tokens": 10, "messages": [USER], **fields})


# What goes to the upstream.


def test_a_plain_request_is_written_as_the_reference_has_it() -> None:
    assert sent(asking(Message(role="system", content="be brief"), user("hi"))) == {
        "model": MODEL,
        "max_tokens": 32_000,
        "system": "be brief",
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_what_the_system_says_stands_apart_wherever_it_was_said() -> None:
    request = asking(
        Message(role="system", content="one"),
        user("hi"),
        Message(role="developer", content=(TextPart("two"), TextPart("three"))),
    )
    assert [block["text"] for block in sent(request)["system"]] == ["one", "two", "three"]
    assert [message["role"] for message in sent(request)["messages"]] == ["user"]


def test_neighbours_of_one_role_become_one_turn() -> None:
    request = asking(user("a"), user((TextPart("b"), TextPart(" "))), Message(role="assistant", content="c"))
    assert sent(request)["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
    ]


def test_a_tool_loop_becomes_blocks_and_the_results_are_the_user_s() -> None:
    request = asking(
        user("look twice"),
        Message(
            role="assistant",
            content="I look",
            reasoning="unsigned",
            tool_calls=(ToolCall("a", "look", '{"at": 1}'), ToolCall("functions.look:1", "look", "")),
        ),
        Message(role="tool", content="a cat", tool_call_id="a"),
        Message(
            role="tool", content=(ImagePart("https://x/y.png"),), tool_call_id="functions.look:1", name="look"
        ),
        user("and now?"),
        params=Params(tools=(LOOK,)),
    )
    _, assistant, results = sent(request)["messages"]
    said, first, second = assistant["content"]
    assert said == {"type": "text", "text": "I look"}
    assert first == {"type": "tool_use", "id": "a", "name": "look", "input": {"at": 1}}
    assert second["input"] == {}
    assert [block["type"] for block in results["content"]] == ["tool_result", "tool_result", "text"]
    assert results["content"][0] == {"type": "tool_result", "tool_use_id": "a", "content": "a cat"}
    assert results["content"][1]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    ]
    # An id with letters that Anthropic refuses is another one, the same in both places.
    assert second["id"] == results["content"][1]["tool_use_id"]
    assert second["id"].replace("_", "").isalnum()


def test_images_and_documents_are_written_in_every_form() -> None:
    parts = (
        ImagePart("data:image/png;base64,AAAA", "high"),
        ImagePart("https://x/y.png"),
        FilePart("data:application/pdf;base64,AAAA", name="a.pdf"),
        FilePart("https://x/y.pdf"),
        FilePart("data:text/markdown,caf%C3%A9"),
        FilePart(file_id="file_1"),
        OtherPart(NAME, {"type": "search_result", "source": "s"}),
    )
    sources = [block["source"] for block in sent(asking(user(parts)))["messages"][0]["content"]]
    assert sources == [
        {"type": "base64", "media_type": "image/png", "data": "AAAA"},
        {"type": "url", "url": "https://x/y.png"},
        {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
        {"type": "url", "url": "https://x/y.pdf"},
        {"type": "text", "media_type": "text/plain", "data": "café"},
        {"type": "file", "file_id": "file_1"},
        "s",
    ]
    assert sent(asking(user(parts)))["messages"][0]["content"][2]["title"] == "a.pdf"


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("required"), None, {"type": "any"}),
        (
            ToolChoice("named", "look"),
            False,
            {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_the_choice_of_a_tool_is_translated(
    choice: ToolChoice | None, parallel: bool | None, written: Any
) -> None:
    params = Params(tools=(LOOK,), tool_choice=choice, parallel_tool_calls=parallel)
    assert sent(asking(params=params)).get("tool_choice") == written


def test_tools_and_limits_and_schemas_are_translated() -> None:
    params = Params(
        max_tokens=7,
        stop=("a", "b"),
        tools=(LOOK, Tool("add", strict=True)),
        response_format=ResponseFormat("json_schema", "shape", {"type": "object"}, strict=True),
    )
    fields = sent(asking(params=params, stream=True))
    assert (fields["max_tokens"], fields["stop_sequences"], fields["stream"]) == (7, ["a", "b"], True)
    assert fields["tools"] == [
        {"name": "look", "description": "looks", "input_schema": {"type": "object", "properties": {}}},
        {"name": "add", "input_schema": {"type": "object"}, "strict": True},
    ]
    assert fields["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "config"),
    [
        ("claude-opus-5-5", "high", {"type": "adaptive", "display": "summarized"}, {"effort": "high"}),
        ("claude-sonnet-4-6", "minimal", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        ("claude-haiku-5-5", "none", {"type": "disabled"}, None),
        ("claude-sonnet-5-5", "none", {"type": "between_tools"}, None),
        ("claude-haiku-4-5-20251001", "low", {"type": "enabled", "budget_tokens": 2048}, None),
        ("claude-opus-4-1", "max", {"type": "enabled", "budget_tokens": 24_000}, None),
        ("claude-sonnet-4-20250514", "high", {"type": "enabled", "budget_tokens": 16_384}, None),
    ],
)
def test_a_model_thinks_as_its_generation_is_told_to(
    model: str, effort: str, thinking: Any, config: Any
) -> None:
    fields = sent(replace(asking(params=Params(reasoning_effort=effort)), model=model))
    assert fields["thinking"] == thinking
    assert fields.get("output_config") == config


def test_temperature_goes_by_the_older_version_and_a_default_is_not_sent() -> None:
    warm = asking(params=Params(temperature=0.5, top_p=1))
    assert sent(warm)["temperature"] == 0.5
    assert "top_p" not in sent(warm)
    assert headers_for(warm)["anthropic-version"] == "2023-06-01"
    plain = asking(params=Params(temperature=1.0, top_p=1.0))
    assert not {"temperature", "top_p"} & set(sent(plain))
    assert headers_for(plain)["anthropic-version"] == "2026-10-21"
    chosen = headers_for(asking(dialect=NAME, extra={"top_k": 5}))
    assert chosen == {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"params": Params(temperature=1.5)}, "temperature"),
        ({"params": Params(reasoning_effort="extreme")}, "reasoning_effort"),
        ({"params": Params(tool_choice=ToolChoice("required"))}, "tool_choice"),
        ({"messages": (user((OtherPart("openai_chat", {"type": "input_audio"}),)),)}, "messages"),
        ({"messages": (user((ImagePart("data:image/tiff;base64,AA=="),)),)}, "messages"),
        ({"messages": (user((FilePart("data:application/zip;base64,AA=="),)),)}, "messages"),
        ({"messages": (Message(role="system", content=(ImagePart("https://x/"),)),)}, "messages"),
        ({"messages": (Message(role="assistant", content=(ImagePart("https://x/"),)),)}, "messages"),
        ({"messages": (Message(role="assistant", tool_calls=(ToolCall("1", "f", "[1"),)),)}, "messages"),
        ({"messages": (Message(role="user", content="x", name="Ada"),)}, "messages"),
    ],
)
def test_what_cannot_be_told_is_refused_by_its_name(changes: dict[str, Any], param: str) -> None:
    request = ChatRequest(**{"messages": (user("hi"),), "model": MODEL, **changes})
    with pytest.raises(InvalidRequest) as caught:
        encode_request(request)
    assert caught.value.param == param


def test_thinking_on_an_older_model_needs_room() -> None:
    request = asking(params=Params(reasoning_effort="low", max_tokens=1024))
    with pytest.raises(InvalidRequest) as caught:
        encode_request(replace(request, model="claude-sonnet-4-5"))
    assert caught.value.param == "max_tokens"
    assert "thinking" in sent(request)


def test_what_makes_no_difference_is_no_reason_to_refuse() -> None:
    params = Params(n=1, presence_penalty=0, frequency_penalty=0, response_format=ResponseFormat("text"))
    extra = {"user": "u", "store": False, "logprobs": False, "stream_options": {"include_usage": True}}
    assert set(sent(asking(params=params, dialect="openai_chat", extra=extra))) == {
        "model",
        "max_tokens",
        "messages",
    }


# What callers of this dialect send.


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f"}]}]},
            "messages[0].content[0].input",
        ),
        ({"system": [{"type": "image", "source": {"type": "url", "url": "u"}}]}, "system"),
        ({"model": 3}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": 2}, "temperature"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"thinking": "hard"}, "thinking"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"tool_choice": {"type": ["auto"]}}, "tool_choice.type"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(body(**fields))
    assert caught.value.param == param


def test_a_request_of_this_dialect_reaches_an_upstream_of_it_unchanged() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    fields = {
        "model": MODEL,
        "max_tokens": 10,
        "system": [{"type": "text", "text": "be brief", **cached}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "look", **cached}]},
            {"role": "system", "content": "from now on in French"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "I look"},
                    {"type": "redacted_thinking", "data": "d"},
                    {"type": "tool_use", "id": "1", "name": "look", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "1", "content": "no", "is_error": True},
                    {"type": "document", "source": {"type": "content", "content": "x"}, "title": "t"},
                ],
            },
        ],
        "stream": True,
        "stop_sequences": ["x"],
        "thinking": {"type": "adaptive", "display": "omitted"},
        "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "tools": [
            {"name": "look", "input_schema": {"type": "object"}, **cached},
            {"type": "web_search_20260209", "name": "web_search"},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
    }
    request = decode_request(msgspec.json.encode(fields))
    assert sent(request) == fields
    assert request.params.reasoning_effort == "max"
    assert request.params.tools == (Tool("look", parameters={"type": "object"}),)


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"type": "disabled"}, "none"),
        ({"type": "between_tools"}, "none"),
        ({"type": "adaptive"}, None),
        ({"type": "enabled", "budget_tokens": 1024}, "low"),
        ({"type": "enabled", "budget_tokens": 5000}, "medium"),
        ({"type": "enabled", "budget_tokens": 90_000}, "high"),
        ({"type": "enabled"}, None),
    ],
)
def test_how_to_think_is_told_to_other_upstreams_as_an_effort(thinking: Any, effort: str | None) -> None:
    assert decode_request(body(thinking=thinking)).params.reasoning_effort == effort


def test_thinking_of_another_upstream_is_not_sent_to_anthropic() -> None:
    content = [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "a"}]
    request = decode_request(body(messages=[USER, {"role": "assistant", "content": content}, USER]))
    assert request.messages[1].reasoning == "hm"
    assert sent(request)["messages"][1] == {"role": "assistant", "content": "a"}


REQUESTS = [
    asking(),
    asking(
        Message(role="system", content="be brief"),
        user((TextPart("what is this?"), ImagePart("data:image/png;base64,AAAA"))),
        user((FilePart("data:application/pdf;base64,AAAA", name="a", media_type="application/pdf"),)),
        Message(role="assistant", content="I look", tool_calls=(ToolCall("1", "look", '{"at":1}'),)),
        Message(role="tool", content="a cat", tool_call_id="1"),
        user("really?"),
        stream=True,
        params=Params(
            temperature=0.5,
            top_p=0.9,
            max_tokens=10,
            stop=("a", "b"),
            tools=(Tool("look", "looks", {"type": "object"}, strict=True),),
            tool_choice=ToolChoice("named", "look"),
            parallel_tool_calls=False,
            response_format=ResponseFormat("json_schema", "answer", {"type": "object"}),
        ),
    ),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_survives_the_round_trip(request_: ChatRequest) -> None:
    found = decode_request(encode_request(request_))
    assert found.params == replace(request_.params, max_tokens=request_.params.max_tokens or 32_000)
    assert encode_request(replace(found, extra={}, dialect="")) == encode_request(request_)
    assert [message.text for message in found.messages if message.role == "tool"] == [
        message.text for message in request_.messages if message.role == "tool"
    ]


# Streamed answers.


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    pieces = (event("content_block_delta", index=index, delta=delta) for delta in deltas)
    start = event("content_block_start", index=index, content_block=content)
    return start + b"".join(pieces) + event("content_block_stop", index=index)


def text_block(index: int, *texts: str) -> bytes:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": t} for t in texts))


def end(reason: str, **delta: Any) -> bytes:
    usage = {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}}
    stop = event("message_delta", delta={"stop_reason": reason, "stop_sequence": None, **delta}, usage=usage)
    return stop + event("message_stop")


START = event(
    "message_start",
    message={
        "id": "msg_up",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude-x",
        "stop_reason": None,
        "usage": {
            "input_tokens": 5,
            "cache_read_input_tokens": 20,
            "cache_creation_input_tokens": 3,
            "output_tokens": 1,
        },
    },
)
PING = event("ping")
THINKING = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "let me "},
    {"type": "thinking_delta", "thinking": "see"},
    {"type": "signature_delta", "signature": "sig"},
)
REDACTED = block(1, {"type": "redacted_thinking", "data": "opaque"})
CALL = block(
    3,
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
    {"type": "input_json_delta", "partial_json": ""},
    {"type": "input_json_delta", "partial_json": '{"at"'},
    {"type": "input_json_delta", "partial_json": ": 1}"},
)
EMPTY_CALL = block(4, {"type": "tool_use", "id": "toolu_2", "name": "wait", "input": {}})
LOOP = START + PING + THINKING + REDACTED + text_block(2, "I ", "look") + CALL + EMPTY_CALL + end("tool_use")


def read(stream: bytes, **options: Any) -> list[Event]:
    decoder = EventDecoder(**options)
    return [*decoder.feed(stream), *decoder.close()]


def relayed(events: list[Event]) -> bytes:
    encoder = EventEncoder(ENVELOPE)
    return b"".join(map(encoder.encode, events)) + encoder.end()


def test_every_kind_of_block_becomes_events() -> None:
    events = read(LOOP)
    completion = collect(events)
    assert completion.text == "I look"
    assert completion.message.reasoning == "let me see"
    assert completion.message.tool_calls == (
        ToolCall("toolu_1", "look", '{"at": 1}'),
        ToolCall("toolu_2", "wait", "{}"),
    )
    assert completion.finish_reason == "tool_calls"
    assert completion.model == "claude-x"
    assert completion.usage == Usage(
        input_tokens=28, output_tokens=9, cached_tokens=20, reasoning_tokens=4, cache_write_tokens=3
    )


def test_a_read_of_many_pieces_is_one_event() -> None:
    events = read(START + text_block(0, *"abcdefgh") + end("end_turn"))
    assert [found.text for found in events if isinstance(found, TextDelta)] == ["abcdefgh"]


def test_every_single_cut_gives_the_same_answer() -> None:
    wanted = collect(read(LOOP))
    for stream in (LOOP, LOOP.replace(b"\n", b"\r\n")):
        for cut in range(len(stream) + 1):
            decoder = EventDecoder()
            found = [*decoder.feed(stream[:cut]), *decoder.feed(stream[cut:]), *decoder.close()]
            assert collect(found) == wanted
            assert decoder.finished


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_every_stop_reason_has_a_meaning(word: str, reason: FinishReason) -> None:
    assert collect(read(START + text_block(0, "a") + end(word))).finish_reason == reason


def test_the_explanation_of_a_refusal_is_told() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "not this"}
    (choice,) = collect(read(START + end("refusal", stop_details=details))).choices
    assert (choice.refusal, choice.finish_reason) == ("not this", "content_filter")


def test_sources_in_the_web_become_citations_of_the_text_that_they_support() -> None:
    cited = {"type": "web_search_result_location", "url": "https://x/", "title": "X", "cited_text": "c"}
    passage = {"type": "page_location", "document_index": 0, "cited_text": "c"}
    pieces: list[dict[str, Any]] = [{"type": "text_delta", "text": "so it is"}]
    pieces += [{"type": "citations_delta", "citation": citation} for citation in (passage, cited)]
    stream = (
        START + text_block(0, "Look: ") + block(1, {"type": "text", "text": ""}, *pieces) + end("end_turn")
    )
    (citation,) = collect(read(stream)).message.annotations
    assert citation == Citation(url="https://x/", title="X", start_index=6, end_index=14)


def test_what_the_dialect_does_not_know_yet_is_passed_over() -> None:
    new = event("new_event", index=7) + block(9, {"type": "new_block"}, {"type": "new_delta", "shape": 1})
    assert collect(read(START + new + text_block(0, "a") + end("end_turn"))).text == "a"


def test_a_stream_that_just_ends_is_an_error_and_never_a_stop() -> None:
    for stream in (b"", START, START + text_block(0, "half an ans")):
        with pytest.raises(UpstreamProtocolError) as caught:
            read(stream)
        assert caught.value.code == "upstream_truncated"


def test_a_stream_with_a_stop_reason_needs_no_end_marker() -> None:
    stream = (START + text_block(0, "a") + end("end_turn")).removesuffix(event("message_stop"))
    assert collect(read(stream)).finish_reason == "stop"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, UpstreamOverloaded),
        ({"type": "rate_limit_error", "message": "slow down"}, UpstreamRateLimited),
        ({"type": "api_error", "message": "Internal"}, UpstreamFailed),
        ({"type": "authentication_error", "message": "no"}, UpstreamRefusedCredential),
        ({"type": "not_found_error", "message": "model: x"}, ModelNotFound),
        ({"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}, ContextTooLong),
        ({"type": "invalid_request_error", "message": "bad"}, InvalidRequest),
        ({"type": "brand_new_error"}, UpstreamFailed),
        (None, UpstreamFailed),
    ],
)
def test_an_error_in_the_stream_is_raised_after_what_came_before(
    error: Any, kind: type[GatewayError]
) -> None:
    stream = START + text_block(0, "so far") + event("error", error=error)
    for raw in (False, True):
        decoder = EventDecoder(raw=raw)
        found: list[Event] = []
        with pytest.raises(kind):
            found.extend(decoder.feed(stream))
        assert collect(found).text == "so far"


@pytest.mark.parametrize(
    "broken",
    [
        b"data: {broken\n\n",
        b"data: 7\n\n",
        b"event: x\ndata: <html>\n\n",
        event("content_block_delta", index=3, delta={"type": "text_delta", "text": "lost"}),
        event("content_block_delta", index="x", delta={}),
        event("content_block_start", index=4, content_block={"type": "tool_use", "id": [], "name": "f"}),
        event("content_block_start", index=4, content_block={"type": "tool_use", "id": "1"}),
    ],
)
def test_a_malformed_event_is_a_protocol_error(broken: bytes) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        read(START + text_block(0, "a") + broken)
    assert caught.value.code == "upstream_malformed"


def test_an_endless_event_and_an_endless_answer_are_too_large() -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        list(EventDecoder(max_event_bytes=1000).feed(b"data: " + b"x" * 2000))
    assert caught.value.code == "upstream_too_large"
    with pytest.raises(UpstreamProtocolError, match="blocks"):
        read(START + text_block(0) * 10_001)


def test_invalid_utf8_becomes_a_replacement_character() -> None:
    assert (
        collect(read((START + text_block(0, "aXb") + end("end_turn")).replace(b"X", b"\xff"))).text
        == "a\ufffdb"
    )


# Bytes of an upstream for callers of its dialect.


def test_the_upstream_s_bytes_reach_a_caller_of_its_dialect() -> None:
    for size in (1, 7, 100, len(LOOP)):
        decoder = EventDecoder(raw=True)
        pieces = [LOOP[at : at + size] for at in range(0, len(LOOP), size)]
        events = [*(found for piece in pieces for found in decoder.feed(piece)), *decoder.close()]
        stream = relayed(events)
        first, rest = stream.split(b"\n\n", 1)
        assert rest == LOOP.split(b"\n\n", 1)[1]
        message = msgspec.json.decode(first.split(b"data: ")[1])["message"]
        assert (message["id"], message["provider"], message["conversation_id"]) == ("msg_up", "P", "c")


def test_the_end_is_held_back_for_the_finish() -> None:
    decoder = EventDecoder(raw=True)
    assert decoder.feed(START + PING) == [Opaque(START + PING)]
    (piece,) = decoder.feed(text_block(0, "a"))
    assert isinstance(piece, TextDelta)
    assert piece.raw == text_block(0, "a")
    stop = end("end_turn").removesuffix(event("message_stop"))
    assert decoder.feed(stop) == []
    (finish,) = decoder.feed(event("message_stop"))
    assert isinstance(finish, Finish)
    assert finish.raw == stop


def test_an_upstream_body_is_relayed_with_our_fields_added() -> None:
    upstream = b'{"type":"message","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn","new":1}\n'
    completion = collect(decode_completion(upstream, raw=True))
    found = msgspec.json.decode(encode_completion(completion, ENVELOPE))
    assert (found["new"], found["provider"], found["conversation_id"]) == (1, "P", "c")


# Tool loops.


def state_of(events: list[Event]) -> dict[str, Any] | None:
    states = [found.value for found in events if isinstance(found, UpstreamState)]
    assert len(states) <= 1
    return states[0] if states else None


def turned(*answers: list[Event], then: str = "tool") -> tuple[Message, ...]:
    messages = [user("look")]
    for answer in answers:
        message = collect(answer).message
        messages.append(message)
        messages += [Message(role="tool", content="ok", tool_call_id=call.id) for call in message.tool_calls]
    return (*messages, user("thanks")) if then == "user" else tuple(messages)


def test_thinking_comes_back_unchanged_in_a_tool_loop() -> None:
    first = read(LOOP)
    request = asking(*turned(first), upstream_state=state_of(first))
    assistant = sent(request)["messages"][1]
    assert assistant["content"] == [
        {"type": "thinking", "thinking": "let me see", "signature": "sig"},
        {"type": "redacted_thinking", "data": "opaque"},
        {"type": "text", "text": "I look"},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 1}},
        {"type": "tool_use", "id": "toolu_2", "name": "wait", "input": {}},
    ]


def test_all_turns_of_a_loop_come_back() -> None:
    first = read(LOOP)
    request = asking(*turned(first), upstream_state=state_of(first))
    second = read(
        (START + text_block(0, "more") + CALL + end("tool_use")).replace(b"toolu_1", b"toolu_9"),
        turns=replayed(request),
    )
    messages = sent(asking(*turned(first, second), upstream_state=state_of(second)))["messages"]
    assert [turn["role"] for turn in messages] == ["user", "assistant"] * 2 + ["user"]
    assert messages[1]["content"][0]["signature"] == "sig"
    assert [found["type"] for found in messages[3]["content"]] == ["text", "tool_use"]


def test_when_the_loop_is_over_nothing_is_kept_or_sent_back() -> None:
    first = read(LOOP)
    request = asking(*turned(first), upstream_state=state_of(first))
    assert state_of(read(START + text_block(0, "done") + end("end_turn"), turns=replayed(request))) is None
    later = asking(
        *turned(first), Message(role="assistant", content="done"), user("x"), upstream_state=state_of(first)
    )
    assert replayed(later) == []
    assert "signature" not in encode_request(later).decode()


def test_a_loop_without_thinking_needs_no_state() -> None:
    assert state_of(read(START + CALL + end("tool_use"))) is None


def test_a_remark_among_the_results_does_not_end_the_loop() -> None:
    first = read(LOOP)
    request = asking(*turned(first, then="user"), upstream_state=state_of(first))
    assert sent(request)["messages"][1]["content"][0]["signature"] == "sig"


def test_a_whole_answer_keeps_its_thinking_too() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
    ]
    answer = msgspec.json.encode(
        {"content": content, "stop_reason": "tool_use", "usage": {"input_tokens": 1}}
    )
    events = decode_completion(answer)
    assert state_of(events) == {"turns": [content]}
    assert collect(events).message.tool_calls == (ToolCall("1", "f", '{"a":1}'),)


# Both halves together.


def test_a_streamed_answer_has_the_documented_sequence() -> None:
    events: list[Event] = [
        ReasoningDelta(text="hm"),
        TextDelta(text="a"),
        TextDelta(text="b"),
        Citation(url="https://x/", title="X"),
        ToolCallDelta(index=0, id="1", name="f", arguments='{"a":1}'),
        ToolCallDelta(index=1, id="2", name="g", arguments="{}"),
        TextDelta(text="another choice", choice=1),
        UpstreamState({"a": 1}),
        Finish(reasons=("tool_calls",), usage=Usage(3, 4)),
    ]
    stream = relayed(events)
    kinds = [part.split(b"\n")[0].removeprefix(b"event: ").decode() for part in stream.split(b"\n\n") if part]
    a_block = ["content_block_start", "content_block_delta", "content_block_stop"]
    with_three = ["content_block_start", *["content_block_delta"] * 3, "content_block_stop"]
    assert kinds == [
        "message_start",
        *a_block,
        *with_three,
        *a_block,
        *a_block,
        "message_delta",
        "message_stop",
    ]
    assert collect(read(stream)).message.annotations[0].url == "https://x/"
    start = msgspec.json.decode(stream.split(b"\n\n")[0].split(b"data: ")[1])["message"]
    assert (start["id"], start["provider"], start["conversation_id"]) == ("msg_1", "P", "c")


def test_pieces_of_two_calls_may_alternate() -> None:
    events: list[Event] = [
        ToolCallDelta(index=0, id="1", name="f", arguments='{"a"'),
        ToolCallDelta(index=1, id="2", name="g", arguments='{"b"'),
        Finish(reasons=("tool_calls",)),
    ]
    stream = relayed(events)
    assert stream.count(b"content_block_start") == 4
    found = collect(read(stream)).message.tool_calls
    assert [call.arguments for call in found] == ['{"a"', '{"b"']


def test_arguments_that_are_no_object_cannot_be_written_whole() -> None:
    completion = collect([ToolCallDelta(id="1", name="f", arguments="[1"), Finish()])
    with pytest.raises(UpstreamProtocolError):
        encode_completion(completion, ENVELOPE)


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"{}", b'{"content":[],"stop_reason":null}'])
def test_a_body_that_is_no_message_is_a_protocol_error(answer: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        decode_completion(answer)


def test_an_error_in_a_good_reply_is_an_error() -> None:
    with pytest.raises(UpstreamOverloaded):
        decode_completion(b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}')


# Errors and models.


def test_every_error_is_written_with_a_type_of_anthropic_s_and_our_code() -> None:
    types = set()
    for kind in all_errors():
        found = msgspec.json.decode(encode_error(kind("what happened", hint="what to do", param="field")))
        assert found["type"] == "error"
        assert found["error"]["message"] == "what happened; what to do"
        assert (found["error"]["code"], found["error"]["param"]) == (kind.code, "field")
        types.add(found["error"]["type"])
    assert types == {
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
        "rate_limit_error",
        "api_error",
        "overloaded_error",
        "timeout_error",
    }


def test_an_error_in_the_middle_of_a_stream_is_an_event() -> None:
    encoder = EventEncoder(ENVELOPE)
    stream = encoder.encode(TextDelta(text="so far")) + encoder.error(UpstreamError("it broke"))
    with pytest.raises(UpstreamFailed, match="it broke"):
        read(stream)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"type":"error","error":{"type":"t","message":"m"},"request_id":"r"}', "m", "t"),
        (
            b'{"error":{"type":"invalid_request_error","message":"prompt is too long: 9 > 8"}}',
            "prompt is too long: 9 > 8",
            "context_length_exceeded",
        ),
        (b'{"error":"m"}', "m", ""),
        (b"<html><body>Bad gateway", "an HTML page", ""),
        (b"", "status 500 without a reason", ""),
        (b"plain words", "plain words", ""),
        (b"[1]", "[1]", ""),
    ],
)
def test_an_error_reply_is_read_as_well_as_it_can_be(body: bytes, message: str, code: str) -> None:
    assert decode_error(500, body) == (message, code)


def test_models_survive_the_round_trip() -> None:
    models = [Model("a", created=1_700_000_000, owned_by="anthropic", context_length=9), Model("b")]
    found = decode_models(encode_models(models))
    assert found == [models[0], replace(models[1], owned_by="anthropic")]
    assert decode_models(b'{"data":[{"id":"a","created_at":"unknown"}]}') == [
        Model("a", owned_by="anthropic")
    ]
    with pytest.raises(UpstreamProtocolError):
        decode_models(b"[]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "system", "tools", "thinking", "type", "source", "input"]
            ),
            inner,
        )
    ),
)
blocks = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "document", "tool_result", "tool_use", "thinking", "new"])},
    optional=dict.fromkeys(("text", "source", "content", "tool_use_id", "id", "name", "input"), JSON),
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.lists(blocks, max_size=3)}
)


@given(body=st.binary(max_size=200) | JSON.map(msgspec.json.encode) | turns.map(lambda t: body(messages=[t])))
def test_any_body_is_a_request_or_an_invalid_request(body: bytes) -> None:
    try:
        written = sent(decode_request(body))
    except InvalidRequest:
        return
    assert isinstance(written["messages"], list)


WORDS = ("type", "index", "delta", "content_block", "text", "thinking", "signature", "partial_json", "input")
MORE = (
    "message",
    "usage",
    "model",
    "citations",
    "citation",
    "url",
    "stop_reason",
    "stop_details",
    "error",
    "id",
)
KINDS = (
    "text",
    "thinking",
    "tool_use",
    "text_delta",
    "thinking_delta",
    "signature_delta",
    "input_json_delta",
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(KINDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS + MORE), inner, max_size=6)
    ),
)
EVENT_KINDS = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
)
server_events = st.builds(
    lambda kind, fields: {**fields, "type": kind},
    st.sampled_from((*EVENT_KINDS, "error", "message_stop")),
    st.dictionaries(st.sampled_from(WORDS + MORE), ANYTHING, max_size=5)
    | st.fixed_dictionaries(
        {
            "index": st.integers(0, 1),
            "content_block": st.fixed_dictionaries(
                {"type": st.sampled_from(KINDS)}, optional=dict.fromkeys(WORDS[1:] + MORE, ANYTHING)
            ),
            "delta": st.dictionaries(st.sampled_from(WORDS + MORE), st.sampled_from(KINDS), max_size=3),
        }
    ),
)


@given(st.lists(server_events, max_size=8))
def test_whatever_an_upstream_streams_is_an_answer_or_an_error_of_ours(events: list[dict[str, Any]]) -> None:
    stream = b"".join(b"data: " + msgspec.json.encode(one) + b"\n\n" for one in events) + end("tool_use")
    try:
        found = read(stream)
    except GatewayError:
        return
    assert isinstance(found[-1], Finish)


@given(st.lists(st.dictionaries(st.sampled_from(WORDS + MORE), ANYTHING, max_size=5), max_size=4))
def test_whatever_an_upstream_answers_is_an_answer_or_an_error_of_ours(content: list[dict[str, Any]]) -> None:
    try:
        found = decode_completion(msgspec.json.encode({"content": content, "stop_reason": "tool_use"}))
    except GatewayError:
        return
    assert isinstance(found[-1], Finish)

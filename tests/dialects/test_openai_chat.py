"""OpenAI's chat completions: what callers may send, and what upstreams do send."""

from typing import Any

import msgspec
import pytest

from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_chat import (
    NAME,
    EventDecoder,
    EventEncoder,
    decode_completion,
    decode_error,
    decode_models,
    decode_request,
    encode_completion,
    encode_request,
)
from modelway.dialects.openai_chat.wire import write_usage
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    UpstreamFailed,
    UpstreamProtocolError,
    UpstreamRateLimited,
)
from modelway.types import (
    Citation,
    Event,
    FilePart,
    Finish,
    Opaque,
    OtherPart,
    TextDelta,
    Tool,
    ToolCallDelta,
    ToolChoice,
    Usage,
    collect,
)

USER = {"role": "user", "content": "hi"}
ENVELOPE = Envelope(id="chatcmpl-1", created=1, model="m", provider="P", conversation_id="c")


def request_body(**fields: Any) -> bytes:
    return msgspec.json.encode({"messages": [USER], **fields})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [USER, {"role": "robot", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": 1}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"model": 3}, "model"),
        ({"provider": ["Local"]}, "provider"),
        ({"conversation_id": 5}, "conversation_id"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"n": 10**6}, "n"),
        ({"stop": 4}, "stop"),
        ({"stop": [4]}, "stop[0]"),
        ({"seed": "x"}, "seed"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(request_body(**fields))
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message or "`messages` is" in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"messages": NaN}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=["empty", "open", "array", "null", "nan", "surrogate", "utf8", "brackets", "braces"],
)
def test_what_is_not_a_json_object_is_invalid_json(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(body)
    assert caught.value.code == "invalid_json"
    assert len(caught.value.explanation) < 300


def test_a_hundred_thousand_messages_are_too_many() -> None:
    with pytest.raises(InvalidRequest, match="at most"):
        decode_request(request_body(messages=[USER] * 100_000))


def test_unknown_fields_travel_on_untouched() -> None:
    fields = {
        "logprobs": True,
        "metadata": {"a": [1, None]},
        "stream_options": {"include_usage": False, "include_obfuscation": False},
        "tools": [{"type": "custom", "custom": {"name": "x"}}],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {}},
    }
    message = {**USER, "cache_control": {"type": "ephemeral"}}
    parts = [
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
    ]
    messages = [message, {"role": "user", "content": parts}]
    request = decode_request(request_body(messages=messages, stream=True, **fields))
    assert isinstance(request.messages[1].content[0], OtherPart)
    sent = msgspec.json.decode(encode_request(request))
    assert sent["messages"] == messages
    for name in ("logprobs", "metadata", "tools", "tool_choice"):
        assert sent[name] == fields[name]
    assert sent["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert "provider" not in sent
    assert "conversation_id" not in sent


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ({"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}, FilePart),
        ({"file_data": "https://example.org/a.pdf", "format": "application/pdf"}, FilePart),
        ({"file_id": "file-1"}, FilePart),
        ({"file_data": "AA==", "filename": "a.pdf"}, OtherPart),
        ({"file_data": "data:,a", "file_id": "file-1"}, OtherPart),
        ({"filename": "a.pdf"}, OtherPart),
        ({"file_id": 7}, OtherPart),
        ("a.pdf", OtherPart),
    ],
)
def test_a_file_travels_on_untouched_whatever_its_form(file: object, kind: type[object]) -> None:
    part = {"type": "file", "file": file, "cache_control": {"type": "ephemeral"}}
    request = decode_request(request_body(messages=[{"role": "user", "content": [part]}]))
    assert isinstance(request.messages[0].content[0], kind)
    assert msgspec.json.decode(encode_request(request))["messages"][0]["content"] == [part]


def test_tokens_written_to_a_cache_are_told() -> None:
    details = {"cached_tokens": 3, "cache_write_tokens": 2}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": details}
    read_usage = collect(read(chunk({"content": "a"}, "stop", usage=usage) + DONE)).usage
    assert read_usage == Usage(input_tokens=9, output_tokens=1, cached_tokens=3, cache_write_tokens=2)
    assert write_usage(read_usage)["prompt_tokens_details"] == details


def test_the_limit_goes_into_the_field_that_the_upstream_wants() -> None:
    request = decode_request(request_body(max_completion_tokens=7))
    assert request.params.max_tokens == 7
    sent = msgspec.json.decode(encode_request(request, max_tokens_field="max_completion_tokens"))
    assert sent["max_completion_tokens"] == 7
    assert "max_tokens" not in sent


def test_a_field_that_an_upstream_refuses_is_dropped() -> None:
    sent = encode_request(decode_request(request_body(seed=1, foo=2)), drop=("seed", "foo"))
    assert msgspec.json.decode(sent).keys() == {"model", "messages", "stream"}


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return b"data: " + msgspec.json.encode({"id": "up-1", "choices": choices, **more}) + b"\n\n"


USAGE = b'data: {"id":"up-1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"


def read(stream: bytes, **options: Any) -> list[Event]:
    decoder = EventDecoder(**options)
    return [*decoder.feed(stream), *decoder.close()]


def relayed(events: list[Event], envelope: Envelope = ENVELOPE) -> list[Any]:
    encoder = EventEncoder(envelope)
    stream = b"".join(map(encoder.encode, events))
    return [msgspec.json.decode(part[6:]) for part in stream.split(b"\n\n") if part]


def test_our_fields_come_with_the_first_chunk_only() -> None:
    events = read(chunk({"content": "a"}) + chunk({"content": "b"}, "stop", logprobs=1) + DONE, raw=True)
    first, second = relayed(events)
    assert (first["provider"], first["conversation_id"], first["id"]) == ("P", "c", "up-1")
    assert second["logprobs"] == 1
    assert "provider" not in second


def test_an_upstream_that_uses_our_field_names_does_not_confuse_the_reader() -> None:
    stream = chunk({"content": "a"}, "stop", provider="Azure") + DONE
    encoder = EventEncoder(ENVELOPE)
    sent = b"".join(map(encoder.encode, read(stream, raw=True)))
    assert sent.count(b'"provider"') == 1
    assert b'"provider":"P"' in sent


def test_a_chunk_without_choices_reaches_only_the_caller_who_asked() -> None:
    filtered = b'data: {"choices":[],"prompt_filter_results":[]}\n\n'
    stream = filtered + chunk({"content": "a"}) + chunk({}, "stop") + USAGE + DONE
    assert all(part["choices"] for part in relayed(read(stream, raw=True)))
    asked = relayed(read(stream, raw=True, include_usage=True))
    assert asked[-1]["usage"]["completion_tokens"] == 4
    assert collect(read(stream)).usage == Usage(3, 4)


def test_the_end_is_held_back_for_the_finish() -> None:
    decoder = EventDecoder(raw=True)
    (first,) = decoder.feed(chunk({"content": "a"}))
    assert isinstance(first, TextDelta)
    assert first.raw == chunk({"content": "a"})
    (last,) = decoder.feed(chunk({"content": "b"}, "stop"))
    assert isinstance(last, TextDelta)
    assert last.raw == b""
    (finish,) = decoder.feed(DONE)
    assert isinstance(finish, Finish)
    assert finish.raw == chunk({"content": "b"}, "stop")


def test_a_read_of_many_chunks_is_one_event() -> None:
    events = list(EventDecoder(raw=True).feed(b"".join(chunk({"content": str(i)}) for i in range(9))))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["012345678"]


def test_a_role_alone_is_opaque() -> None:
    assert list(EventDecoder(raw=True).feed(chunk({"role": "assistant"}))) == [
        Opaque(chunk({"role": "assistant"}))
    ]
    assert list(EventDecoder().feed(chunk({"role": "assistant"}))) == []


def test_a_stream_without_done_ends_with_its_reason() -> None:
    assert collect(read(chunk({"content": "a"}) + chunk({}, "length"))).finish_reason == "length"


def test_invalid_utf8_becomes_a_replacement_character() -> None:
    broken = chunk({"content": "aXb"}).replace(b"X", b"\xff")
    events = read(broken + chunk({}, "stop") + DONE, raw=True)
    assert collect(events).text == "a\ufffdb"
    assert relayed(events)[0]["choices"][0]["delta"]["content"] == "a\ufffdb"


def test_invalid_utf8_in_a_field_that_nobody_reads_is_not_passed_on() -> None:
    broken = chunk({"content": "a"}).replace(b"{", b'{"note":"\xff",', 1)
    assert relayed(list(EventDecoder(raw=True).feed(broken)))[0]["note"] == "\ufffd"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "m", "code": 429}, UpstreamRateLimited),
        ({"message": "m", "type": "exceed_context_size_error"}, ContextTooLong),
        ({"message": "m"}, UpstreamFailed),
        ("text", UpstreamFailed),
    ],
)
def test_an_error_object_in_a_stream_is_raised(error: Any, kind: type[GatewayError]) -> None:
    with pytest.raises(kind):
        read(b"data: " + msgspec.json.encode({"error": error}) + b"\n\n")


@pytest.mark.parametrize("line", [b"data: {broken\n\n", b"data: 7\n\n", b"<html>\n\ndata: <b>\n\n"])
def test_a_malformed_event_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        read(chunk({"content": "a"}) + line)
    assert caught.value.code == "upstream_malformed"


def test_an_endless_event_is_too_large() -> None:
    for start in (b"data: ", b"data: \r"):
        decoder = EventDecoder(max_event_bytes=1000)
        with pytest.raises(UpstreamProtocolError) as caught:
            list(decoder.feed(start + b"x" * 2000))
        assert caught.value.code == "upstream_too_large"


def test_the_finish_of_one_choice_does_not_hold_back_the_others() -> None:
    def of(index: int, text: str, reason: str | None = None) -> bytes:
        choices = [{"index": index, "delta": {"content": text}, "finish_reason": reason}]
        return b"data: " + msgspec.json.encode({"choices": choices}) + b"\n\n"

    decoder = EventDecoder(raw=True, choices=2)
    list(decoder.feed(of(0, "a", "stop")))
    (event,) = decoder.feed(of(1, "b"))
    assert isinstance(event, TextDelta)
    assert event.raw == of(1, "b")
    events = [*decoder.feed(of(1, "c", "length") + DONE)]
    assert isinstance(events[-1], Finish)
    assert events[-1].reasons == ("stop", "length")


def test_content_in_parts_is_read_as_text() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "b"}]
    assert collect(read(chunk({"content": parts}, "stop") + DONE)).text == "b"


def test_tool_calls_stream_in_pieces() -> None:
    def call(**fields: Any) -> bytes:
        return chunk({"tool_calls": [{"index": 0, **fields}]})

    stream = (
        call(id="1", type="function", function={"name": "f", "arguments": ""})
        + call(function={"arguments": '{"a"'})
        + call(function={"arguments": ":1}"})
        + chunk({}, "tool_calls")
        + DONE
    )
    events = read(stream)
    assert sum(isinstance(event, ToolCallDelta) for event in events) == 3
    (found,) = collect(events).message.tool_calls
    assert (found.id, found.name, found.arguments) == ("1", "f", '{"a":1}')


def test_an_upstream_body_is_relayed_with_our_fields_added() -> None:
    body = b'{"id":"up","choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"new":{"a":1}}\n'
    completion = collect(decode_completion(body, raw=True))
    sent = msgspec.json.decode(encode_completion(completion, ENVELOPE))
    assert sent["new"] == {"a": 1}
    assert (sent["provider"], sent["conversation_id"]) == ("P", "c")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"choices":[]}', b"[" * 100_000])
def test_a_body_that_is_no_completion_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        decode_completion(body)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error":{"message":"m","code":"c","type":"t"}}', "m", "c"),
        (b'{"error":"m"}', "m", ""),
        (b'{"detail":"m"}', "m", ""),
        (b'[{"error":{"message":"m","code":429}}]', "m", "429"),
        (b"<html><body>Bad gateway", "an HTML page", ""),
        (b"", "status 500 without a reason", ""),
        (b"plain words", "plain words", ""),
    ],
)
def test_an_error_reply_is_read_as_well_as_it_can_be(body: bytes, message: str, code: str) -> None:
    assert decode_error(500, body) == (message, code)


def test_models_are_read_in_both_shapes() -> None:
    listed = b'[{"id":"a","context_length":5}]'
    for body in (listed, b'{"object":"list","data":' + listed + b"}"):
        (model,) = decode_models(body)
        assert (model.id, model.context_length) == ("a", 5)


def test_the_dialect_is_named() -> None:
    assert decode_request(request_body()).dialect == NAME


ANNOTATIONS = [
    {"type": "url_citation", "url_citation": {"url": "https://a", "title": None, "start_index": 1}},
    {"type": "url_citation", "url_citation": {"title": "no address"}},
    {"type": "file_citation", "file_citation": {"file_id": "1"}},
    "x",
]


@pytest.mark.parametrize("annotations", [ANNOTATIONS, None, {}, "x"])
def test_annotations_that_are_no_citations_are_passed_over(annotations: Any) -> None:
    wanted = (Citation(url="https://a", start_index=1),) if annotations == ANNOTATIONS else ()
    said = {"content": "hi", "annotations": annotations}
    whole = msgspec.json.encode({"choices": [{"message": said, "finish_reason": "stop"}]})
    assert collect(decode_completion(whole)).message.annotations == wanted
    chunk = msgspec.json.encode({"choices": [{"index": 0, "delta": said, "finish_reason": "stop"}]})
    events = list(EventDecoder().feed(b"data: " + chunk + b"\n\ndata: [DONE]\n\n"))
    assert collect(events).message.annotations == wanted


def test_citations_are_written_as_openai_does() -> None:
    citation = Citation(url="https://a", title="A", start_index=0, end_index=2)
    written = {
        "type": "url_citation",
        "url_citation": {"url": "https://a", "title": "A", "start_index": 0, "end_index": 2},
    }
    answer = collect([TextDelta(text="hi"), citation, Finish()])
    body = msgspec.json.decode(encode_completion(answer, ENVELOPE))
    assert body["choices"][0]["message"]["annotations"] == [written]
    encoder = EventEncoder(ENVELOPE)
    encoder.encode(TextDelta(text="hi"))
    chunk = msgspec.json.decode(encoder.encode(citation).removeprefix(b"data: "))
    assert chunk["choices"][0]["delta"] == {"annotations": [written]}


def test_the_tools_that_are_allowed_are_the_ones_that_are_offered() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("look", "leap")]
    only = {"mode": "required", "tools": [{"type": "function", "function": {"name": "leap"}}]}
    asked = decode_request(
        request_body(tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": only})
    )
    assert asked.params.tools == (Tool("leap"),)
    assert asked.params.tool_choice == ToolChoice("required")
    assert asked.extra == {}


def test_other_kinds_of_tools_and_choices_stay_as_they_were() -> None:
    custom = {"type": "custom", "custom": {"name": "shell"}}
    choice = {"type": "custom", "custom": {"name": "shell"}}
    asked = decode_request(request_body(tools=[custom], tool_choice=choice))
    body = msgspec.json.decode(encode_request(asked))
    assert (body["tools"], body["tool_choice"]) == ([custom], choice)


def test_functions_as_they_were_before_tools_pass_to_an_upstream_of_this_format() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "18"},
    ]
    functions = [{"name": "look", "parameters": {"type": "object"}}]
    asked = decode_request(request_body(messages=messages, functions=functions, function_call="auto"))
    body = msgspec.json.decode(encode_request(asked))
    assert body["messages"][0] == messages[0]
    assert body["messages"][1]["function_call"] == messages[1]["function_call"]
    assert body["messages"][2] == messages[2]
    assert (body["functions"], body["function_call"]) == (functions, "auto")
    with pytest.raises(InvalidRequest, match="tools"):
        decode_request(request_body(messages=messages, functions=functions, conversation_id="c"))

"""The contract of every dialect: what its one half writes its other half reads."""

from contextlib import suppress
from types import ModuleType
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.dialects import openai_chat
from modelway.dialects.envelope import Envelope
from modelway.errors import InvalidRequest, UpstreamError, UpstreamProtocolError, all_errors
from modelway.types import (
    ChatRequest,
    Citation,
    Completion,
    Event,
    FilePart,
    Finish,
    FinishReason,
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

DIALECTS = [pytest.param(openai_chat, id="openai_chat")]
ENVELOPE = Envelope(
    id="chatcmpl-1", created=1, model="m", provider="P", conversation_id="c", include_usage=True
)

text = st.text(min_size=1, max_size=20)
deltas = st.one_of(
    st.builds(TextDelta, text=text),
    st.builds(ReasoningDelta, text=text),
    st.builds(RefusalDelta, text=text),
    st.builds(
        Citation,
        url=text,
        title=st.text(max_size=20),
        start_index=st.none() | st.integers(0, 99),
        end_index=st.none() | st.integers(0, 99),
    ),
)
calls = st.lists(st.builds(ToolCall, id=text, name=text, arguments=st.text(max_size=20)), max_size=3)
usages = st.none() | st.builds(
    Usage,
    input_tokens=st.integers(0, 10**6),
    output_tokens=st.integers(0, 10**6),
    cached_tokens=st.integers(0, 10**6),
    reasoning_tokens=st.integers(0, 10**6),
)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Any answer with one choice: text, thoughts, refusals, sources and tool calls, cut into pieces."""
    events: list[Event] = list(draw(st.lists(deltas, max_size=8)))
    for index, call in enumerate(draw(calls)):
        cut = draw(st.integers(0, len(call.arguments)))
        first = ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments[:cut])
        events += [first, ToolCallDelta(index=index, arguments=call.arguments[cut:])]
    reason = draw(st.sampled_from(get_args(FinishReason)))
    return [*events, Finish(reasons=(reason,), usage=draw(usages), model="m")]


def written(dialect: ModuleType, events: list[Event]) -> bytes:
    encoder = dialect.EventEncoder(ENVELOPE)
    stream: bytes = b"".join(map(encoder.encode, events)) + encoder.end()
    return stream


def read(dialect: ModuleType, pieces: list[bytes], *, raw: bool = False) -> list[Event]:
    decoder = dialect.EventDecoder(raw=raw, include_usage=True)
    return [*(event for piece in pieces for event in decoder.feed(piece)), *decoder.close()]


def without_raw(completion: Completion) -> Completion:
    return msgspec.structs.replace(completion, raw=None)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(events=answers(), cut=st.integers(0, 5000))
def test_a_streamed_answer_survives_the_round_trip(
    dialect: ModuleType, events: list[Event], cut: int
) -> None:
    stream = written(dialect, events)
    for raw in (False, True):
        found = read(dialect, [stream[:cut], stream[cut:]], raw=raw)
        assert without_raw(collect(found)) == collect(events)
        assert isinstance(found[-1], Finish)
        assert sum(isinstance(event, Finish) for event in found) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
@given(events=answers())
def test_a_whole_answer_survives_the_round_trip(dialect: ModuleType, events: list[Event]) -> None:
    completion = collect(events)
    body = dialect.encode_completion(completion, ENVELOPE)
    assert collect(dialect.decode_completion(body)) == completion


@pytest.mark.parametrize("dialect", DIALECTS)
@given(events=answers())
def test_relayed_bytes_say_the_same_as_the_events(dialect: ModuleType, events: list[Event]) -> None:
    stream = written(dialect, events)
    relayed = written(dialect, read(dialect, [stream], raw=True))
    assert collect(read(dialect, [relayed])) == collect(events)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_single_cut_gives_the_same_answer(dialect: ModuleType) -> None:
    events: list[Event] = [TextDelta(text="grüß "), TextDelta(text="€ dich"), Finish(usage=Usage(1, 2))]
    plain = written(dialect, events)
    for stream in (plain, plain.replace(b"\n", b"\r\n"), b": hello\n\n" + plain.replace(b"data: ", b"data:")):
        for cut in range(len(stream) + 1):
            assert collect(read(dialect, [stream[:cut], stream[cut:]])).text == "grüß € dich"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_that_just_ends_is_an_error_and_never_a_stop(dialect: ModuleType) -> None:
    stream = written(dialect, [TextDelta(text="half an ans")])
    stream = stream[: stream.index(b"[DONE]") - 6]
    with pytest.raises(UpstreamProtocolError) as caught:
        read(dialect, [stream])
    assert caught.value.code == "upstream_truncated"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_text_before_an_error_in_the_stream_is_given_first(dialect: ModuleType) -> None:
    encoder = dialect.EventEncoder(ENVELOPE)
    stream = encoder.encode(TextDelta(text="so far")) + encoder.error(UpstreamError("it broke"))
    for raw in (False, True):
        decoder = dialect.EventDecoder(raw=raw)
        found: list[Event] = []
        with pytest.raises(UpstreamError, match="it broke"):
            found.extend(decoder.feed(stream))
        assert collect(found).text == "so far"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_error_is_written_with_message_type_param_and_code(dialect: ModuleType) -> None:
    for kind in all_errors():
        error = kind("what happened", hint="what to do", param="field")
        assert msgspec.json.decode(dialect.encode_error(error)) == {
            "error": {
                "message": "what happened; what to do",
                "type": kind.type,
                "param": "field",
                "code": kind.code,
            }
        }


PDF = FilePart("data:application/pdf;base64,AA==", name="a.pdf", media_type="application/pdf")
REQUESTS = [
    ChatRequest(messages=(Message(role="user", content="hi"),)),
    ChatRequest(
        messages=(
            Message(role="system", content="be brief"),
            Message(
                role="user", content=(TextPart("what is this?"), ImagePart("data:image/png;base64,AA", "low"))
            ),
            Message(role="user", content=(PDF, FilePart(file_id="file-1"))),
            Message(role="assistant", tool_calls=(ToolCall("1", "look", '{"at": 1}'),)),
            Message(role="tool", content="a cat", tool_call_id="1"),
        ),
        model="m",
        stream=True,
        params=Params(
            temperature=0.5,
            top_p=0.9,
            max_tokens=10,
            stop=("a", "b"),
            seed=3,
            n=2,
            presence_penalty=0.1,
            frequency_penalty=-0.1,
            reasoning_effort="low",
            tools=(Tool("look", "looks", {"type": "object"}, strict=True),),
            tool_choice=ToolChoice("named", "look"),
            parallel_tool_calls=False,
            response_format=ResponseFormat("json_schema", "shape", {"type": "object"}, strict=True),
        ),
    ),
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_survives_the_round_trip(dialect: ModuleType, request_: ChatRequest) -> None:
    found = dialect.decode_request(dialect.encode_request(request_, include_usage=False))
    assert msgspec.structs.replace(found, dialect="") == request_


@pytest.mark.parametrize("dialect", DIALECTS)
@given(
    body=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["messages", "role", "content", "model", "stream", "tools", "stop", "type"]),
                inner,
            )
        ),
    ).map(msgspec.json.encode)
)
def test_any_body_is_a_request_or_an_invalid_request(dialect: ModuleType, body: bytes) -> None:
    with suppress(InvalidRequest):
        assert isinstance(dialect.decode_request(body), ChatRequest)

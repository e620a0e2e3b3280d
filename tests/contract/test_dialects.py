"""The contract of every dialect: what its one half writes its other half reads. A new one joins by a Case."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from modelway.dialects import anthropic_messages, ollama_chat, openai_chat
from modelway.dialects.envelope import Envelope
from modelway.errors import GatewayError, InvalidRequest, UpstreamError, UpstreamProtocolError, all_errors
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

ENVELOPE = Envelope(
    id="chatcmpl-1", created=1, model="m", provider="P", conversation_id="c", include_usage=True
)
IMAGE = ImagePart("data:image/png;base64,iVBORw0KGgo=")
PDF = FilePart("data:application/pdf;base64,AA==", name="a.pdf", media_type="application/pdf")

text = st.text(min_size=1, max_size=20)
counts = st.integers(0, 10**6)
said = st.builds(TextDelta, text=text) | st.builds(ReasoningDelta, text=text)
refused = st.builds(RefusalDelta, text=text)
places = st.none() | st.integers(0, 99)
cited = st.builds(Citation, url=text, title=st.text(max_size=20), start_index=places, end_index=places)
any_text = st.text(max_size=20)
objects = st.dictionaries(text, st.none() | st.booleans() | st.integers(-9, 9) | text, max_size=3)
object_texts = objects.map(msgspec.json.encode).map(bytes.decode)


@st.composite
def answers(
    draw: st.DrawFn,
    *,
    deltas: st.SearchStrategy[Event] = said,
    arguments: st.SearchStrategy[str] = object_texts,
    usages: st.SearchStrategy[Usage | None],
    reason_of_calls: FinishReason | None = None,
    refuses_by_reason: bool = False,
) -> list[Event]:
    """Any answer with one choice that a format can carry, cut into pieces.

    `reason_of_calls` is how an answer with calls ends, and no other, where the format has no other word.
    """
    events: list[Event] = list(draw(st.lists(deltas, max_size=8)))
    calls = draw(st.lists(st.builds(ToolCall, id=text, name=text, arguments=arguments), max_size=3))
    for index, call in enumerate(calls):
        cut = draw(st.integers(0, len(call.arguments)))
        first = ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments[:cut])
        events += [first, ToolCallDelta(index=index, arguments=call.arguments[cut:])]
    others = [reason for reason in get_args(FinishReason) if reason != reason_of_calls]
    reason = reason_of_calls if calls and reason_of_calls else draw(st.sampled_from(others))
    if refuses_by_reason and reason == "content_filter":
        events += draw(st.lists(refused, max_size=2))
    return [*events, Finish(reasons=(reason,), usage=draw(usages), model="m")]


@st.composite
def whole_usages(draw: st.DrawFn) -> Usage:
    """Counts of which none is more than what it is a part of."""
    cached, written, fresh, thought = draw(st.tuples(counts, counts, counts, counts))
    return Usage(cached + written + fresh, thought + 5, cached, thought, written)


class Case(Struct, frozen=True, kw_only=True):
    """What the contract must know of a dialect.

    `variants` writes a stream in other ways that mean the same. `requests` have what the format has words
    for. `error` is the shape that an error has.
    """

    dialect: ModuleType
    answers: st.SearchStrategy[list[Event]]
    decoder: dict[str, Any] = {}
    encoder: dict[str, Any] = {}
    variants: Callable[[bytes], list[bytes]]
    requests: tuple[ChatRequest, ...]
    error: Callable[[type[GatewayError]], Any]

    def written(self, events: list[Event], *, ended: bool = True) -> bytes:
        """A stream; without its end marker where it has not `ended`."""
        encoder = self.dialect.EventEncoder(ENVELOPE)
        stream: bytes = b"".join(map(encoder.encode, events)) + (encoder.end() if ended else b"")
        return stream

    def read(self, *pieces: bytes, raw: bool = False) -> list[Event]:
        """The events in a stream."""
        decoder = self.dialect.EventDecoder(raw=raw, **self.decoder)
        return [*(event for piece in pieces for event in decoder.feed(piece)), *decoder.close()]


def asked(*messages: Message, **params: Any) -> ChatRequest:
    return ChatRequest(messages=messages, model="m", stream=True, params=Params(**params))


def looked(*shown: Any) -> tuple[Message, ...]:
    """A loop of tools that every format has words for."""
    return (
        Message(role="system", content="be brief"),
        Message(role="user", content=(TextPart("what is this?"), *shown)),
        Message(role="assistant", tool_calls=(ToolCall("1", "look", '{"at":1}'),)),
        Message(role="tool", content="a cat", tool_call_id="1"),
        Message(role="user", content="really?"),
    )


def sse_variants(stream: bytes) -> list[bytes]:
    return [
        stream,
        stream.replace(b"\n", b"\r\n"),
        b": hello\n\n" + stream.replace(b"data: ", b"data:").replace(b"event: ", b"event:"),
    ]


def openai_error(kind: type[GatewayError]) -> Any:
    fields = {"message": "what happened; what to do", "type": kind.type, "param": "field", "code": kind.code}
    return {"error": fields}


def anthropic_error(kind: type[GatewayError]) -> Any:
    fields = openai_error(kind)["error"]
    fallback = "invalid_request_error" if kind.status < 500 else "api_error"
    types = {
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
    return {"type": "error", "error": {**fields, "type": types.get(kind.status, fallback)}}


LOOK = Tool("look", "looks", {"type": "object"})
STRICT = Tool("look", "looks", {"type": "object"}, strict=True)
SHAPE = ResponseFormat("json_schema", "answer", {"type": "object"})
HI = Message(role="user", content="hi")
CASES = [
    Case(
        dialect=openai_chat,
        answers=answers(
            deltas=said | refused | cited,
            arguments=any_text,
            usages=st.none()
            | st.builds(
                Usage,
                input_tokens=counts,
                output_tokens=counts,
                cached_tokens=counts,
                reasoning_tokens=counts,
            ),
        ),
        decoder={"include_usage": True},
        encoder={"include_usage": False},
        variants=sse_variants,
        requests=(
            ChatRequest(messages=(HI,)),
            asked(
                *looked(ImagePart("https://example.org/cat.png", "low"), PDF, FilePart(file_id="file-1")),
                temperature=0.5,
                top_p=0.9,
                max_tokens=10,
                stop=("a", "b"),
                seed=3,
                n=2,
                presence_penalty=0.1,
                frequency_penalty=-0.1,
                reasoning_effort="low",
                tools=(STRICT,),
                tool_choice=ToolChoice("named", "look"),
                parallel_tool_calls=False,
                response_format=replace(SHAPE, name="shape", strict=True),
            ),
        ),
        error=openai_error,
    ),
    Case(
        dialect=anthropic_messages,
        answers=answers(usages=whole_usages(), refuses_by_reason=True),
        variants=sse_variants,
        requests=(
            ChatRequest(messages=(HI,), params=Params(max_tokens=9)),
            asked(
                *looked(IMAGE, PDF),
                temperature=0.5,
                top_p=0.9,
                max_tokens=10,
                stop=("a", "b"),
                reasoning_effort="low",
                tools=(STRICT,),
                tool_choice=ToolChoice("named", "look"),
                parallel_tool_calls=False,
                response_format=SHAPE,
            ),
        ),
        error=anthropic_error,
    ),
    Case(
        dialect=ollama_chat,
        answers=answers(
            usages=st.none()
            | st.builds(Usage, input_tokens=counts, output_tokens=counts, cached_tokens=counts),
            reason_of_calls="tool_calls",
        ),
        variants=lambda stream: [stream, stream.replace(b"\n", b"\r\n"), b"\n" + stream.rstrip()],
        requests=(
            ChatRequest(messages=(HI,)),
            asked(
                *looked(IMAGE),
                temperature=0.5,
                top_p=0.9,
                max_tokens=10,
                stop=("a", "b"),
                seed=3,
                presence_penalty=0.1,
                frequency_penalty=-0.1,
                reasoning_effort="low",
                tools=(LOOK,),
                response_format=SHAPE,
            ),
        ),
        error=lambda kind: {"error": "what happened; what to do"},
    ),
]
EACH = pytest.mark.parametrize("case", [pytest.param(case, id=case.dialect.NAME) for case in CASES])


def without_raw(completion: Completion) -> Completion:
    return replace(completion, raw=None)


@EACH
@given(data=st.data(), cut=st.integers(0, 5000))
def test_a_streamed_answer_survives_the_round_trip(case: Case, data: st.DataObject, cut: int) -> None:
    events = data.draw(case.answers)
    stream = case.written(events)
    for raw in (False, True):
        found = case.read(stream[:cut], stream[cut:], raw=raw)
        assert without_raw(collect(found)) == collect(events)
        assert isinstance(found[-1], Finish)
        assert sum(isinstance(event, Finish) for event in found) == 1


@EACH
@given(data=st.data())
def test_a_whole_answer_survives_the_round_trip(case: Case, data: st.DataObject) -> None:
    completion = collect(data.draw(case.answers))
    body = case.dialect.encode_completion(completion, ENVELOPE)
    assert collect(case.dialect.decode_completion(body)) == completion


@EACH
@given(data=st.data())
def test_relayed_bytes_say_the_same_as_the_events(case: Case, data: st.DataObject) -> None:
    events = data.draw(case.answers)
    relayed = case.written(case.read(case.written(events), raw=True))
    assert collect(case.read(relayed)) == collect(events)


@EACH
def test_every_single_cut_gives_the_same_answer(case: Case) -> None:
    events: list[Event] = [TextDelta(text="grüß "), TextDelta(text="€ dich"), Finish(usage=Usage(1, 2))]
    for stream in case.variants(case.written(events)):
        for cut in range(len(stream) + 1):
            assert collect(case.read(stream[:cut], stream[cut:])).text == "grüß € dich"


@EACH
def test_a_stream_that_just_ends_is_an_error_and_never_a_stop(case: Case) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        case.read(case.written([TextDelta(text="half an ans")], ended=False))
    assert caught.value.code == "upstream_truncated"


@EACH
def test_text_before_an_error_in_the_stream_is_given_first(case: Case) -> None:
    encoder = case.dialect.EventEncoder(ENVELOPE)
    stream = encoder.encode(TextDelta(text="so far")) + encoder.error(UpstreamError("it broke"))
    for raw in (False, True):
        decoder = case.dialect.EventDecoder(raw=raw)
        found: list[Event] = []
        with pytest.raises(UpstreamError, match="it broke"):
            found.extend(decoder.feed(stream))
        assert collect(found).text == "so far"


@EACH
def test_every_error_is_written_in_the_shape_of_the_format(case: Case) -> None:
    for kind in all_errors():
        error = kind("what happened", hint="what to do", param="field")
        assert msgspec.json.decode(case.dialect.encode_error(error)) == case.error(kind)


@EACH
def test_a_request_survives_the_round_trip(case: Case) -> None:
    for request in case.requests:
        found = case.dialect.decode_request(case.dialect.encode_request(request, **case.encoder))
        assert found.dialect == case.dialect.NAME
        assert found.messages == request.messages
        assert found.params == request.params
        assert (found.model, found.stream) == (request.model, request.stream)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "messages",
                    "role",
                    "content",
                    "model",
                    "stream",
                    "tools",
                    "stop",
                    "type",
                    "options",
                    "think",
                ]
            ),
            inner,
        )
    ),
)


@EACH
@given(body=st.binary(max_size=200) | JSON.map(msgspec.json.encode))
def test_any_body_is_a_request_or_an_invalid_request(case: Case, body: bytes) -> None:
    with suppress(InvalidRequest):
        assert isinstance(case.dialect.decode_request(body), ChatRequest)

"""Google's generateContent: whatever comes in becomes events or an error of ours."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.dialects import gemini
from modelway.errors import GatewayError, InvalidRequest, UpstreamProtocolError
from modelway.types import (
    ChatRequest,
    Event,
    FilePart,
    Finish,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    Usage,
    collect,
)

CHUNKS: list[dict[str, Any]] = [
    {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}], "role": "model"}}]},
    {"candidates": [{"content": {"parts": [{"text": "grüß "}]}, "index": 0}], "modelVersion": "m"},
    {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "€ dich"},
                        {
                            "functionCall": {"name": "look", "args": {"at": 1}, "id": "c1"},
                            "thoughtSignature": "c2ln",
                        },
                    ]
                }
            }
        ]
    },
    {
        "candidates": [{"content": {"parts": [{"text": ""}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 3},
    },
]


def streamed(end: str) -> bytes:
    return b"".join(
        b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + end.encode() for chunk in CHUNKS
    )


def read(*pieces: bytes) -> list[Event]:
    decoder = gemini.EventDecoder()
    return [*(event for piece in pieces for event in decoder.feed(piece)), *decoder.close()]


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_every_single_cut_gives_the_same_answer(end: str) -> None:
    stream = streamed(end)
    expected = collect(read(stream))
    assert expected.text == "grüß € dich"
    assert expected.message.reasoning == "hm"
    assert expected.message.tool_calls == (ToolCall("c1", "look", '{"at":1}'),)
    assert expected.usage == Usage(input_tokens=5, output_tokens=5, reasoning_tokens=3)
    for cut in range(len(stream) + 1):
        found = read(stream[:cut], stream[cut:])
        assert collect(found) == expected
        assert [type(event) for event in found].count(Finish) == 1


def test_signatures_are_noted_by_the_ids_of_their_calls() -> None:
    decoder = gemini.EventDecoder()
    list(decoder.feed(streamed("\n\n")))
    assert decoder.signatures == {"c1": "c2ln"}


def test_an_event_without_end_is_given_up() -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        list(gemini.EventDecoder(max_event_bytes=100).feed(b"data: " + b"a" * 200))
    assert caught.value.code == "upstream_too_large"


@given(
    body=st.binary(max_size=100)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "candidates",
                        "content",
                        "parts",
                        "text",
                        "functionCall",
                        "args",
                        "finishReason",
                        "error",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
    ).map(msgspec.json.encode)
)
def test_any_answer_is_events_or_an_error_of_ours(body: bytes) -> None:
    for pieces in ([body], [b"data: " + body + b"\n\n"]):
        with suppress(GatewayError):
            assert isinstance(read(*pieces)[-1], Finish)
    with pytest.raises(GatewayError):
        list(gemini.EventDecoder().read_whole(b"[" + body))


texts = st.text(max_size=10)
parts = (
    st.builds(TextPart, text=texts)
    | st.builds(ImagePart, url=st.sampled_from(["data:image/png;base64,aGk=", "https://example.org/a.png"]))
    | st.builds(FilePart, url=st.just("data:application/pdf;base64,aGk="))
)
messages = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        content=texts | st.lists(parts, max_size=2).map(tuple),
        tool_calls=st.lists(
            st.builds(ToolCall, id=st.just("1"), name=texts, arguments=texts), max_size=1
        ).map(tuple),
        tool_call_id=st.sampled_from(["", "1"]),
    ),
    max_size=5,
)


@given(messages=messages.map(tuple), model=st.sampled_from(["gemini-2.5-flash", "gemini-3-flash"]))
def test_any_history_is_written_in_turns_or_refused(messages: tuple[Message, ...], model: str) -> None:
    try:
        body = msgspec.json.decode(gemini.encode_request(ChatRequest(messages=messages, model=model)))
    except InvalidRequest:
        return
    roles = [content["role"] for content in body["contents"]]
    assert all(one != other for one, other in pairwise(roles))
    assert all(content["parts"] for content in body["contents"])

"""A plain request is read in one step: it must come to the same as the reading of each field."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.dialects.openai_chat import decode_request
from modelway.dialects.openai_chat.read_request import _decode_plain, _Plain, _read
from modelway.dialects.reading import read_object
from modelway.errors import InvalidRequest
from modelway.types import ChatRequest

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
ODD = st.sampled_from([None, "", [], {}, True, 0, "x", ["a"], {"a": 1}])
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": TEXTS},
        optional={"name": TEXTS | ODD},
    )
    | st.fixed_dictionaries({"role": TEXTS | ODD, "content": TEXTS | ODD}),
    max_size=3,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "model": TEXTS | ODD,
    "provider": TEXTS | ODD,
    "conversation_id": TEXTS | ODD,
    "stream": st.booleans() | ODD,
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans() | ODD}) | ODD,
    "temperature": st.floats(-1, 3) | st.integers(-1, 3) | ODD,
    "top_p": st.floats(-1, 2) | st.integers(-1, 2) | ODD,
    "max_tokens": st.integers(-1, 200_000_000) | ODD,
    "max_completion_tokens": st.integers(-1, 9) | ODD,
    "user": TEXTS,
}


def outcome(read: Any, body: bytes) -> ChatRequest | tuple[str, str | None]:
    try:
        found: ChatRequest = read(body)
    except InvalidRequest as error:
        return error.explanation, error.param
    return found


@given(st.fixed_dictionaries({"messages": MESSAGES}, optional=FIELDS))
def test_both_ways_of_reading_come_to_the_same(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    assert outcome(decode_request, body) == outcome(lambda body: _read(read_object(body)), body)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": "m", "stream": True},
        {"provider": "P", "conversation_id": "c", "temperature": 1, "top_p": 0.5, "max_tokens": 9},
        {"stream": True, "stream_options": {"include_usage": True}, "max_completion_tokens": 3},
    ],
)
def test_what_most_clients_send_is_read_in_one_step(fields: dict[str, Any]) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    assert isinstance(_decode_plain(body), _Plain)
    assert decode_request(body) == _read(read_object(body))

"""Chunks read together say the same as chunks read one by one, whatever is among the texts."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from modelway.dialects.openai_chat.stream import EventDecoder
from modelway.dialects.openai_chat.texts import Texts, read_texts
from modelway.errors import GatewayError
from modelway.types import Finish, TextDelta

nothing: st.SearchStrategy[Any] = st.sampled_from([None, "", []])
texts = st.text(alphabet='aé"\\\n{€', max_size=6)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | texts,
        "role": st.just("assistant"),
        "reasoning_content": st.none() | texts,
        "refusal": st.none() | texts,
        "tool_calls": st.none() | st.just([]) | st.just([{"index": 0, "id": "c", "function": {"name": "f"}}]),
        "annotations": nothing,
    },
)
choices = st.fixed_dictionaries(
    {"delta": deltas},
    optional={
        "index": st.sampled_from([0, 0, 0, 1]),
        "finish_reason": st.sampled_from([None, None, "", "stop", "length"]),
    },
)
plain = texts.map(lambda text: {"choices": [{"index": 0, "delta": {"content": text}}]})
odd = st.fixed_dictionaries(
    {"choices": st.lists(choices, max_size=2)},
    optional={
        "model": st.sampled_from([None, "", "m", "n"]),
        "usage": st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 2}),
        "error": st.none() | st.just({"message": "no", "code": "500"}),
    },
)
TEXT = {"index": 0, "delta": {"content": "a"}}
streams = st.lists(st.one_of(plain, plain, odd), min_size=1, max_size=8)


def written(chunks: list[dict[str, Any]], *, spaces: bool, end: str = "\n") -> list[bytes]:
    separators = None if spaces else (",", ":")
    body = [json.dumps(chunk, separators=separators, ensure_ascii=False) for chunk in chunks]
    return [f"data: {one}{end}{end}".encode() for one in [*body, "[DONE]"]]


def said(reads: list[bytes], *, raw: bool = False) -> dict[Any, Any]:
    """What a stream says in all, however it was cut: joined by what it is, with its bytes."""
    decoder = EventDecoder(raw=raw, choices=2)
    told: dict[Any, Any] = {"bytes": b"", "finish": None, "error": ""}
    try:
        for read in reads:
            for event in decoder.feed(read):
                told["bytes"] += getattr(event, "raw", None) or b""
                if isinstance(event, Finish):
                    told["finish"] = (event.reasons, event.usage, event.model)
                elif hasattr(event, "choice"):
                    key = type(event).__name__, event.choice
                    more = getattr(event, "text", "") or getattr(event, "name", "")
                    told[key] = told.get(key, "") + more
    except GatewayError as error:
        told["error"] = error.code
    return told


@given(chunks=streams, spaces=st.booleans(), raw=st.booleans())
def test_one_read_says_what_many_say(chunks: list[dict[str, Any]], spaces: bool, raw: bool) -> None:
    reads = written(chunks, spaces=spaces)
    assert said([b"".join(reads)], raw=raw) == said(reads, raw=raw)


@example(chunks=[{"choices": [{"delta": {}}], "model": "m"}, {"choices": [TEXT]}], spaces=False)
@given(chunks=streams, spaces=st.booleans())
def test_lines_of_another_kind_say_the_same(chunks: list[dict[str, Any]], spaces: bool) -> None:
    other = b"".join(written(chunks, spaces=spaces, end="\r\n"))
    assert said([b"".join(written(chunks, spaces=spaces))]) == said([other])


def test_only_texts_of_the_first_choice_are_read_together() -> None:
    text = b'{"choices":[{"index":0,"delta":{"content":"a"}}],"model":"m"}'
    assert read_texts(text + b"\n\ndata: " + text) == Texts("aa", "m")
    for other in (
        b'{"choices":[{"index":1,"delta":{"content":"a"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"a","refusal":"b"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}',
        b'{"choices":[]}',
        b'{"error":{}}',
        b"{",
    ):
        assert read_texts(text + b"\n\ndata: " + other) is None


def test_a_read_of_fifty_texts_is_one_event_with_all_bytes() -> None:
    body = b"".join(written([{"choices": [{"index": 0, "delta": {"content": "a"}}]}] * 50, spaces=True)[:-1])
    assert EventDecoder(raw=True).feed(body) == [TextDelta(text="a" * 50, raw=body)]

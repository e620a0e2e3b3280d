"""In no field of a request, of whatever format, can anything stand that is more than a refusal."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import msgspec
import pytest

from modelway.dialects import anthropic_messages, ollama_chat, openai_chat, openai_responses
from modelway.dialects.ollama_chat import generate
from modelway.dialects.openai_chat import completions
from modelway.errors import InvalidRequest

WRONG: list[Any] = [
    None,
    "",
    0,
    -1,
    2**64,
    -(2**63) - 1,
    1e308,
    1.5,
    True,
    [],
    {},
    "x",
    "\0",
    [None],
    {"a": None},
    [[[]]],
    "9" * 100,
]
PICTURE = "data:image/png;base64,AAAA"
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SAMPLED: dict[str, Any] = {"temperature": 1, "top_p": 1, "seed": 1, "stop": ["a"], "stream": False}

CHAT: dict[str, Any] = {
    **SAMPLED,
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": "a", "tool_calls": [CALL], "refusal": "r"},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "t"}]},
        {
            "role": "user",
            "name": "n",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                {"type": "file", "file": {"filename": "f", "file_data": "data:application/pdf;base64,AAAA"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        },
    ],
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "n": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {"1": 1},
    "logprobs": True,
    "top_logprobs": 1,
    "metadata": {"a": "b"},
    "stream_options": {"include_usage": True},
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": True,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
    },
    "reasoning_effort": "low",
    "conversation_id": "c",
    "provider": "p",
}
RESPONSE: dict[str, Any] = {
    "model": "m",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": PICTURE, "detail": "low"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "t"}]},
    ],
    "instructions": "i",
    "max_output_tokens": 5,
    "metadata": {"a": "b"},
    "temperature": 1,
    "top_p": 1,
    "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}},
    "reasoning": {"effort": "low", "summary": "auto"},
    "store": True,
    "background": False,
    "stream": False,
    "truncation": "disabled",
    "include": ["reasoning.encrypted_content"],
    "previous_response_id": "resp_1",
    "conversation": {"id": "c"},
}
MESSAGES: dict[str, Any] = {
    "model": "m",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c",
                    "content": [{"type": "text", "text": "x"}],
                    "is_error": False,
                },
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}, "title": "t"},
            ],
        },
    ],
    "temperature": 1,
    "top_k": 1,
    "top_p": 1,
    "stop_sequences": ["a"],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "metadata": {"user_id": "u"},
    "stream": False,
    "conversation_id": "c",
}
OPTIONS = {"temperature": 1, "num_predict": 5, "seed": 1, "stop": ["a"], "num_ctx": 1, "top_k": 1}
OLLAMA: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "hi", "images": ["AAAA"]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "x", "tool_name": "f"},
    ],
    "options": OPTIONS,
    "format": {"type": "object"},
    "keep_alive": "5m",
    "think": True,
    "stream": False,
    "tools": [{"type": "function", "function": FUNCTION}],
}
GENERATE: dict[str, Any] = {
    "model": "m",
    "prompt": "hi",
    "system": "s",
    "suffix": "",
    "options": OPTIONS,
    "stream": False,
    "images": ["AAAA"],
    "raw": False,
    "keep_alive": 5,
}
COMPLETION: dict[str, Any] = {
    **SAMPLED,
    "model": "m",
    "prompt": "hi",
    "max_tokens": 5,
    "n": 1,
    "echo": False,
    "best_of": 1,
    "conversation_id": "c",
}
FORMATS = [
    (openai_chat, CHAT),
    (openai_responses, RESPONSE),
    (anthropic_messages, MESSAGES),
    (ollama_chat, OLLAMA),
    (generate, GENERATE),
    (completions, COMPLETION),
]
named = pytest.mark.parametrize(
    ("dialect", "body"), FORMATS, ids=[dialect.__name__.rpartition(".")[2] for dialect, _ in FORMATS]
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a body."""
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*place, key))


def changed(body: dict[str, Any], place: tuple[Any, ...], value: Any) -> bytes:
    """The body with something else there."""
    whole: Any = copy.deepcopy(body)
    within = whole
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = value
    return msgspec.json.encode(whole)


@named
def test_the_whole_body_is_right(dialect: ModuleType, body: dict[str, Any]) -> None:
    assert dialect.decode_request(msgspec.json.encode(body)).model == "m"


@named
def test_a_wrong_value_in_any_place_is_taken_or_refused(dialect: ModuleType, body: dict[str, Any]) -> None:
    refused = 0
    for place in places(body):
        for value in WRONG:
            try:
                dialect.decode_request(changed(body, place, value))
            except InvalidRequest:
                refused += 1
    assert refused > 50

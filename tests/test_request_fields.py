"""docs/request-fields.md says of every published field what becomes of it; here the code is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from msgspec import Struct
from msgspec.structs import replace

from modelway.dialects import anthropic_messages, gemini, ollama_chat, openai_chat, openai_responses
from modelway.dialects.fitting import Fit
from modelway.dialects.openai_chat import completions
from modelway.errors import InvalidRequest
from modelway.types import ChatRequest, Params

DOCUMENT = Path(__file__).parent.parent / "docs/request-fields.md"
KINDS = ("tools", "n", "json_schema", "json_object")
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
FLAT = {"type": "function", "name": "look", "parameters": {"type": "object"}}
OLLAMA_TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SHAPE = {"type": "object", "properties": {"a": {"type": "string"}}}
HI = [{"role": "user", "content": "Hi"}]


class Format(Struct, frozen=True):
    """A format: its least request, a value for each field, and the dialect of its own upstreams, if any."""

    decode: Callable[[bytes], ChatRequest]
    least: dict[str, Any]
    values: dict[str, Any]
    own: Any = None
    own_params: tuple[str, ...] = ()


CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hello"}],
    "model": "m2",
    "provider": "Local",
    "conversation_id": "c",
    "stream": True,
    "audio": {"voice": "alloy", "format": "wav"},
    "frequency_penalty": 0.5,
    "function_call": "auto",
    "functions": [{"name": "look"}],
    "logit_bias": {"1": 2},
    "logprobs": True,
    "max_completion_tokens": 9,
    "max_tokens": 9,
    "metadata": {"a": "b"},
    "modalities": ["text", "audio"],
    "moderation": {"model": "m"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"a": 1},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SHAPE}},
    "safety_identifier": "s",
    "seed": 1,
    "service_tier": "flex",
    "stop": ["END"],
    "store": True,
    "stream_options.include_usage": True,
    "stream_options.include_obfuscation": True,
    "temperature": 0.5,
    "tool_choice": "required",
    "tools": [TOOL],
    "top_logprobs": 2,
    "top_p": 0.5,
    "user": "ada",
    "verbosity": "low",
    "web_search_options": {},
}
COMPLETIONS: dict[str, Any] = {
    "prompt": "Hello",
    **{name: CHAT[name] for name in ("model", "provider", "conversation_id", "stream", "n", "seed", "stop")},
    **{
        name: CHAT[name] for name in ("frequency_penalty", "presence_penalty", "temperature", "top_p", "user")
    },
    **{name: CHAT[name] for name in ("logit_bias", "max_tokens")},
    **{name: value for name, value in CHAT.items() if name.startswith("stream_options")},
    "best_of": 3,
    "echo": True,
    "logprobs": 2,
    "suffix": "end",
}
RESPONSES: dict[str, Any] = {
    "input": "Hello",
    "model": "m2",
    "provider": "Local",
    "conversation_id": "c",
    "stream": True,
    "access_programs": ["p"],
    "background": True,
    "context_management": [{"type": "compaction"}],
    "conversation": "c",
    "frequency_penalty": 0.5,
    "image": {"a": 1},
    "include": ["reasoning.encrypted_content"],
    "instructions": "Be brief",
    "max_output_tokens": 99,
    "max_tool_calls": 2,
    "metadata": {"a": "b"},
    "moderation": {"model": "m"},
    "parallel_tool_calls": False,
    "presence_penalty": 0.5,
    "previous_response_id": "resp_1",
    "prompt": {"id": "p"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"a": 1},
    "prompt_cache_retention": "24h",
    "reasoning": {"effort": "low"},
    "safety_identifier": "s",
    "service_tier": "flex",
    "store": False,
    "stream_options.include_obfuscation": True,
    "temperature": 0.5,
    "text": {"format": {"type": "json_schema", "name": "a", "schema": SHAPE}},
    "tool_choice": "required",
    "tools": [FLAT],
    "top_logprobs": 2,
    "top_p": 0.5,
    "truncation": "auto",
    "user": "ada",
}
MESSAGES: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hello"}],
    "model": "m2",
    "provider": "Local",
    "conversation_id": "c",
    "stream": True,
    "anthropic_beta": ["x-2026-01-01"],
    "billing_policy": {"a": 1},
    "cache_control": {"type": "ephemeral"},
    "compaction": {"a": 1},
    "container": "c",
    "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
    "diagnostics": {"a": 1},
    "fallback_credit_token": "t",
    "fallbacks": ["m3"],
    "inference_geo": "eu",
    "max_tokens": 99,
    "mcp_servers": [{"name": "x"}],
    "metadata": {"user_id": "u"},
    "output_config": {"format": {"type": "json_schema", "schema": SHAPE}},
    "service_tier": "priority",
    "speed": "fast",
    "stop_sequences": ["END"],
    "system": "Be brief",
    "temperature": 0.5,
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "thread": {"a": 1},
    "tool_choice": {"type": "any"},
    "tools": [{"name": "look", "input_schema": {"type": "object"}}],
    "top_k": 40,
    "top_p": 0.5,
    "user_profile_id": "u",
    "workspace_id": "w",
}
OLLAMA: dict[str, Any] = {
    "model": "m2",
    "provider": "Local",
    "conversation_id": "c",
    "stream": False,
    "format": SHAPE,
    "keep_alive": "5m",
    "logprobs": True,
    "think": "low",
    "top_logprobs": 2,
    **{
        f"options.{name}": value
        for name, value in {
            "frequency_penalty": 0.5,
            "min_p": 0.1,
            "mirostat": 1,
            "num_ctx": 9000,
            "num_predict": 9,
            "presence_penalty": 0.5,
            "repeat_penalty": 1.5,
            "seed": 1,
            "stop": ["END"],
            "temperature": 0.5,
            "top_k": 40,
            "top_p": 0.5,
            "typical_p": 0.5,
        }.items()
    },
}
FORMATS = {
    "/v1/chat/completions": Format(
        openai_chat.decode_request, {"messages": HI}, CHAT, openai_chat, Params.__struct_fields__
    ),
    "/v1/completions": Format(completions.decode_request, {"prompt": "Hi"}, COMPLETIONS),
    "/v1/responses": Format(openai_responses.decode_request, {"input": "Hi"}, RESPONSES),
    "/v1/messages": Format(
        anthropic_messages.decode_request,
        {"messages": HI},
        MESSAGES,
        anthropic_messages,
        anthropic_messages.PARAMS,
    ),
    "/api/chat": Format(
        ollama_chat.decode_request,
        {"messages": HI},
        {
            "messages": [{"role": "user", "content": "Hello"}],
            **OLLAMA,
            "tools": [OLLAMA_TOOL],
            "truncate": True,
            "shift": True,
        },
        ollama_chat,
        ollama_chat.PARAMS,
    ),
    "/api/generate": Format(
        ollama_chat.decode_generate_request,
        {"prompt": "Hi"},
        {
            "prompt": "Hello",
            "system": "Be brief",
            "images": ["iVBORw0KGgoAAAANSUhEUg=="],
            **OLLAMA,
            "context": [1],
            "height": 9,
            "raw": True,
            "steps": 9,
            "suffix": "end",
            "template": "{{ .Prompt }}",
            "width": 9,
        },
        ollama_chat,
        ollama_chat.PARAMS,
    ),
}
# What asks for nothing without another field.
WITH = {"tool_choice": "tools", "parallel_tool_calls": "tools"}


def effect(form: Format, field: str, target: Any, params: tuple[str, ...]) -> str:
    """What becomes of a field on its way to an upstream."""
    needed = WITH.get(field, "")
    least = {**form.least, **_field(form, needed)} if needed in form.values else form.least
    fit = Fit("It", dialect=getattr(target, "NAME", "gemini"), params=params, supports=KINDS)
    before = form.decode(json.dumps(least).encode())
    try:
        after = form.decode(json.dumps({**least, **_field(form, field)}).encode())
        told, ignored = fit.of(after)
        sent, plain = target.encode_request(told), target.encode_request(fit.of(before)[0])
    except InvalidRequest:
        return "refused"
    if sent != plain:
        return "told"
    if ignored:
        return "left out"
    rest = replace(after, messages=before.messages, params=before.params, extra=before.extra)
    return "Modelway" if rest != before else "not needed"


def _field(form: Format, field: str) -> dict[str, Any]:
    outer, _, inner = field.partition(".")
    value = form.values[field]
    return {outer: {inner: value}} if inner else {field: value}


def table(path: str) -> str:
    """The rows of a format, as they must stand in the document."""
    form = FORMATS[path]
    rows = []
    for field in form.values:
        other = effect(form, field, gemini, gemini.PARAMS)
        own = effect(form, field, form.own, form.own_params) if form.own else ""
        rows.append(f"| `{field}` | {own} | {other} |" if form.own else f"| `{field}` | {other} |")
    return "\n".join(rows)


@pytest.mark.parametrize("path", FORMATS)
def test_every_field_does_what_the_document_says(path: str) -> None:
    section = re.search(
        rf"^## `POST {re.escape(path)}`\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    assert section is not None
    rows = re.findall(r"^\| `.*$", section[1], re.MULTILINE)
    assert rows == table(path).split("\n")


def outer(values: dict[str, Any]) -> set[str]:
    return {name.partition(".")[0] for name in values}


@pytest.mark.slow
def test_every_published_field_of_openai_s_is_in_the_tables() -> None:
    pytest.importorskip("openai")
    from openai.types import completion_create_params as old
    from openai.types.chat import completion_create_params as chat
    from openai.types.responses import response_create_params as responses

    assert not set(get_type_hints(chat.CompletionCreateParamsBase)) - outer(CHAT)
    assert not set(get_type_hints(old.CompletionCreateParamsBase)) - outer(COMPLETIONS)
    assert not set(get_type_hints(responses.ResponseCreateParamsBase)) - outer(RESPONSES)


@pytest.mark.slow
def test_every_published_field_of_anthropic_s_is_in_the_table() -> None:
    pytest.importorskip("anthropic")
    from anthropic.types.beta import message_create_params as messages

    published = set(get_type_hints(messages.MessageCreateParamsBase)) - {"betas"}
    assert not published - MESSAGES.keys()


@pytest.mark.slow
def test_every_published_field_of_ollama_s_is_in_the_tables() -> None:
    ollama = pytest.importorskip("ollama._types")
    assert not set(ollama.ChatRequest.model_fields) - outer(FORMATS["/api/chat"].values)
    assert not set(ollama.GenerateRequest.model_fields) - outer(FORMATS["/api/generate"].values)

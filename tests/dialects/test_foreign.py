"""What a caller of one format may say to an upstream of another: left out in silence, or refused by name."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from modelway.dialects import anthropic_messages, gemini, ollama_chat, openai_chat
from modelway.dialects.foreign import refuse_foreign_fields, told
from modelway.errors import InvalidRequest
from modelway.providers.bedrock import asking as bedrock
from modelway.types import ChatRequest, Message, Params

ENCODERS: dict[str, Callable[[ChatRequest], bytes]] = {
    "openai_chat": openai_chat.encode_request,
    "anthropic_messages": anthropic_messages.encode_request,
    "gemini": gemini.encode_request,
    "ollama_chat": ollama_chat.encode_request,
    "bedrock": bedrock.encode_request,
}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
LOOK = {"name": "look", "input_schema": {"type": "object"}}


def ask(dialect: str = "openai_chat", **extra: Any) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content="Hi"),), dialect=dialect, extra=extra)


@pytest.mark.parametrize(
    ("dialect", "name", "value"),
    [
        ("openai_chat", "user", "ada"),
        ("openai_chat", "logprobs", False),
        ("openai_chat", "logit_bias", {}),
        ("openai_chat", "modalities", ["text"]),
        ("openai_chat", "tools", [{"type": "function", "function": {"name": "look"}}]),
        ("openai_chat", "anything", None),
        ("ollama_chat", "keep_alive", "5m"),
        ("ollama_chat", "think", True),
        ("ollama_chat", "options", {"num_ctx": 9000, "top_k": 0, "mirostat": 0, "repeat_penalty": 1.0}),
        ("anthropic_messages", "thinking", {"type": "adaptive"}),
        ("anthropic_messages", "output_config", {"effort": "high"}),
        ("anthropic_messages", "context_management", {"edits": [{"type": "clear_thinking_20251015"}]}),
        ("anthropic_messages", "tools", [{"type": "custom", **LOOK, "cache_control": {"type": "ephemeral"}}]),
        ("anthropic_messages", "anthropic_beta", ["context-1m-2025-08-07"]),
    ],
)
def test_what_says_nothing_about_the_answer_passes(dialect: str, name: str, value: Any) -> None:
    refuse_foreign_fields(ask(dialect, **{name: value}), "gemini", "Gemini")


@pytest.mark.parametrize(
    ("dialect", "extra", "named"),
    [
        ("openai_chat", {"logprobs": True}, "logprobs"),
        ("openai_chat", {"logit_bias": {"1": 2}}, "logit_bias"),
        ("openai_chat", {"modalities": ["text", "audio"]}, "modalities"),
        ("openai_chat", {"web_search_options": {}}, "web_search_options"),
        ("openai_chat", {"thinking": {"type": "disabled"}}, "thinking"),
        ("openai_chat", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ("ollama_chat", {"options": {"num_ctx": 9000, "mirostat": 1}}, "options.mirostat"),
        ("ollama_generate", {"options": {"top_k": 40}}, "options.top_k"),
        ("anthropic_messages", {"top_k": 40}, "top_k"),
        ("anthropic_messages", {"tools": [LOOK, {**SEARCH}]}, "tools[1].type"),
        (
            "anthropic_messages",
            {"tools": [{"name": "web_search", "max_uses": 3, "type": "web_search_20250305"}]},
            "tools[0].type",
        ),
        (
            "anthropic_messages",
            {"tools": [{**LOOK, "allowed_callers": ["code_execution_20250825"]}]},
            "tools[0].allowed_callers",
        ),
        ("anthropic_messages", {"output_config": {"task_budget": {"total": 9}}}, "output_config.task_budget"),
        ("anthropic_messages", {"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_its_name(
    dialect: str, extra: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        refuse_foreign_fields(ask(dialect, **extra), "gemini", "Gemini")
    assert caught.value.param == named
    assert f"`{named}`" in caught.value.message


@pytest.mark.parametrize("upstream", ENCODERS)
def test_every_upstream_of_another_format_refuses_the_same(upstream: str) -> None:
    for request in (ask("anthropic_messages", top_k=40), ask("ollama_chat", options={"top_k": 40})):
        if request.dialect != upstream:
            with pytest.raises(InvalidRequest, match="top_k"):
                ENCODERS[upstream](request)


@pytest.mark.parametrize("upstream", ENCODERS)
def test_thinking_that_is_off_by_habit_keeps_no_model_from_answering(upstream: str) -> None:
    body = {"model": "gemini-3-pro", "messages": [{"role": "user", "content": "Hi"}]}
    claude = anthropic_messages.decode_request(
        msgspec.json.encode({**body, "thinking": {"type": "disabled"}})
    )
    llama = ollama_chat.decode_request(msgspec.json.encode({**body, "think": False}))
    assert claude.params.reasoning_effort == llama.params.reasoning_effort == "none"
    for request in (claude, llama):
        assert b'"none"' not in ENCODERS[upstream](request)


@pytest.mark.parametrize(("model", "told"), [("gemini-3-pro", b'"XHIGH"'), ("gemini-2.5-pro", b"24576")])
def test_as_much_thinking_as_there_is_can_be_asked_of_gemini(model: str, told: bytes) -> None:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "output_config": {"effort": "max"},
    }
    assert told in gemini.encode_request(anthropic_messages.decode_request(msgspec.json.encode(body)))


def test_who_insists_that_a_model_must_not_think_is_told_that_it_must() -> None:
    request = msgspec.structs.replace(ask(), model="gemini-3-pro", params=Params(reasoning_effort="none"))
    with pytest.raises(InvalidRequest, match="thinking"):
        gemini.encode_request(request)


def test_openai_s_other_format_says_how_verbose_to_be() -> None:
    body = msgspec.json.decode(openai_chat.encode_request(ask("openai_responses", verbosity="low")))
    assert body["verbosity"] == "low"


def test_an_upstream_of_the_same_dialect_is_told_everything() -> None:
    refuse_foreign_fields(ask("gemini", logprobs=True), "gemini", "Gemini")


@pytest.mark.parametrize("field", ["audio", "function_call"])
def test_what_a_message_says_in_its_own_dialect_only_is_refused(field: str) -> None:
    message = Message(role="assistant", extra={"openai_chat": {field: {"id": "1"}}})
    with pytest.raises(InvalidRequest, match=field):
        told(ChatRequest(messages=(message,), dialect="openai_chat"), "gemini", "Gemini")


ANTHROPIC: dict[str, Any] = {"stream": False, "max_tokens": 9}


def from_anthropic(*turns: dict[str, Any]) -> ChatRequest:
    return anthropic_messages.decode_request(msgspec.json.encode({**ANTHROPIC, "messages": turns}))


@pytest.mark.parametrize("dialect", ["openai_chat", "gemini", "ollama_chat", "Bedrock"])
@pytest.mark.parametrize(
    ("turn", "lost"),
    [
        (
            {"role": "assistant", "content": [{"type": "server_tool_use", "id": "1", "name": "web_search"}]},
            "server_tool_use",
        ),
        ({"role": "assistant", "content": [{"type": "image", "source": {}}]}, "image"),
        (
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "context": "the contract",
                        "source": {"type": "text", "media_type": "text/plain", "data": "a"},
                    }
                ],
            },
            "context",
        ),
    ],
)
def test_what_only_anthropic_can_read_is_refused_elsewhere(
    turn: dict[str, Any], lost: str, dialect: str
) -> None:
    request = from_anthropic({"role": "user", "content": "hi"}, turn)
    with pytest.raises(InvalidRequest, match=f"`{lost}`"):
        told(request, dialect, "X")
    assert told(request, "anthropic_messages", "X") is request


@pytest.mark.parametrize("content", ["not found", [{"type": "text", "text": "not found"}], ""])
def test_that_a_tool_failed_is_told_in_words_where_there_is_no_sign_for_it(content: Any) -> None:
    result = {"type": "tool_result", "tool_use_id": "1", "is_error": True, "content": content}
    request = from_anthropic({"role": "user", "content": [result]})
    text = "" if content == "" else "not found"
    assert told(request, "openai_chat", "X").messages[0].text == f"Error: {text}"
    assert told(request, "anthropic_messages", "X") is request

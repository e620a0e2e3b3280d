"""What the messages of one format say to an upstream of another: told in its words, or refused by name."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from modelway.dialects import anthropic_messages, gemini, ollama_chat, openai_chat
from modelway.dialects.foreign import told
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


def ask(dialect: str = "openai_chat", **extra: Any) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content="Hi"),), dialect=dialect, extra=extra)


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

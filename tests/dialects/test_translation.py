"""What is carried from one dialect to another, and what is refused."""

from typing import Any

import pytest

from modelway.dialects.translation import (
    Inline,
    called_names,
    inline,
    refuse_foreign_fields,
    text_with_refusal,
)
from modelway.errors import InvalidRequest
from modelway.types import ChatRequest, Message, ToolCall


def ask(dialect: str = "openai_chat", **extra: Any) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content="Hi"),), dialect=dialect, extra=extra)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("data:image/png;base64,aGk=", Inline("image/png", "aGk=")),
        ("DATA:Image/PNG;charset=x;BASE64,aGk%3D", Inline("image/png", "aGk=")),
        ("data:,hi%21", Inline("text/plain", "aGkh")),
        ("data:image/png;base64,***", None),
        ("data:image/png;base64,aGk=%C3%BC", None),
        ("data:image/png", None),
        ("https://example.org/cat.png", None),
    ],
)
def test_a_data_url_is_taken_apart(url: str, found: Inline | None) -> None:
    assert inline(url) == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user", "ada"),
        ("logprobs", False),
        ("logit_bias", {}),
        ("modalities", ["text"]),
        ("keep_alive", "5m"),
        ("think", True),
        ("options", {"num_ctx": 9000}),
        ("anything", None),
    ],
)
def test_what_says_nothing_about_the_answer_passes(name: str, value: Any) -> None:
    refuse_foreign_fields(ask(**{name: value}), "gemini", "Gemini")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logprobs", True),
        ("logit_bias", {"1": 2}),
        ("modalities", ["text", "audio"]),
        ("web_search_options", {}),
        ("options", {"num_ctx": 9000, "mirostat": 1}),
        ("tools", [{"type": "web_search"}]),
    ],
)
def test_what_would_change_the_answer_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=name) as caught:
        refuse_foreign_fields(ask(**{name: value}), "gemini", "Gemini")
    assert caught.value.param == name


def test_an_upstream_of_the_same_dialect_is_told_everything() -> None:
    refuse_foreign_fields(ask("gemini", logprobs=True), "gemini", "Gemini")


@pytest.mark.parametrize("field", ["audio", "function_call"])
def test_what_a_message_says_in_its_own_dialect_only_is_refused(field: str) -> None:
    message = Message(role="assistant", extra={"openai_chat": {field: {"id": "1"}}})
    with pytest.raises(InvalidRequest, match=field):
        refuse_foreign_fields(ChatRequest(messages=(message,), dialect="openai_chat"), "gemini", "Gemini")


@pytest.mark.parametrize("extra", [{"refusal": "No."}, {"openai_chat": {"refusal": "No."}}])
def test_a_refusal_is_part_of_what_was_said(extra: dict[str, Any]) -> None:
    assert text_with_refusal(Message(role="assistant", content="Well. ", extra=extra)) == "Well. No."


def test_a_result_has_the_name_of_the_last_call_of_its_id() -> None:
    messages = [
        Message(role="assistant", tool_calls=(ToolCall("1", "old"),)),
        Message(role="tool", tool_call_id="1"),
        Message(role="assistant", tool_calls=(ToolCall("1", "new"),)),
        Message(role="tool", tool_call_id="1"),
    ]
    assert called_names(messages) == ["", "old", "", "new"]

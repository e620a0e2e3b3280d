"""What is carried from one dialect to another, and what is refused."""

from typing import Any

import pytest

from modelway.dialects.translation import (
    Inline,
    called_names,
    inline,
    text_with_refusal,
)
from modelway.types import Message, ToolCall


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

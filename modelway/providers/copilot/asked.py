"""Turns a request into what Copilot can be told: one message, and what goes with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from msgspec import Struct

from modelway.errors import InvalidRequest
from modelway.types import ChatRequest, ImagePart, Message, TextPart

_SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}


class Asked(Struct, frozen=True):
    """A request, taken apart: the prompt with its images, the instructions, and what was said before.

    `unseen` is what the upstream's own conversation does not know yet, the prompt aside.
    """

    prompt: str
    images: tuple[ImagePart, ...]
    instructions: str
    history: tuple[Message, ...]
    unseen: tuple[Message, ...]

    @property
    def instructions_hash(self) -> str:
        """Tells whether the upstream's conversation was held under the same instructions."""
        return hashlib.sha256(self.instructions.encode()).hexdigest()

    def earlier(self, *, is_known: bool) -> list[str]:
        """What must be told of before: all of it where the upstream does not know the conversation."""
        return [_as_text(message) for message in (self.unseen if is_known else self.history)]


def read(request: ChatRequest, *, takes_images: bool) -> Asked:
    """Take a request apart; InvalidRequest where it asks for what no door can do."""
    _refuse_what_is_not_there(request)
    spoken = _spoken(request.messages)
    if not spoken or spoken[-1].role != "user":
        raise InvalidRequest("the last message must be the user's for Copilot", param="messages")
    prompt = spoken[-1]
    unseen = _spoken(request.messages[request.new_from :])[:-1]
    images = _images(prompt) if takes_images else ()
    for message in unseen:
        _refuse_more_than_text(message)
    if len(images) != _parts_that_are_not_text(prompt):
        _refuse_more_than_text(prompt, "text and images" if takes_images else "text")
    if not prompt.text.strip() and not images:
        raise InvalidRequest("the last message has no text", param="messages")
    return Asked(prompt.text, images, _instructions(request.messages), spoken[:-1], unseen)


def _refuse_what_is_not_there(request: ChatRequest) -> None:
    params = request.params
    if params.tools:
        raise InvalidRequest(
            "Copilot cannot call tools", hint="leave `tools` out", param="tools", code="unsupported_tools"
        )
    if params.response_format is not None and params.response_format.kind != "text":
        raise InvalidRequest("Copilot answers in plain text only", param="response_format")
    if params.n is not None and params.n > 1:
        raise InvalidRequest("Copilot gives one answer at a time", hint="ask for n = 1", param="n")


def _refuse_more_than_text(message: Message, taken: str = "text") -> None:
    if _parts_that_are_not_text(message):
        raise InvalidRequest(
            f"this door to Copilot takes {taken} only", param="messages", code="unsupported_content"
        )


def _images(message: Message) -> tuple[ImagePart, ...]:
    content = message.content
    return () if isinstance(content, str) else tuple(part for part in content if isinstance(part, ImagePart))


def _spoken(messages: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(message for message in messages if message.role not in ("system", "developer"))


def _instructions(messages: Iterable[Message]) -> str:
    return "\n\n".join(message.text for message in messages if message.role in ("system", "developer"))


def _as_text(message: Message) -> str:
    # Another provider may have been shown what this one cannot be; it is told so, rather than left out.
    note = " [with something that is not text]" if _parts_that_are_not_text(message) else ""
    calls = "".join(f" [calls {call.name} with {call.arguments}]" for call in message.tool_calls)
    return f"{_SPEAKERS[message.role]}: {message.text}{note}{calls}"


def _parts_that_are_not_text(message: Message) -> int:
    if isinstance(message.content, str):
        return 0
    return sum(not isinstance(part, TextPart) for part in message.content)

"""Turns a request into what Copilot can be told: one message, and texts that go with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from modelway.errors import InvalidRequest, ModelNotFound
from modelway.types import ChatRequest, Message, TextPart

MODEL = "m365-copilot"

_SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}


class Asked(Struct, frozen=True):
    """A request, taken apart. `instructions` are sent with every turn: the upstream has no such role."""

    prompt: str
    instructions: str
    history: tuple[Message, ...]
    unseen: tuple[Message, ...]

    @property
    def instructions_hash(self) -> str:
        """Tells whether the upstream's conversation was held under the same instructions."""
        return hashlib.sha256(self.instructions.encode()).hexdigest()

    def turn(self, *, is_known: bool, time_zone: str, web: bool) -> dict[str, Any]:
        """The body of a turn; with all of the history where the upstream does not know it."""
        earlier = self.unseen if is_known else self.history
        context = [{"text": self.instructions, "description": "Instructions"}] if self.instructions else []
        context += [{"text": _as_text(message), "description": "Earlier conversation"} for message in earlier]
        turn: dict[str, Any] = {
            "message": {"text": self.prompt},
            "locationHint": {"timeZone": time_zone},
        }
        if context:
            turn["additionalContext"] = context
        if not web:
            # It is on by default, and turned off for one turn only.
            turn["contextualResources"] = {"webContext": {"isWebEnabled": False}}
        return turn


def read(request: ChatRequest) -> Asked:
    """Take a request apart; InvalidRequest where it asks for what the upstream cannot do."""
    _refuse_what_is_not_there(request)
    spoken = _spoken(request.messages)
    if not spoken or spoken[-1].role != "user":
        raise InvalidRequest("the last message must be the user's for Copilot", param="messages")
    prompt = spoken[-1]
    unseen = _spoken(request.messages[request.new_from :])[:-1]
    for message in (*unseen, prompt):
        _refuse_parts_that_are_not_text(message)
    if not prompt.text.strip():
        raise InvalidRequest("the last message has no text", param="messages")
    return Asked(prompt.text, _instructions(request.messages), spoken[:-1], unseen)


def _refuse_what_is_not_there(request: ChatRequest) -> None:
    params = request.params
    if request.model not in ("", MODEL):
        raise ModelNotFound(
            "Copilot does not let its callers choose a model",
            hint=f'leave `model` out, or name "{MODEL}"',
            param="model",
            failover=True,
        )
    if params.tools:
        raise InvalidRequest("Copilot cannot call tools", hint="leave `tools` out", param="tools")
    if params.response_format is not None and params.response_format.kind != "text":
        raise InvalidRequest("Copilot answers in plain text only", param="response_format")
    if params.n is not None and params.n > 1:
        raise InvalidRequest("Copilot gives one answer at a time", hint="ask for n = 1", param="n")


def _refuse_parts_that_are_not_text(message: Message) -> None:
    if not _is_text(message):
        raise InvalidRequest("Copilot takes text only, no images or files", param="messages")


def _spoken(messages: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(message for message in messages if message.role not in ("system", "developer"))


def _instructions(messages: Iterable[Message]) -> str:
    return "\n\n".join(message.text for message in messages if message.role in ("system", "developer"))


def _as_text(message: Message) -> str:
    # Another provider may have been shown what this one cannot be; it is told so, rather than left out.
    note = "" if _is_text(message) else " [with something that is not text]"
    calls = "".join(f" [calls {call.name} with {call.arguments}]" for call in message.tool_calls)
    return f"{_SPEAKERS[message.role]}: {message.text}{note}{calls}"


def _is_text(message: Message) -> bool:
    return isinstance(message.content, str) or all(isinstance(part, TextPart) for part in message.content)

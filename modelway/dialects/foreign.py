"""What the messages of a caller say in its own format, as an upstream of another one can be told it."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from modelway.errors import InvalidRequest
from modelway.types import ChatRequest, FilePart, Message, TextPart

_HAS_NAMES = "openai_chat"
# Anthropic's blocks of an assistant's turn that other formats have words for, or need not know.
_TOLD_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
# These programs turn thinking off in every request, whatever the model.
_OFF_BY_HABIT = frozenset({"anthropic_messages", "ollama_chat", "ollama_generate"})


def told(request: ChatRequest, dialect: str, upstream: str) -> ChatRequest:
    """The request with its messages as an upstream of this dialect can be told them.

    That a tool failed becomes a word in its result. InvalidRequest for what has no words here: a name, a
    sound, an old kind of call, and blocks that only the vendor of another format can read.
    """
    messages = tuple([_told(message, dialect, upstream) for message in request.messages])
    return request if messages == request.messages else replace(request, messages=messages)


def is_off_by_habit(request: ChatRequest) -> bool:
    """Whether no thinking is asked for by a caller who means: if there is any. Others insist."""
    return request.params.reasoning_effort == "none" and request.dialect in _OFF_BY_HABIT


def _told(message: Message, dialect: str, upstream: str) -> Message:
    plain = isinstance(message.content, str)
    if plain and not message.extra and not message.name:
        return message
    foreign = [
        fields for home, fields in message.extra.items() if home != dialect and isinstance(fields, dict)
    ]
    lost = [name for fields in foreign for name in _lost_of_a_message(fields)]
    if message.name and message.role != "tool" and dialect != _HAS_NAMES:
        lost.append("name")
    if not plain:
        lost += [name for part in message.content for name in _lost_of_a_part(part, dialect)]
    if lost:
        raise InvalidRequest(
            f"{upstream} cannot be told `{lost[0]}` of a message", param="messages", hint="leave it out"
        )
    failed = any(fields.get("is_error") is True for fields in foreign)
    return _with_failure(message) if failed else message


def _lost_of_a_message(fields: dict[str, Any]) -> list[str]:
    lost = [name for name in ("audio", "function_call") if fields.get(name)]
    blocks = fields.get("content")
    kinds = (
        [block.get("type") for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
    )
    return lost + [str(kind) for kind in kinds if kind not in _TOLD_BLOCKS]


def _lost_of_a_part(part: Any, dialect: str) -> list[str]:
    extra = part.extra.items() if isinstance(part, FilePart) else ()
    return ["context" for home, fields in extra if home != dialect and fields.get("context")]


def _with_failure(message: Message) -> Message:
    """A tool's result that says of itself that the tool failed."""
    if isinstance(message.content, str):
        return replace(message, content=f"Error: {message.content}")
    return replace(message, content=(TextPart("Error: "), *message.content))

"""Writes a conversation down: Markdown for people, JSON for machines."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

from modelway.conversations.records import Conversation
from modelway.types import Citation, FilePart, ImagePart, Message, OtherPart, TextPart

_FORMAT = "modelway.conversation.v1"
_URL_MARKS = "%:/?#[]@!$&'()*+,;=~"
_NAMES = {"user": "User", "assistant": "Assistant", "tool": "Tool", "system": "System", "developer": "System"}


def export_json(conversation: Conversation) -> bytes:
    """Everything: all branches, turns and their outcomes. `format` names the shape."""
    fields: dict[str, Any] = {"format": _FORMAT, **msgspec.structs.asdict(conversation)}
    return msgspec.json.format(msgspec.json.encode(fields), indent=2)


def import_json(exported: bytes) -> Conversation:
    """What export_json wrote; raises msgspec.ValidationError for anything else."""
    return msgspec.json.decode(exported, type=Conversation)


def export_markdown(conversation: Conversation) -> str:
    """The current branch as a document."""
    parts = [f"# {conversation.title or conversation.conversation_id}"]
    for message in (*conversation.instructions, *conversation.messages):
        parts.append(f"## {_NAMES[message.role]}")
        parts.extend(_blocks(message))
    return "\n\n".join(parts) + "\n"


def _blocks(message: Message) -> list[str]:
    blocks = [_content(message), message.extra.get("refusal", "")]
    blocks.extend(
        f"Calls `{call.name}`:\n\n{_fenced(_pretty(call.arguments), 'json')}" for call in message.tool_calls
    )
    if message.annotations:
        blocks.append("Sources:\n\n" + "\n".join(_source(source) for source in message.annotations))
    return [block for block in blocks if block]


def _source(citation: Citation) -> str:
    url = quote(citation.url, safe=_URL_MARKS)
    title = re.sub(r"([\\\[\]<>`*_])", r"\\\1", " ".join(citation.title.split()))
    return f"- [{title}](<{url}>)" if title else f"- <{url}>"


def _content(message: Message) -> str:
    if isinstance(message.content, str):
        return _fenced(message.content) if message.role == "tool" else message.content
    written = []
    for part in message.content:
        match part:
            case TextPart():
                written.append(part.text)
            case ImagePart():
                written.append("[image]" if part.url.startswith("data:") else f"[image]({part.url})")
            case FilePart():
                written.append(f"[file {part.name}]" if part.name else "[file]")
            case OtherPart():
                written.append(f"[{part.value.get('type', 'attachment')}]")
    return "\n\n".join(written)


def _pretty(arguments: str) -> str:
    try:
        return msgspec.json.format(arguments)
    except msgspec.DecodeError:
        return arguments


def _fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"

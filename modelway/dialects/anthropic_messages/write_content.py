"""Writes the messages of a request: the system's text apart, and turns that alternate."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from modelway.dialects.anthropic_messages.wire import NAME
from modelway.dialects.replay import Block, replayed
from modelway.dialects.translation import (
    arguments_object,
    inline,
    other_part_refused,
    part_refused,
    plain_id,
    text_with_refusal,
)
from modelway.types import ChatRequest, FilePart, ImagePart, Message, OtherPart, Part, TextPart

UPSTREAM = "Anthropic"
_INSTRUCTIONS = ("system", "developer")
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def system_content(messages: Sequence[Message]) -> str | list[Block]:
    """What the system says before the first turn, or elsewhere but for callers of this dialect."""
    said = [message for message in messages if message.role in _INSTRUCTIONS and not _stands_within(message)]
    if len(said) == 1 and isinstance(said[0].content, str):
        return said[0].content
    return [block for message in said for block in _instructions(message)]


def turns(request: ChatRequest) -> list[dict[str, Any]]:
    """The messages as turns: neighbours of one role are one turn, and the results of tools are the user's."""
    kept = {_call_ids(content): content for content in replayed(request)}
    written: list[dict[str, Any]] = []
    for message in request.messages:
        role, blocks = _turn(message, kept)
        if not blocks:
            continue
        if written and written[-1]["role"] == role:
            written[-1]["content"] += blocks
        else:
            written.append({"role": role, "content": list(blocks)})
    return [_shortened(turn) for turn in written]


def _turn(message: Message, kept: dict[tuple[str, ...], list[Block]]) -> tuple[str, list[Block]]:
    match message.role:
        case "system" | "developer":
            return "system", _instructions(message) if _stands_within(message) else []
        case "assistant":
            ids = tuple(call.id for call in message.tool_calls)
            return "assistant", (ids and kept.get(ids)) or _assistant(message)
        case "tool":
            return "user", [_tool_result(message)]
        case "user":
            return "user", _content(message)


def _call_ids(content: Sequence[Block]) -> tuple[str, ...]:
    """The ids of the calls among the blocks, by which a turn is known."""
    return tuple(block.get("id", "") for block in content if block.get("type") == "tool_use")


def _shortened(turn: dict[str, Any]) -> dict[str, Any]:
    match turn["content"]:
        case [{"type": "text", "text": text, **rest}] if not rest:
            return {"role": turn["role"], "content": text}
    return turn


def _stands_within(message: Message) -> bool:
    return bool(_own(message).get("within"))


def _own(message: Message) -> Block:
    """What a caller of this dialect has said of a message beyond the words that others have."""
    own: Block = message.extra.get(NAME, {})
    return own


def _instructions(message: Message) -> list[Block]:
    if any(not isinstance(part, str | TextPart) for part in message.content):
        raise part_refused("anything but text as the system's message", UPSTREAM, "send it as the user's")
    return _content(message)


def _assistant(message: Message) -> list[Block]:
    own = _own(message).get("content")
    if isinstance(own, list):
        return [block for block in own if not _is_unsigned(block)]
    if any(not isinstance(part, str | TextPart) for part in message.content):
        raise part_refused("images or files in the assistant's messages", UPSTREAM, "send them as the user's")
    text = text_with_refusal(message)
    blocks: list[Block] = [{"type": "text", "text": text}] if text.strip() else []
    for call in message.tool_calls:
        arguments = arguments_object(call.arguments, call.name)
        blocks.append({"type": "tool_use", "id": plain_id(call.id), "name": call.name, "input": arguments})
    return blocks


def _is_unsigned(block: Any) -> bool:
    """Thinking of another upstream's model, which this one would refuse."""
    return isinstance(block, dict) and block.get("type") == "thinking" and not block.get("signature")


def _tool_result(message: Message) -> Block:
    content: Any = message.content
    if not isinstance(content, str):
        content = _content(message)
    result: Block = {"type": "tool_result", "tool_use_id": plain_id(message.tool_call_id)}
    return result | ({"content": content} if content else {}) | _own(message)


def _content(message: Message) -> list[Block]:
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}] if message.content.strip() else []
    return list(_parts(message.content))


def _parts(parts: Iterable[Part]) -> Iterable[Block]:
    for part in parts:
        match part:
            case TextPart():
                if part.text.strip():  # the upstream refuses blocks without text
                    yield {"type": "text", "text": part.text, **part.extra.get(NAME, {})}
            case ImagePart():
                yield {"type": "image", "source": image_source(part.url), **part.extra.get(NAME, {})}
            case FilePart():
                yield _document(part)
            case OtherPart(dialect=dialect) if dialect == NAME:
                yield part.value
            case OtherPart():
                raise other_part_refused(part, UPSTREAM)


def image_source(url: str) -> Block:
    """Where an image is, or the image itself."""
    if url.startswith(("http://", "https://")):
        return {"type": "url", "url": url}
    found = inline(url)
    if found is None or found.media_type not in _IMAGES:
        raise part_refused("an image of this kind", UPSTREAM, "send a JPEG, PNG, GIF or WebP")
    return {"type": "base64", "media_type": found.media_type, "data": found.data}


def _document(part: FilePart) -> Block:
    title = {"title": part.name} if part.name else {}
    return {"type": "document", "source": _document_source(part), **title, **part.extra.get(NAME, {})}


def _document_source(part: FilePart) -> Block:
    if part.file_id:
        return {"type": "file", "file_id": part.file_id}
    if part.url.startswith(("http://", "https://")):
        return {"type": "url", "url": part.url}
    found = inline(part.url)
    if found is not None and found.media_type == "application/pdf":
        return {"type": "base64", "media_type": found.media_type, "data": found.data}
    if found is not None and found.media_type.startswith("text/"):
        text = base64.b64decode(found.data).decode("utf-8", "replace")
        return {"type": "text", "media_type": "text/plain", "data": text}
    raise part_refused("a file of this kind", UPSTREAM, "send a PDF or plain text")

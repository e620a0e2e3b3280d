"""Reads conversations that were exported: ours, and lists of messages as OpenAI's formats have them."""

from __future__ import annotations

from typing import Any

import msgspec

from modelway.conversations import Conversation, StoredMessage, check_importable
from modelway.dialects import openai_chat
from modelway.errors import GatewayError, InvalidRequest
from modelway.page.exporting import FORMAT
from modelway.types import Message

MOST_IMPORTED = 10_000


def read_exported(text: str) -> list[Conversation]:
    """The conversations of a file: one JSON document, or one a line.

    Raises InvalidRequest where it is neither, or where one of them could not be stored.
    """
    try:
        return [_read(_decoded(text))]
    except msgspec.DecodeError:
        pass
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or len(lines) > MOST_IMPORTED:
        raise InvalidRequest("there is no conversation in this file", param="text")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(_read(_decoded(line)))
        except msgspec.DecodeError:
            raise InvalidRequest(f"line {number} is not JSON", param="text") from None
    return found


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise InvalidRequest("the file is nested too deeply", param="text") from None


def _read(value: Any) -> Conversation:
    if isinstance(value, dict) and value.get("format") == FORMAT:
        try:
            found = msgspec.convert({k: v for k, v in value.items() if k != "format"}, Conversation)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"the conversation cannot be read: {error}", param="text") from None
        check_importable(found)
        return found
    messages = value.get("messages") if isinstance(value, dict) else value
    try:
        body = msgspec.json.encode({"model": "", "messages": messages})
        decoded = openai_chat.decode_request(body).messages
    except GatewayError as error:
        raise InvalidRequest(f"the conversation cannot be read: {error.message}", param="text") from None
    title = value.get("title", "") if isinstance(value, dict) else ""
    return _of_messages(decoded, title if isinstance(title, str) else "")


def _of_messages(messages: tuple[Message, ...], title: str) -> Conversation:
    """A conversation without turns: one message after the other."""
    said = tuple(one for one in messages if one.role not in ("system", "developer"))
    told = tuple(one for one in messages if one.role in ("system", "developer"))
    nodes = tuple(
        StoredMessage(id=f"msg_{n + 1:x}", parent=f"msg_{n:x}" if n else "", turn_id="", message=message)
        for n, message in enumerate(said)
    )
    first = next((one.text for one in said if one.role == "user"), "")
    return Conversation(
        conversation_id="",
        title=title or " ".join(first.split())[:60],
        created_at=0,
        updated_at=0,
        instructions=told,
        messages=said,
        turns=(),
        branches=(),
        tree=nodes,
        head=nodes[-1].id if nodes else "",
    )

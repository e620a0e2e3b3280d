"""Reads the messages of a caller's request: blocks become messages, parts and calls."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from modelway.dialects.anthropic_messages.wire import NAME
from modelway.dialects.reading import Fields, check, items, take, wrong
from modelway.errors import InvalidRequest
from modelway.types import FilePart, ImagePart, Message, OtherPart, Part, TextPart, ToolCall

MAX_MESSAGES = 20_000
_ROLES = ("user", "assistant", "system")


def system_messages(fields: Fields) -> tuple[Message, ...]:
    """The system's message, which stands apart in this format."""
    value = fields.pop("system", None)
    if not value:
        return ()
    return (Message(role="system", content=_text_content(value, "system")),)


def messages(fields: Fields) -> tuple[Message, ...]:
    """The turns; a user's turn with results of tools becomes one message for each result and the rest."""
    value = fields.pop("messages", None)
    if not value:
        raise InvalidRequest("`messages` is missing", param="messages", hint="send at least one message")
    if isinstance(value, list) and len(value) > MAX_MESSAGES:
        raise wrong("messages", f"an array of at most {MAX_MESSAGES} messages")
    return tuple(message for turn in items(value, "messages", _turn) for message in turn)


def _turn(value: Any, path: str) -> list[Message]:
    fields = check(value, dict, path)
    role = fields.get("role")
    if role not in _ROLES:
        raise wrong(f"{path}.role", "one of " + ", ".join(_ROLES))
    content, path = fields.get("content"), f"{path}.content"
    if role == "system":
        text = _text_content(content, path)
        return [Message(role="system", content=text, extra={NAME: {"within": True}})]
    if isinstance(content, str):
        return [Message(role=role, content=content)]
    if not isinstance(content, list):
        raise wrong(path, "a string or an array of blocks")
    return [_assistant(content, path)] if role == "assistant" else _user(content, path)


def _user(content: list[Any], path: str) -> list[Message]:
    found: list[Message] = []
    parts: list[Part] = []

    def speak() -> None:
        if parts:
            found.append(Message(role="user", content=_plain(parts)))
            parts.clear()

    for position, block in enumerate(content):
        at = f"{path}[{position}]"
        if isinstance(block, dict) and block.get("type") == "tool_result":
            speak()
            found.append(_tool_result(block, at))
        else:
            parts.append(_part(block, at))
    speak()
    return found or [Message(role="user")]


def _tool_result(block: Fields, path: str) -> Message:
    fields = {name: value for name, value in block.items() if name != "type"}
    id = check(fields.pop("tool_use_id", None), str, f"{path}.tool_use_id")
    value = fields.pop("content", None)
    content = "" if value is None else _content(value, f"{path}.content")
    return Message(role="tool", content=content, tool_call_id=id, extra={NAME: fields} if fields else {})


def _content(value: Any, path: str) -> str | tuple[Part, ...]:
    if isinstance(value, str):
        return value
    return _plain(list(items(value, path, _part)))


def _text_content(value: Any, path: str) -> str | tuple[Part, ...]:
    content = _content(value, path)
    if any(not isinstance(part, str | TextPart) for part in content):
        raise wrong(path, "a string or an array of text blocks")
    return content


def _plain(parts: list[Part]) -> str | tuple[Part, ...]:
    match parts:
        case [TextPart(text=text, extra=extra)] if not extra:
            return text
    return tuple(parts)


def _part(value: Any, path: str) -> Part:
    fields = dict(check(value, dict, path))
    kind = check(fields.pop("type", None), str, f"{path}.type")
    if kind == "text":
        text = check(fields.pop("text", None), str, f"{path}.text")
        return TextPart(text, extra={NAME: fields} if fields else {})
    source = fields.get("source")
    part = _of_source(kind, dict(source), fields, path) if isinstance(source, dict) else None
    return part or OtherPart(NAME, check(value, dict, path))


def _of_source(kind: str, source: Fields, fields: Fields, path: str) -> Part | None:
    """An image or a document, if it is given in a way that other formats have, too."""
    own = {name: value for name, value in fields.items() if name != "source"}
    url = _url(source, f"{path}.source")
    if kind == "image" and url:
        return ImagePart(url, extra={NAME: own} if own else {})
    if kind != "document":
        return None
    title = take(own, "title", str, "", f"{path}.")
    extra = {NAME: own} if own else {}
    if source.get("type") == "file":
        file_id = check(source.get("file_id"), str, f"{path}.source.file_id")
        return FilePart(file_id=file_id, name=title, extra=extra)
    media_type = source.get("media_type", "")
    return FilePart(url, name=title, media_type=media_type, extra=extra) if url else None


def _url(source: Fields, path: str) -> str:
    """The URL of a source; "" where it has none."""
    match source.get("type"):
        case "url":
            return check(source.get("url"), str, f"{path}.url")
        case "base64":
            media_type = check(source.get("media_type"), str, f"{path}.media_type")
            return f"data:{media_type};base64,{check(source.get('data'), str, f'{path}.data')}"
        case "text":
            data = check(source.get("data"), str, f"{path}.data").encode("utf-8", "replace")
            return f"data:text/plain;base64,{base64.b64encode(data).decode()}"
    return ""


def _assistant(content: list[Any], path: str) -> Message:
    """The assistant's turn; what the waist has no words for (signatures, tools of the upstream) is kept."""
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    plain = True
    for position, value in enumerate(content):
        at = f"{path}[{position}]"
        block = check(value, dict, at)
        match check(block.get("type"), str, f"{at}.type"):
            case "text":
                text.append(check(block.get("text"), str, f"{at}.text"))
                plain = plain and not reasoning and not calls and len(block) == 2 and len(text) == 1
            case "thinking":
                reasoning.append(check(block.get("thinking"), str, f"{at}.thinking"))
                plain = False
            case "tool_use":
                calls.append(_call(block, at))
                plain = plain and len(block) == 4
            case _:
                plain = False
    return Message(
        role="assistant",
        content="".join(text),
        reasoning="".join(reasoning),
        tool_calls=tuple(calls),
        extra={} if plain else {NAME: {"content": content}},
    )


def _call(block: Fields, path: str) -> ToolCall:
    return ToolCall(
        id=check(block.get("id"), str, f"{path}.id"),
        name=check(block.get("name"), str, f"{path}.name"),
        arguments=msgspec.json.encode(check(block.get("input"), dict, f"{path}.input")).decode(),
    )

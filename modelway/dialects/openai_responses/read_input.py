"""Reads the items that a caller sends: several of them may be one message of ours."""

from __future__ import annotations

import re
import zlib
from base64 import urlsafe_b64decode
from typing import Any, cast

from modelway.dialects.openai_responses.custom import arguments_of
from modelway.dialects.openai_responses.wire import full_name
from modelway.dialects.reading import Fields, check, items, wrong
from modelway.errors import InvalidRequest
from modelway.types import FilePart, ImagePart, Message, Part, Role, TextPart, ToolCall

MAX_ITEMS = 20_000
MAX_SUMMARY = 1_000_000
# The item that stands for what was said before, and how what Modelway has written of it begins.
KIND = "compaction"
MARK = "mw1_"

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text")
_ITEMS = (
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
    "compaction",
)
_DETAILS = ("auto", "low", "high", "original")

_is_url = re.compile(r"(?:data|https?):").match


def read_input(value: Any) -> tuple[Message, ...]:
    """The messages of `input`, a string or an array of items."""
    if value is None or value in ("", []):
        raise InvalidRequest("`input` is missing", param="input", hint="send a string or at least one item")
    if isinstance(value, str):
        return (Message(role="user", content=value),)
    if not isinstance(value, list):
        raise wrong("input", "a string or an array of items")
    return read_items(value, "input")


def read_items(value: list[Any], path: str) -> tuple[Message, ...]:
    """The messages of an array of items."""
    if len(value) > MAX_ITEMS:
        raise wrong(path, f"an array of at most {MAX_ITEMS} items")
    gathered = _Gathered()
    items(value, path, gathered.add)
    return gathered.close()


class _Gathered:
    """Messages out of items. What a model thinks, says and calls in this order is one message."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._reasoning: list[str] = []
        self._said: tuple[str, str] | None = None
        self._calls: list[ToolCall] = []

    def add(self, value: Any, path: str) -> None:
        """Take the next item."""
        item = check(value, dict, path)
        kind = item.get("type", "message" if "role" in item else None)
        match kind:
            case "message":
                self._message(item, path)
            case "function_call":
                self._calls.append(_call(item, path))
            case "custom_tool_call":
                arguments = arguments_of(check(item.get("input"), str, f"{path}.input"))
                self._calls.append(_call({**item, "arguments": arguments}, path))
            case "function_call_output" | "custom_tool_call_output":
                self._flush()
                self._messages.append(_output(item, path))
            case "reasoning":
                if self._said is not None or self._calls:
                    self._flush()
                self._reasoning.append(_thoughts(item, path))
            case "compaction":
                self._flush()
                self._messages.append(_summary(item, path))
            case "item_reference":
                raise InvalidRequest(
                    f"`{path}` refers to an item that is elsewhere",
                    param=path,
                    hint="send the item itself, or `previous_response_id` instead of items",
                )
            case _:
                raise wrong(f"{path}.type", "one of " + ", ".join(_ITEMS))

    def close(self) -> tuple[Message, ...]:
        """All messages."""
        self._flush()
        return tuple(self._messages)

    def _message(self, item: Fields, path: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise wrong(f"{path}.role", "one of " + ", ".join(_ROLES))
        content = item.get("content")
        if role == "assistant":
            if self._said is not None or self._calls:
                self._flush()
            self._said = _said(content, f"{path}.content")
            return
        self._flush()
        self._messages.append(Message(role=cast("Role", role), content=_content(content, f"{path}.content")))

    def _flush(self) -> None:
        """End the model's message that is under way."""
        thoughts = "".join(self._reasoning)
        text, refusal = self._said or ("", "")
        if thoughts or self._said is not None or self._calls:
            self._messages.append(
                Message(
                    role="assistant",
                    content=text,
                    reasoning=thoughts,
                    tool_calls=tuple(self._calls),
                    extra={"refusal": refusal} if refusal else {},
                )
            )
        self._reasoning, self._said, self._calls = [], None, []


def _call(item: Fields, path: str) -> ToolCall:
    return ToolCall(
        id=_text(item, "call_id", path),
        name=full_name(
            check(item.get("namespace") or "", str, f"{path}.namespace"), _text(item, "name", path)
        ),
        arguments=check(item.get("arguments"), str, f"{path}.arguments"),
    )


def _output(item: Fields, path: str) -> Message:
    id = _text(item, "call_id", path)
    return Message(role="tool", content=_content(item.get("output"), f"{path}.output"), tool_call_id=id)


def _summary(item: Fields, path: str) -> Message:
    content = _text(item, "encrypted_content", path)
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(urlsafe_b64decode(content.removeprefix(MARK)), 4 * MAX_SUMMARY).decode()
    except (ValueError, zlib.error):
        text = ""
    if not text or not content.startswith(MARK):
        raise InvalidRequest(
            f"`{path}.encrypted_content` was not written by Modelway, so that it cannot be read",
            param=f"{path}.encrypted_content",
            hint="send what POST /v1/responses/compact has given, as it is",
        )
    return Message(role="user", content=f"What was said before, summed up:\n{text}")


def _thoughts(item: Fields, path: str) -> str:
    """The text of thoughts, or else their summary; what is encrypted only its maker can read."""
    for name in ("content", "summary"):
        value = item.get(name)
        if value:
            return "".join(items(value, f"{path}.{name}", _thought))
    return ""


def _thought(value: Any, path: str) -> str:
    return check(check(value, dict, path).get("text"), str, f"{path}.text")


def _said(value: Any, path: str) -> tuple[str, str]:
    """The text of an assistant's message, and that by which it declines."""
    if isinstance(value, str):
        return value, ""
    if not isinstance(value, list):
        raise wrong(path, "a string or an array of parts")
    text, refusal = "", ""
    for position, part in enumerate(value):
        at = f"{path}[{position}]"
        fields = check(part, dict, at)
        if fields.get("type") == "refusal":
            refusal += check(fields.get("refusal"), str, f"{at}.refusal")
        elif fields.get("type") in _TEXTS:
            text += check(fields.get("text"), str, f"{at}.text")
        else:
            raise wrong(f"{at}.type", '"output_text" or "refusal"')
    return text, refusal


def _content(value: Any, path: str) -> str | tuple[Part, ...]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong(path, "a string or an array of parts")
    match items(value, path, _part):
        case (TextPart(text=text),):
            return text
        case parts:
            return parts


def _part(value: Any, path: str) -> Part:
    fields = check(value, dict, path)
    match fields.get("type"):
        case kind if kind in _TEXTS:
            return TextPart(check(fields.get("text"), str, f"{path}.text"))
        case "input_image":
            return _image(fields, path)
        case "input_file":
            return _file(fields, path)
    raise wrong(f"{path}.type", '"input_text", "input_image" or "input_file"')


def _image(fields: Fields, path: str) -> ImagePart:
    detail = fields.get("detail") or "auto"
    if detail not in _DETAILS:
        raise wrong(f"{path}.detail", "one of " + ", ".join(_DETAILS))
    if fields.get("file_id"):
        raise InvalidRequest(
            f"`{path}.file_id`: an image that was uploaded cannot be found from here",
            param=f"{path}.file_id",
            hint="send its `image_url`, a data: URL for example",
            code="unsupported_content",
        )
    return ImagePart(_url(fields, "image_url", path), "" if detail == "auto" else detail)


def _file(fields: Fields, path: str) -> FilePart:
    name = check(fields.get("filename") or "", str, f"{path}.filename")
    if fields.get("file_id"):
        return FilePart(file_id=_text(fields, "file_id", path), name=name)
    if fields.get("file_url"):
        return FilePart(_url(fields, "file_url", path), name=name)
    url = _url(fields, "file_data", path)
    media_type = url[5:].partition(",")[0].partition(";")[0] if url.startswith("data:") else ""
    return FilePart(url, name=name, media_type=media_type)


def _url(fields: Fields, name: str, path: str) -> str:
    value = _text(fields, name, path)
    if not _is_url(value):
        raise wrong(f"{path}.{name}", "an http(s) or data: URL")
    return value


def _text(fields: Fields, name: str, path: str) -> str:
    value = check(fields.get(name), str, f"{path}.{name}")
    if not value:
        raise wrong(f"{path}.{name}", "a string that is not empty")
    return value

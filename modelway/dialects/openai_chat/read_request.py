"""Reads a caller's request; every mistake in it becomes an InvalidRequest that names the field."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from modelway.dialects.openai_chat.wire import MAX_CHOICES, NAME
from modelway.errors import InvalidRequest
from modelway.types import (
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    Params,
    Part,
    ResponseFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)

MAX_MESSAGES = 20_000
MAX_NESTING = 200
MAX_NAME = 512
MAX_TOKENS = 100_000_000
MAX_STOPS = 64

_ROLES = ("system", "developer", "user", "assistant", "tool")
_TYPE_NAMES = {str: "a string", bool: "true or false", int: "an integer", dict: "an object", list: "an array"}

_IS_URL = re.compile(r"(?:data|https?):").match

T = TypeVar("T")
Fields = dict[str, Any]


def decode_request(body: bytes) -> ChatRequest:
    """A request out of the body of POST /v1/chat/completions."""
    fields = _object(body)
    options = _take(fields, "stream_options", dict, {})
    messages = _messages(fields)
    return ChatRequest(
        messages=messages,
        model=_name(fields, "model"),
        provider=_take(fields, "provider", str, ""),
        conversation_id=_take(fields, "conversation_id", str, ""),
        stream=_take(fields, "stream", bool, False),
        include_usage=_take(options, "include_usage", bool, False, "stream_options."),
        params=_params(fields),
        dialect=NAME,
        extra=fields | ({"stream_options": options} if options else {}),
    )


def _object(body: bytes) -> Fields:
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error) or "it cannot be read"
        raise InvalidRequest(f"the body is not valid JSON: {reason}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    # What can be read in one piece might still be too deep to be written again further down.
    if body.count(b"[") + body.count(b"{") > MAX_NESTING and _is_deep(value):
        raise _too_deep()
    return value


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body is nested too deeply; at most {MAX_NESTING} levels", code="invalid_json")


def _is_deep(value: Fields) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        below = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        level = [item for item in below if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _wrong(path: str, must: str) -> InvalidRequest:
    return InvalidRequest(f"`{path}` must be {must}", param=path)


def _check(value: Any, kind: type[T], path: str) -> T:
    # In Python True is an int; in JSON it is not.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(path, _TYPE_NAMES[kind])
    return value


def _take(fields: Fields, name: str, kind: type[T], default: T, prefix: str = "") -> T:
    """Remove a field and check its type; null counts as absent."""
    value = fields.pop(name, None)
    return default if value is None else _check(value, kind, prefix + name)


def _name(fields: Fields, name: str) -> str:
    """A name that travels on in headers and logs."""
    value = _take(fields, name, str, "")
    if len(value) > MAX_NAME:
        raise _wrong(name, f"a string of at most {MAX_NAME} characters")
    return value


def _items(value: Any, path: str, read: Callable[[Any, str], T]) -> tuple[T, ...]:
    return tuple(read(item, f"{path}[{position}]") for position, item in enumerate(_check(value, list, path)))


def _messages(fields: Fields) -> tuple[Message, ...]:
    value = fields.pop("messages", None)
    if value is None:
        raise InvalidRequest("`messages` is missing", param="messages", hint="send at least one message")
    if isinstance(value, list) and len(value) > MAX_MESSAGES:
        raise _wrong("messages", f"an array of at most {MAX_MESSAGES} messages")
    messages = _items(value, "messages", _message)
    if not messages:
        raise InvalidRequest("`messages` is empty", param="messages", hint="send at least one message")
    return messages


def _message(value: Any, path: str) -> Message:
    fields = dict(_check(value, dict, path))
    role = fields.pop("role", None)
    if role not in _ROLES:
        raise _wrong(f"{path}.role", "one of " + ", ".join(_ROLES))
    content = fields.pop("content", None)
    calls = fields.pop("tool_calls", None)
    call_id = _take(fields, "tool_call_id", str, "", f"{path}.")
    if role == "tool" and not call_id:
        raise _wrong(f"{path}.tool_call_id", "the id of the tool call that this message answers")
    if content is None and role != "assistant":
        raise _wrong(f"{path}.content", "a string or an array of parts")
    return Message(
        role=cast("Role", role),
        content=_content(content, f"{path}.content"),
        name=_take(fields, "name", str, "", f"{path}."),
        tool_calls=() if calls is None else _items(calls, f"{path}.tool_calls", _tool_call),
        tool_call_id=call_id,
        extra={NAME: fields} if fields else {},
    )


def _content(value: Any, path: str) -> str | tuple[Part, ...]:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _wrong(path, "a string or an array of parts")
    return _items(value, path, _part)


def _part(value: Any, path: str) -> Part:
    fields = dict(_check(value, dict, path))
    kind = _check(fields.get("type"), str, f"{path}.type")
    if kind == "text":
        text = _check(fields.pop("text", None), str, f"{path}.text")
        del fields["type"]
        return TextPart(text, extra={NAME: fields} if fields else {})
    if kind == "image_url":
        image = dict(_check(fields.pop("image_url", None), dict, f"{path}.image_url"))
        url = _check(image.pop("url", None), str, f"{path}.image_url.url")
        detail = _take(image, "detail", str, "", f"{path}.image_url.")
        del fields["type"]
        return ImagePart(url, detail, extra={NAME: fields} if fields else {})
    if kind == "file":
        return _file(fields) or OtherPart(NAME, fields)
    return OtherPart(NAME, fields)


def _file(fields: Fields) -> FilePart | None:
    """The file, if it is given as the format has it: some upstreams have ways of their own."""
    file = fields.get("file")
    if not isinstance(file, dict):
        return None
    url, file_id, name = (file.get(field) or "" for field in ("file_data", "file_id", "filename"))
    if not all(isinstance(value, str) for value in (url, file_id, name)) or bool(url) == bool(file_id):
        return None
    if url and not _IS_URL(url):
        return None
    own = {key: value for key, value in file.items() if key not in ("file_data", "file_id", "filename")}
    rest = {key: value for key, value in fields.items() if key not in ("type", "file")}
    rest |= {"file": own} if own else {}
    media_type = url[5:].partition(",")[0].partition(";")[0] if url.startswith("data:") else ""
    return FilePart(url, file_id, name, media_type, extra={NAME: rest} if rest else {})


def _tool_call(value: Any, path: str) -> ToolCall:
    fields = _check(value, dict, path)
    function = _check(fields.get("function"), dict, f"{path}.function")
    return ToolCall(
        id=_check(fields.get("id"), str, f"{path}.id"),
        name=_check(function.get("name"), str, f"{path}.function.name"),
        arguments=_check(function.get("arguments", "{}"), str, f"{path}.function.arguments"),
    )


def _params(fields: Fields) -> Params:
    old_limit = _integer(fields, "max_tokens", 1, MAX_TOKENS)
    limit = _integer(fields, "max_completion_tokens", 1, MAX_TOKENS)
    return Params(
        temperature=_number(fields, "temperature", 0, 2),
        top_p=_number(fields, "top_p", 0, 1),
        max_tokens=limit if limit is not None else old_limit,
        stop=_stop(fields),
        seed=_integer(fields, "seed", -(2**63), 2**63 - 1),
        n=_integer(fields, "n", 1, MAX_CHOICES),
        presence_penalty=_number(fields, "presence_penalty", -2, 2),
        frequency_penalty=_number(fields, "frequency_penalty", -2, 2),
        reasoning_effort=_optional(fields, "reasoning_effort", str),
        tools=_tools(fields),
        tool_choice=_tool_choice(fields),
        parallel_tool_calls=_optional(fields, "parallel_tool_calls", bool),
        response_format=_response_format(fields),
    )


def _optional(fields: Fields, name: str, kind: type[T]) -> T | None:
    value = fields.pop(name, None)
    return None if value is None else _check(value, kind, name)


def _number(fields: Fields, name: str, low: float, high: float) -> float | None:
    value = fields.pop(name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _wrong(name, f"a number from {low} to {high}")
    return value


def _integer(fields: Fields, name: str, low: int, high: int) -> int | None:
    value = fields.pop(name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(name, f"an integer from {low} to {high}")
    return value


def _stop(fields: Fields) -> tuple[str, ...] | None:
    value = fields.pop("stop", None)
    if value is None:
        return None
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise _wrong("stop", f"a string or an array of at most {MAX_STOPS} strings")
    return _items(stops, "stop", lambda item, path: _check(item, str, path))


def _tools(fields: Fields) -> tuple[Tool, ...] | None:
    value = fields.get("tools")
    if value is None:
        fields.pop("tools", None)
        return None
    tools = _items(value, "tools", _tool)
    if all(tool is not None for tool in tools):
        del fields["tools"]
    # A kind of tool that the waist has no type for stays in `extra` with its neighbours.
    return tuple(tool for tool in tools if tool is not None)


def _tool(value: Any, path: str) -> Tool | None:
    fields = _check(value, dict, path)
    if _check(fields.get("type"), str, f"{path}.type") != "function":
        return None
    function = _check(fields.get("function"), dict, f"{path}.function")
    strict = function.get("strict")
    return Tool(
        name=_check(function.get("name"), str, f"{path}.function.name"),
        description=_check(function.get("description") or "", str, f"{path}.function.description"),
        parameters=_check(function.get("parameters") or {}, dict, f"{path}.function.parameters"),
        strict=None if strict is None else _check(strict, bool, f"{path}.function.strict"),
    )


def _tool_choice(fields: Fields) -> ToolChoice | None:
    value = fields.get("tool_choice")
    if isinstance(value, dict) and value.get("type") != "function":
        return None
    fields.pop("tool_choice", None)
    if value is None:
        return None
    if value in ("auto", "none", "required"):
        return ToolChoice(mode=value)
    if isinstance(value, dict):
        function = _check(value.get("function"), dict, "tool_choice.function")
        return ToolChoice("named", _check(function.get("name"), str, "tool_choice.function.name"))
    raise _wrong("tool_choice", '"auto", "none", "required" or a named function')


def _response_format(fields: Fields) -> ResponseFormat | None:
    value = fields.pop("response_format", None)
    if value is None:
        return None
    kind = _check(value, dict, "response_format").get("type")
    if kind in ("text", "json_object"):
        return ResponseFormat(kind)
    if kind != "json_schema":
        raise _wrong("response_format.type", '"text", "json_object" or "json_schema"')
    path = "response_format.json_schema"
    wrapper = _check(value.get("json_schema"), dict, path)
    strict = wrapper.get("strict")
    return ResponseFormat(
        "json_schema",
        name=_check(wrapper.get("name") or "answer", str, f"{path}.name"),
        json_schema=_check(wrapper.get("schema") or {}, dict, f"{path}.schema"),
        strict=None if strict is None else _check(strict, bool, f"{path}.strict"),
    )

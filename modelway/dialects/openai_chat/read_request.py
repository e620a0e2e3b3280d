"""Reads a caller's request; every mistake in it becomes an InvalidRequest that names the field."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from modelway.dialects.openai_chat.wire import MAX_CHOICES, NAME
from modelway.dialects.reading import (
    Fields,
    check,
    items,
    read_object,
    take,
    take_integer,
    take_number,
    take_strings,
    wrong,
)
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
MAX_NAME = 512
MAX_TOKENS = 100_000_000
MAX_STOPS = 64

_ROLES = ("system", "developer", "user", "assistant", "tool")
# The result of a call as it was before there were tools.
_OLD_RESULT = "function"

_NO_PARAMS = Params()
_IS_URL = re.compile(r"(?:data|https?):").match

T = TypeVar("T")


class _PlainMessage(Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _PlainOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool = False


_Temperature = Annotated[int, Meta(ge=0, le=2)] | Annotated[float, Meta(ge=0, le=2)] | None
_Share = Annotated[int, Meta(ge=0, le=1)] | Annotated[float, Meta(ge=0, le=1)] | None
_Limit = Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None


class _Plain(Struct, forbid_unknown_fields=True):
    """What most requests are: texts, and how to draw the answer. Whatever is more is read field by field."""

    messages: Annotated[list[_PlainMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    model: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    provider: str = ""
    conversation_id: str = ""
    stream: bool = False
    stream_options: _PlainOptions | UnsetType = UNSET
    temperature: _Temperature = None
    top_p: _Share = None
    max_tokens: _Limit = None
    max_completion_tokens: _Limit = None


_decode_plain = msgspec.json.Decoder(_Plain).decode


def decode_request(body: bytes) -> ChatRequest:
    """A request out of the body of POST /v1/chat/completions."""
    try:
        plain = _decode_plain(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read(read_object(body))
    options = plain.stream_options
    return ChatRequest(
        messages=tuple([Message(role=one.role, content=one.content) for one in plain.messages]),
        model=plain.model,
        provider=plain.provider,
        conversation_id=plain.conversation_id,
        stream=plain.stream,
        include_usage=options is not UNSET and options.include_usage,
        params=_plain_params(plain),
        dialect=NAME,
    )


def _plain_params(plain: _Plain) -> Params:
    limit = plain.max_tokens if plain.max_completion_tokens is None else plain.max_completion_tokens
    if limit is None and plain.temperature is None and plain.top_p is None:
        return _NO_PARAMS
    return Params(temperature=plain.temperature, top_p=plain.top_p, max_tokens=limit)


def _read(fields: Fields) -> ChatRequest:
    if fields.get("functions") and fields.get("conversation_id"):
        raise InvalidRequest(
            "a conversation cannot keep a `function_call`, which has no id",
            param="functions",
            hint="send `tools` instead",
        )
    options = take(fields, "stream_options", dict, {})
    messages = _messages(fields)
    return ChatRequest(
        messages=messages,
        model=_name(fields, "model"),
        provider=take(fields, "provider", str, ""),
        conversation_id=take(fields, "conversation_id", str, ""),
        stream=take(fields, "stream", bool, False),
        include_usage=take(options, "include_usage", bool, False, "stream_options."),
        params=_params(fields),
        dialect=NAME,
        extra=fields | ({"stream_options": options} if options else {}),
    )


def _name(fields: Fields, name: str) -> str:
    """A name that travels on in headers and logs."""
    value = take(fields, name, str, "")
    if len(value) > MAX_NAME:
        raise wrong(name, f"a string of at most {MAX_NAME} characters")
    return value


def _messages(fields: Fields) -> tuple[Message, ...]:
    value = fields.pop("messages", None)
    if value is None:
        raise InvalidRequest("`messages` is missing", param="messages", hint="send at least one message")
    if isinstance(value, list) and len(value) > MAX_MESSAGES:
        raise wrong("messages", f"an array of at most {MAX_MESSAGES} messages")
    messages = items(value, "messages", _message)
    if not messages:
        raise InvalidRequest("`messages` is empty", param="messages", hint="send at least one message")
    return messages


def _message(value: Any, path: str) -> Message:
    fields = dict(check(value, dict, path))
    role = fields.pop("role", None)
    if role == _OLD_RESULT:
        return _old_result(fields, path)
    if role not in _ROLES:
        raise wrong(f"{path}.role", "one of " + ", ".join(_ROLES))
    content = fields.pop("content", None)
    calls = fields.pop("tool_calls", None)
    call_id = take(fields, "tool_call_id", str, "", f"{path}.")
    if role == "tool" and not call_id:
        raise wrong(f"{path}.tool_call_id", "the id of the tool call that this message answers")
    if content is None and role != "assistant":
        raise wrong(f"{path}.content", "a string or an array of parts")
    return Message(
        role=cast("Role", role),
        content=_content(content, f"{path}.content"),
        name=take(fields, "name", str, "", f"{path}."),
        tool_calls=() if calls is None else items(calls, f"{path}.tool_calls", _tool_call),
        tool_call_id=call_id,
        extra={NAME: fields} if fields else {},
    )


def _old_result(fields: Fields, path: str) -> Message:
    """The result of a `function_call`, which has no id; an upstream of this format is told it as it is."""
    return Message(
        role="tool",
        content=_content(fields.pop("content", None), f"{path}.content"),
        name=check(fields.pop("name", None), str, f"{path}.name"),
        extra={NAME: {"role": _OLD_RESULT, **fields}},
    )


def _content(value: Any, path: str) -> str | tuple[Part, ...]:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong(path, "a string or an array of parts")
    return items(value, path, _part)


def _part(value: Any, path: str) -> Part:
    fields = dict(check(value, dict, path))
    kind = check(fields.get("type"), str, f"{path}.type")
    if kind == "text":
        text = check(fields.pop("text", None), str, f"{path}.text")
        del fields["type"]
        return TextPart(text, extra={NAME: fields} if fields else {})
    if kind == "image_url":
        image = dict(check(fields.pop("image_url", None), dict, f"{path}.image_url"))
        url = check(image.pop("url", None), str, f"{path}.image_url.url")
        detail = take(image, "detail", str, "", f"{path}.image_url.")
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
    fields = check(value, dict, path)
    function = check(fields.get("function"), dict, f"{path}.function")
    return ToolCall(
        id=check(fields.get("id"), str, f"{path}.id"),
        name=check(function.get("name"), str, f"{path}.function.name"),
        arguments=check(function.get("arguments", "{}"), str, f"{path}.function.arguments"),
    )


def _params(fields: Fields) -> Params:
    tools = _tools(fields)
    choice, tools = _tool_choice(fields, tools)
    old_limit = take_integer(fields, "max_tokens", 1, MAX_TOKENS)
    limit = take_integer(fields, "max_completion_tokens", 1, MAX_TOKENS)
    return Params(
        temperature=take_number(fields, "temperature", 0, 2),
        top_p=take_number(fields, "top_p", 0, 1),
        max_tokens=limit if limit is not None else old_limit,
        stop=take_strings(fields, "stop", MAX_STOPS),
        seed=take_integer(fields, "seed", -(2**63), 2**63 - 1),
        n=take_integer(fields, "n", 1, MAX_CHOICES),
        presence_penalty=take_number(fields, "presence_penalty", -2, 2),
        frequency_penalty=take_number(fields, "frequency_penalty", -2, 2),
        reasoning_effort=_optional(fields, "reasoning_effort", str),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=_optional(fields, "parallel_tool_calls", bool),
        response_format=_response_format(fields),
    )


def _optional(fields: Fields, name: str, kind: type[T]) -> T | None:
    value = fields.pop(name, None)
    return None if value is None else check(value, kind, name)


def _tools(fields: Fields) -> tuple[Tool, ...] | None:
    value = fields.get("tools")
    if value is None:
        fields.pop("tools", None)
        return None
    tools = items(value, "tools", _tool)
    if all(tool is not None for tool in tools):
        del fields["tools"]
    # A kind of tool that the waist has no type for stays in `extra` with its neighbours.
    return tuple(tool for tool in tools if tool is not None)


def _tool(value: Any, path: str) -> Tool | None:
    fields = check(value, dict, path)
    if check(fields.get("type"), str, f"{path}.type") != "function":
        return None
    function = check(fields.get("function"), dict, f"{path}.function")
    strict = function.get("strict")
    return Tool(
        name=check(function.get("name"), str, f"{path}.function.name"),
        description=check(function.get("description") or "", str, f"{path}.function.description"),
        parameters=check(function.get("parameters") or {}, dict, f"{path}.function.parameters"),
        strict=None if strict is None else check(strict, bool, f"{path}.function.strict"),
    )


def _tool_choice(
    fields: Fields, tools: tuple[Tool, ...] | None
) -> tuple[ToolChoice | None, tuple[Tool, ...] | None]:
    """The choice, and the tools that it leaves; kinds that the waist has no type for stay in `extra`."""
    value = fields.get("tool_choice")
    if isinstance(value, dict) and value.get("type") != "function":
        return _allowed(fields, value, tools)
    fields.pop("tool_choice", None)
    if value is None:
        return None, tools
    if value in ("auto", "none", "required"):
        return ToolChoice(mode=value), tools
    if isinstance(value, dict):
        function = check(value.get("function"), dict, "tool_choice.function")
        return ToolChoice("named", check(function.get("name"), str, "tool_choice.function.name")), tools
    raise wrong("tool_choice", '"auto", "none", "required" or a named function')


def _allowed(
    fields: Fields, value: Fields, tools: tuple[Tool, ...] | None
) -> tuple[ToolChoice | None, tuple[Tool, ...] | None]:
    """Only some of the tools: to offer no others is the same."""
    if value.get("type") != "allowed_tools" or "tools" in fields:
        return None, tools
    path = "tool_choice.allowed_tools"
    allowed = check(value.get("allowed_tools"), dict, path)
    mode = allowed.get("mode")
    if mode not in ("auto", "required"):
        raise wrong(f"{path}.mode", '"auto" or "required"')
    names = items(allowed.get("tools"), f"{path}.tools", _allowed_name)
    del fields["tool_choice"]
    return ToolChoice(mode), tuple(tool for tool in tools or () if tool.name in names)


def _allowed_name(value: Any, path: str) -> str:
    function = check(check(value, dict, path).get("function"), dict, f"{path}.function")
    return check(function.get("name"), str, f"{path}.function.name")


def _response_format(fields: Fields) -> ResponseFormat | None:
    value = fields.pop("response_format", None)
    if value is None:
        return None
    kind = check(value, dict, "response_format").get("type")
    if kind in ("text", "json_object"):
        return ResponseFormat(kind)
    if kind != "json_schema":
        raise wrong("response_format.type", '"text", "json_object" or "json_schema"')
    path = "response_format.json_schema"
    wrapper = check(value.get("json_schema"), dict, path)
    strict = wrapper.get("strict")
    return ResponseFormat(
        "json_schema",
        name=check(wrapper.get("name") or "answer", str, f"{path}.name"),
        json_schema=check(wrapper.get("schema") or {}, dict, f"{path}.schema"),
        strict=None if strict is None else check(strict, bool, f"{path}.strict"),
    )

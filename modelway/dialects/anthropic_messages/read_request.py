"""Reads a caller's request; every mistake in it becomes an InvalidRequest that names the field."""

from __future__ import annotations

import re
from typing import Any

from modelway.dialects.anthropic_messages.read_content import messages, system_messages
from modelway.dialects.anthropic_messages.thinking import effort_asked
from modelway.dialects.anthropic_messages.wire import BETA, NAME
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
from modelway.types import ChatRequest, Params, ResponseFormat, Tool, ToolChoice

MAX_NAME = 512
MAX_TOKENS = 100_000_000
MAX_STOPS = 8192

_is_feature = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch

_MODES = {"auto": "auto", "any": "required", "tool": "named", "none": "none"}


def decode_request(body: bytes) -> ChatRequest:
    """A request out of the body of POST /v1/messages.

    Fields that other formats have no word for stay in `extra`: `thinking`, for example, beside the
    effort that it stands for.
    """
    fields = read_object(body)
    _check_features(fields)
    model = take(fields, "model", str, "")
    if len(model) > MAX_NAME:
        raise wrong("model", f"a string of at most {MAX_NAME} characters")
    return ChatRequest(
        messages=(*system_messages(fields), *messages(fields)),
        model=model,
        provider=take(fields, "provider", str, ""),
        conversation_id=take(fields, "conversation_id", str, ""),
        stream=take(fields, "stream", bool, False),
        include_usage=True,
        params=_params(fields),
        dialect=NAME,
        extra=fields,
    )


def _check_features(fields: Fields) -> None:
    """The features that are turned on: a field in the clouds' forms of this format, else a header."""
    features = fields.pop(BETA, None)
    if features is not None:
        fields[BETA] = list(items(features, BETA, _feature))


def _feature(value: Any, path: str) -> str:
    name = check(value, str, path)
    if not _is_feature(name):
        raise wrong(path, "the name of a feature")
    return name


def _params(fields: Fields) -> Params:
    choice, parallel = _tool_choice(fields)
    thinking = fields.get("thinking")
    config = take(fields, "output_config", dict, {})
    effort = effort_asked(None if thinking is None else check(thinking, dict, "thinking"), config)
    wanted = _response_format(config)
    if config:
        fields["output_config"] = config
    return Params(
        temperature=take_number(fields, "temperature", 0, 1),
        top_p=take_number(fields, "top_p", 0, 1),
        max_tokens=take_integer(fields, "max_tokens", 1, MAX_TOKENS),
        stop=take_strings(fields, "stop_sequences", MAX_STOPS, or_one=False),
        reasoning_effort=effort,
        tools=_tools(fields),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=wanted,
    )


def _tools(fields: Fields) -> tuple[Tool, ...] | None:
    value = fields.get("tools")
    if value is None:
        fields.pop("tools", None)
        return None
    tools = items(value, "tools", _tool)
    if all(tool is not None for tool, _ in tools) and not any(rest for _, rest in tools):
        del fields["tools"]
    # Tools of the upstream's own, and what else is said of one, stay in `extra` with all of their words.
    return tuple(tool for tool, _ in tools if tool is not None)


def _tool(value: Any, path: str) -> tuple[Tool | None, Fields]:
    fields = dict(check(value, dict, path))
    if take(fields, "type", str, "custom", f"{path}.") != "custom":
        return None, fields
    tool = Tool(
        name=check(fields.pop("name", None), str, f"{path}.name"),
        description=take(fields, "description", str, "", f"{path}."),
        parameters=check(fields.pop("input_schema", None), dict, f"{path}.input_schema"),
        strict=_optional_bool(fields, "strict", f"{path}."),
    )
    return tool, fields


def _tool_choice(fields: Fields) -> tuple[ToolChoice | None, bool | None]:
    value = fields.get("tool_choice")
    if value is None:
        fields.pop("tool_choice", None)
        return None, None
    choice = dict(check(value, dict, "tool_choice"))
    kind = choice.pop("type", None)
    if not isinstance(kind, str) or kind not in _MODES:
        raise wrong("tool_choice.type", "one of " + ", ".join(_MODES))
    del fields["tool_choice"]
    disabled = _optional_bool(choice, "disable_parallel_tool_use", "tool_choice.")
    parallel = None if disabled is None else not disabled
    if kind == "tool":
        return ToolChoice("named", check(choice.get("name"), str, "tool_choice.name")), parallel
    return ToolChoice({"auto": "auto", "any": "required", "none": "none"}[kind]), parallel  # type: ignore[arg-type]


def _optional_bool(fields: Fields, name: str, prefix: str) -> bool | None:
    value = fields.pop(name, None)
    return None if value is None else check(value, bool, prefix + name)


def _response_format(config: Fields) -> ResponseFormat | None:
    value = config.pop("format", None)
    if value is None:
        return None
    path = "output_config.format"
    kind = check(value, dict, path).get("type")
    if kind != "json_schema":
        raise wrong(f"{path}.type", '"json_schema"')
    schema = check(value.get("schema"), dict, f"{path}.schema")
    return ResponseFormat("json_schema", name="answer", json_schema=schema)

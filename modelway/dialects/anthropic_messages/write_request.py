"""Writes a request for Anthropic, or another upstream that speaks its format."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from modelway.dialects.anthropic_messages.thinking import thinking_fields
from modelway.dialects.anthropic_messages.wire import BETA, NAME, VERSION_SPOKEN
from modelway.dialects.anthropic_messages.write_content import UPSTREAM, system_content, turns
from modelway.dialects.foreign import told
from modelway.errors import InvalidRequest
from modelway.types import ChatRequest, Params, ResponseFormat, Tool

VERSION = "2026-10-21"
# The last version that knows of temperature and its like; newer models refuse them in this one, too.
SAMPLING_VERSION = "2023-06-01"
# The format demands a limit; every model that is offered can write as much.
DEFAULT_MAX_TOKENS = 32_000
PARAMS = (
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "reasoning_effort",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
)


# The clouds have versions of their own, which Anthropic itself does not know.
is_version = re.compile(r"20\d\d-\d\d-\d\d").fullmatch

# What a request to count tokens may have.
_COUNTED = (
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "cache_control",
    "context_management",
    "mcp_servers",
    "prefill",
    "speed",
)


def encode_request(request: ChatRequest) -> bytes:
    """The JSON body for the upstream; InvalidRequest for what it cannot be told."""
    return msgspec.json.encode(_body(request))


def encode_count_request(request: ChatRequest) -> bytes:
    """The JSON body that asks how many tokens the request has."""
    body = _body(request)
    return msgspec.json.encode({name: body[name] for name in _COUNTED if name in body})


def headers_for(request: ChatRequest) -> dict[str, str]:
    """The version of the API that the caller speaks, and the features that are turned on.

    Callers of other formats speak none: then it is the one that knows everything that the request asks for.
    """
    own = request.extra if request.dialect == NAME else {}
    needs_older = _sampling(request.params) or "top_k" in own
    spoken = str(own.get(VERSION_SPOKEN, ""))
    version = spoken if is_version(spoken) else SAMPLING_VERSION if needs_older else VERSION
    headers = {"anthropic-version": version}
    return headers | ({"anthropic-beta": ",".join(own[BETA])} if own.get(BETA) else {})


def _body(request: ChatRequest) -> dict[str, Any]:
    request = told(request, NAME, UPSTREAM)
    _check_temperature(request.params)
    own = dict(request.extra) if request.dialect == NAME else {}
    own.pop(BETA, None)
    own.pop(VERSION_SPOKEN, None)
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.params.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": turns(request),
    }
    if system := system_content(request.messages):
        body["system"] = system
    if request.stream:
        body["stream"] = True
    if request.params.stop:
        body["stop_sequences"] = request.params.stop
    body |= _sampling(request.params)
    body |= _tools(request.params)
    body |= _output_config(request.params, own.pop("output_config", {}))
    if request.dialect != NAME:  # a caller of this one has said how to think in its own words
        body |= thinking_fields(request.model, request.params, body)
    return body | own


def _check_temperature(params: Params) -> None:
    if params.temperature is not None and params.temperature > 1:
        raise InvalidRequest(f"for {UPSTREAM} `temperature` is at most 1", param="temperature")


def _sampling(params: Params) -> dict[str, float]:
    """What differs from the default, which is 1 for both: to say nothing is the same."""
    asked = {"temperature": params.temperature, "top_p": params.top_p}
    return {name: value for name, value in asked.items() if value is not None and value != 1}


def _output_config(params: Params, own: Any) -> dict[str, Any]:
    config = dict(own) if isinstance(own, dict) else {}
    wanted = params.response_format
    if wanted is not None and wanted.kind == "json_schema":
        config["format"] = _format(wanted)
    return {"output_config": config} if config else {}


def _format(wanted: ResponseFormat) -> dict[str, Any]:
    return {"type": "json_schema", "schema": wanted.json_schema}


def _tools(params: Params) -> dict[str, Any]:
    choice = params.tool_choice
    if not params.tools:
        if choice is not None and choice.mode in ("required", "named"):
            raise InvalidRequest("`tool_choice` demands a call and there are no `tools`", param="tool_choice")
        return {}
    fields: dict[str, Any] = {"tools": [_tool(tool) for tool in params.tools]}
    words = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}
    chosen: dict[str, Any] = {"type": words[choice.mode]} if choice else {}
    if choice is not None and choice.mode == "named":
        chosen["name"] = choice.name
    if params.parallel_tool_calls is False and chosen.get("type") != "none":
        chosen = {"type": "auto", **chosen, "disable_parallel_tool_use": True}
    return fields | ({"tool_choice": chosen} if chosen else {})


def _tool(tool: Tool) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters or {"type": "object"}}
    if tool.description:
        fields["description"] = tool.description
    if tool.strict is not None:
        fields["strict"] = tool.strict
    return fields

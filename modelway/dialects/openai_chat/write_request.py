"""Writes a request for an upstream that speaks OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from modelway.dialects.foreign import is_off_by_habit, told
from modelway.dialects.openai_chat.wire import NAME
from modelway.dialects.translation import other_part_refused
from modelway.types import (
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    Params,
    Part,
    ResponseFormat,
    TextPart,
    Tool,
    ToolChoice,
)

# What OpenAI's other format says with the same word.
_SHARED = ("verbosity",)
_NO_PARAMS = Params()
_encode = msgspec.json.Encoder().encode


def encode_request(
    request: ChatRequest,
    *,
    include_usage: bool = True,
    max_tokens_field: str = "max_tokens",
    drop: Collection[str] = (),
) -> bytes:
    """The JSON body for the upstream.

    `include_usage` asks the upstream to count tokens in a stream, whether the caller did or not.
    `drop` names fields that this upstream refuses. InvalidRequest for messages that it cannot be told.
    """
    upstream = request.provider or "this provider"
    request = told(request, NAME, upstream)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message, upstream) for message in request.messages],
        "stream": request.stream,
    }
    if request.params != _NO_PARAMS:
        body |= _params(request.params, max_tokens_field)
    body |= _own_fields(request)
    if is_off_by_habit(request):
        # Models that never think refuse the very word.
        del body["reasoning_effort"]
    if not request.stream:
        body.pop("stream_options", None)
    elif include_usage:
        body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
    for name in drop:
        body.pop(name, None)
    return _encode(body)


def _own_fields(request: ChatRequest) -> dict[str, Any]:
    if request.dialect == NAME:
        return request.extra
    return {name: request.extra[name] for name in _SHARED if name in request.extra}


def _message(message: Message, upstream: str) -> dict[str, Any]:
    if (
        message.content.__class__ is str
        and message.content
        and not (message.name or message.tool_calls or message.tool_call_id or message.extra)
    ):
        # Nearly all of them; a long history has thousands.
        return {"role": message.role, "content": message.content}
    fields: dict[str, Any] = {"role": message.role, "content": _content(message, upstream)}
    if message.name:
        fields["name"] = message.name
    if message.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        fields["tool_call_id"] = message.tool_call_id
    if message.extra:
        fields |= message.extra.get(NAME, {})
    return fields


def _content(message: Message, upstream: str) -> str | list[dict[str, Any]] | None:
    if not isinstance(message.content, str):
        return [_part(part, upstream) for part in message.content]
    if not message.content and message.tool_calls:
        return None
    return message.content


def _part(part: Part, upstream: str) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text, **part.extra.get(NAME, {})}
        case ImagePart():
            image = {"url": part.url} | ({"detail": part.detail} if part.detail else {})
            return {"type": "image_url", "image_url": image, **part.extra.get(NAME, {})}
        case FilePart():
            file = {"filename": part.name, "file_data": part.url, "file_id": part.file_id}
            extra = part.extra.get(NAME, {})
            own = {name: value for name, value in file.items() if value} | extra.get("file", {})
            return {"type": "file", **extra, "file": own}
        case OtherPart(dialect=dialect) if dialect == NAME:
            return part.value
        case OtherPart():
            raise other_part_refused(part, upstream)


def _params(params: Params, max_tokens_field: str) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.structs.asdict(params)
    fields[max_tokens_field] = fields.pop("max_tokens")
    fields = {name: value for name, value in fields.items() if value is not None}
    if params.tools is not None:
        fields["tools"] = [_tool(tool) for tool in params.tools]
    if params.tool_choice is not None:
        fields["tool_choice"] = _tool_choice(params.tool_choice)
    if params.response_format is not None:
        fields["response_format"] = _response_format(params.response_format)
    return fields


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _response_format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.kind != "json_schema":
        return {"type": wanted.kind}
    schema: dict[str, Any] = {"name": wanted.name, "schema": wanted.json_schema}
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}

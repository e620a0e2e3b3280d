"""Writes a request for /api/chat of an upstream that speaks Ollama's format."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from modelway.dialects.foreign import told
from modelway.dialects.ollama_chat.wire import GENERATE, NAME
from modelway.dialects.translation import (
    arguments_object,
    called_names,
    inline,
    other_part_refused,
    part_refused,
    text_with_refusal,
)
from modelway.errors import InvalidRequest
from modelway.types import ChatRequest, ImagePart, Message, OtherPart, Params, TextPart, Tool

UPSTREAM = "Ollama"
# The parameters that can be told, by their name in `options`.
OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "num_predict",
    "stop": "stop",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
PARAMS = (*OPTIONS, "reasoning_effort", "tools", "tool_choice", "response_format")


def encode_request(request: ChatRequest) -> bytes:
    """The JSON body for the upstream; InvalidRequest for what it cannot be told.

    `truncate` is turned off: Ollama would else leave out the oldest messages without a word.
    """
    if request.dialect == GENERATE:
        request = replace(request, dialect=NAME)
    request = told(request, NAME, UPSTREAM)
    names = called_names(request.messages)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(*pair) for pair in zip(request.messages, names, strict=True)],
        "stream": request.stream,
        "truncate": False,
    }
    body |= _params(request.params)
    if request.dialect == NAME:
        options = {**request.extra.get("options", {}), **body.get("options", {})}
        body |= request.extra | ({"options": options} if options else {})
    return msgspec.json.encode(body)


def _message(message: Message, called: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": text_with_refusal(message),
    }
    if images := [_image(part) for part in message.content if not isinstance(part, str | TextPart)]:
        fields["images"] = images
    if message.reasoning:
        fields["thinking"] = message.reasoning
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": arguments_object(call.arguments, call.name)},
            }
            for call in message.tool_calls
        ]
    if called:
        # Older servers know only the name, newer ones the id too.
        fields |= {"tool_name": called, "tool_call_id": message.tool_call_id}
    return {**fields, **message.extra.get(NAME, {})}


def _image(part: Any) -> str:
    if isinstance(part, OtherPart):
        raise other_part_refused(part, UPSTREAM)
    if not isinstance(part, ImagePart):
        raise part_refused("files", UPSTREAM, "send the text of the file, or images of its pages")
    found = inline(part.url)
    if found is None:
        raise part_refused(
            "images by their address", UPSTREAM, "send the image itself as a data: URL in base64"
        )
    return found.data


def _params(params: Params) -> dict[str, Any]:
    asked = {option: getattr(params, name) for name, option in OPTIONS.items()}
    options = {option: value for option, value in asked.items() if value is not None}
    fields: dict[str, Any] = {"options": options} if options else {}
    if params.reasoning_effort is not None:
        # The levels are the model's own; it refuses those that it does not know.
        fields["think"] = False if params.reasoning_effort == "none" else params.reasoning_effort
    if tools := _tools(params):
        fields["tools"] = tools
    wanted = params.response_format
    if wanted is not None and wanted.kind != "text":
        fields["format"] = "json" if wanted.kind == "json_object" else wanted.json_schema
    return fields


def _tools(params: Params) -> list[dict[str, Any]]:
    mode = params.tool_choice.mode if params.tool_choice else "auto"
    if mode in ("required", "named"):
        raise InvalidRequest(
            f"{UPSTREAM} cannot be made to call a tool", param="tool_choice", hint='use "auto" or "none"'
        )
    # There is no word for "none": a model that knows of no tool calls none.
    return [_tool(tool) for tool in params.tools or ()] if mode == "auto" else []


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}

"""Turns "you must call a tool" into a JSON schema for the answer, and that answer back into a call.

A small model that is merely asked to call a tool often writes prose; one whose grammar allows nothing but
`{"name": ..., "arguments": ...}` cannot.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from modelway.errors import InvalidRequest, UpstreamProtocolError
from modelway.provider import EventStream
from modelway.types import (
    ChatRequest,
    Event,
    Finish,
    Message,
    ResponseFormat,
    TextDelta,
    Tool,
    ToolCallDelta,
)


def is_forced(request: ChatRequest) -> bool:
    """Whether the caller demands a call."""
    choice = request.params.tool_choice
    return choice is not None and choice.mode in {"required", "named"}


def as_schema(request: ChatRequest) -> ChatRequest:
    """The request whose answer can only be one call of an allowed tool, written as JSON."""
    tools = _allowed(request)
    params = msgspec.structs.replace(
        request.params,
        tools=None,
        tool_choice=None,
        parallel_tool_calls=None,
        response_format=ResponseFormat(kind="json_schema", name="call", json_schema=_schema(tools)),
    )
    return msgspec.structs.replace(request, messages=_with_tools(request.messages, tools), params=params)


async def as_call(events: EventStream) -> AsyncGenerator[Event, None]:
    """Collect the JSON of each choice and yield it as a call; what a length limit cut is no call."""
    written: dict[int, list[str]] = {}
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta):
                written.setdefault(event.choice, []).append(event.text)
            elif isinstance(event, Finish):
                whole = [choice for choice, reason in enumerate(event.reasons) if reason == "stop"]
                for choice in whole:
                    yield _call(choice, "".join(written.get(choice, ())))
                reasons = tuple("tool_calls" if reason == "stop" else reason for reason in event.reasons)
                yield msgspec.structs.replace(event, reasons=reasons, raw=None)


def _allowed(request: ChatRequest) -> tuple[Tool, ...]:
    choice = request.params.tool_choice
    tools = request.params.tools or ()
    if choice is not None and choice.mode == "named":
        tools = tuple(tool for tool in tools if tool.name == choice.name)
    if not tools:
        raise InvalidRequest(
            "tool_choice demands a call and no such tool is offered",
            hint="add it to tools",
            param="tool_choice",
        )
    return tools


def _schema(tools: tuple[Tool, ...]) -> dict[str, Any]:
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": {"$ref": f"#/$defs/{tool.name}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    definitions = {tool.name: _moved(tool.parameters or {"type": "object"}, tool.name) for tool in tools}
    return {"anyOf": calls, "$defs": definitions}


def _moved(schema: Any, name: str) -> Any:
    """The schema with its own references pointing to where it lies now."""
    if isinstance(schema, list):
        return [_moved(item, name) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"#/$defs/{name}{value[1:]}"
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, name)
        for key, value in schema.items()
    }


def _with_tools(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> tuple[Message, ...]:
    listed = "\n".join(
        json.dumps({"name": tool.name, "description": tool.description, "parameters": tool.parameters})
        for tool in tools
    )
    text = f'Call one of these tools. Answer only with {{"name": ..., "arguments": ...}}.\n{listed}'
    if messages and messages[0].role in {"system", "developer"}:
        text = f"{messages[0].text}\n\n{text}"
        messages = messages[1:]
    return (Message(role="system", content=text), *messages)


def _call(choice: int, text: str) -> ToolCallDelta:
    try:
        call = json.loads(text)
        name, arguments = call["name"], json.dumps(call["arguments"], ensure_ascii=False)
    except (ValueError, TypeError, KeyError) as exc:
        raise UpstreamProtocolError("the embedded model did not write the call that was demanded") from exc
    return ToolCallDelta(choice=choice, id=f"call_{secrets.token_hex(12)}", name=name, arguments=arguments)

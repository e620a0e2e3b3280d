"""Writes a request for Bedrock's Converse API. Source: botocore's model of it, 2026-11."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from modelway.dialects.anthropic_messages.thinking import EFFORTS, thinking_fields
from modelway.dialects.foreign import is_off_by_habit, told
from modelway.dialects.replay import Block, replayed
from modelway.dialects.translation import (
    arguments_object,
    inline,
    other_part_refused,
    part_refused,
    plain_id,
    text_with_refusal,
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
    TextPart,
    Tool,
)

UPSTREAM = "Bedrock"
# For models whose thinking is a part of a limit that must then be set.
MAX_TOKENS_TO_THINK = 32_000
PARAMS = (
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "reasoning_effort",
    "tools",
    "tool_choice",
    "response_format",
)

_INSTRUCTIONS = ("system", "developer")
_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}


def encode_request(request: ChatRequest) -> bytes:
    """The JSON body; InvalidRequest for what the upstream cannot be told."""
    request = told(request, UPSTREAM, UPSTREAM)
    _check_temperature(request.params)
    body: dict[str, Any] = {"messages": _Turns(request).written()}
    said = (message for message in request.messages if message.role in _INSTRUCTIONS)
    if system := [block for message in said for block in _instructions(message)]:
        body["system"] = system
    body |= _limits(request.params)
    body |= _tools(request)
    body |= _thinking(request, body)
    if (wanted := request.params.response_format) is not None and wanted.kind == "json_schema":
        body["outputConfig"] = {**body.get("outputConfig", {}), "textFormat": _text_format(wanted)}
    return msgspec.json.encode(body)


def _check_temperature(params: Params) -> None:
    if params.temperature is not None and params.temperature > 1:
        raise InvalidRequest(f"for {UPSTREAM} `temperature` is at most 1", param="temperature")


def _limits(params: Params) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "maxTokens": params.max_tokens,
        "temperature": params.temperature,
        "topP": params.top_p,
        "stopSequences": params.stop,
    }
    # Newer models refuse these two, though not what is left unsaid: 1 is the default.
    asked = {
        name: value for name, value in asked.items() if name not in ("temperature", "topP") or value != 1
    }
    limits = {name: value for name, value in asked.items() if value is not None}
    return {"inferenceConfig": limits} if limits else {}


def _thinking(request: ChatRequest, body: dict[str, Any]) -> dict[str, Any]:
    """Claude is told in its own words; other models know at most an effort."""
    effort = request.params.reasoning_effort
    if effort is None or ("claude" not in request.model and is_off_by_habit(request)):
        return {}
    if "claude" in request.model:
        limit = request.params.max_tokens or MAX_TOKENS_TO_THINK
        fields = thinking_fields(request.model, request.params, {"max_tokens": limit})
        written: dict[str, Any] = {"additionalModelRequestFields": {"thinking": fields["thinking"]}}
        if "budget_tokens" in fields["thinking"]:
            written["inferenceConfig"] = {**body.get("inferenceConfig", {}), "maxTokens": limit}
        return written | ({"outputConfig": fields["output_config"]} if "output_config" in fields else {})
    effort = "low" if effort == "minimal" else effort
    if effort not in EFFORTS:
        raise InvalidRequest(
            f"{UPSTREAM} does not know the `reasoning_effort` {effort[:80]!r}",
            param="reasoning_effort",
            hint="use one of " + ", ".join(EFFORTS),
        )
    return {"outputConfig": {"effort": effort}}


def _text_format(wanted: ResponseFormat) -> dict[str, Any]:
    schema = msgspec.json.encode(wanted.json_schema).decode()
    return {"type": "json_schema", "structure": {"jsonSchema": {"schema": schema, "name": wanted.name}}}


def _tools(request: ChatRequest) -> dict[str, Any]:
    params = request.params
    mode = params.tool_choice.mode if params.tool_choice else "auto"
    offered = params.tools if mode != "none" else ()
    if not offered:
        if any(message.tool_calls for message in request.messages):
            raise InvalidRequest(
                f"{UPSTREAM} demands `tools` where a conversation has calls of them",
                param="tools" if mode != "none" else "tool_choice",
                hint='send the tools with every request, and `tool_choice` "auto"',
            )
        if mode in ("required", "named"):
            raise InvalidRequest("`tool_choice` demands a call and there are no `tools`", param="tool_choice")
        return {}
    config: dict[str, Any] = {"tools": [{"toolSpec": _tool(tool)} for tool in offered]}
    if params.tool_choice is not None and mode == "named":
        config["toolChoice"] = {"tool": {"name": params.tool_choice.name}}
    elif mode == "required":
        config["toolChoice"] = {"any": {}}
    return {"toolConfig": config}


def _tool(tool: Tool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": tool.name,
        "inputSchema": {"json": tool.parameters or {"type": "object"}},
    }
    if tool.description:
        fields["description"] = tool.description
    if tool.strict is not None:
        fields["strict"] = tool.strict
    return fields


def _instructions(message: Message) -> list[Block]:
    if any(not isinstance(part, str | TextPart) for part in message.content):
        raise part_refused("anything but text as the system's message", UPSTREAM, "send it as the user's")
    return [{"text": message.text}] if message.text.strip() else []


class _Turns:
    """Writes the messages as turns that alternate; the results of tools are the user's."""

    def __init__(self, request: ChatRequest) -> None:
        self._messages = [message for message in request.messages if message.role not in _INSTRUCTIONS]
        self._kept = {_call_ids(content): content for content in replayed(request)}
        self._names: set[str] = set()

    def written(self) -> list[dict[str, Any]]:
        turns: list[dict[str, Any]] = []
        for message in self._messages:
            role = "assistant" if message.role == "assistant" else "user"
            blocks = self._blocks(message)
            if blocks and turns and turns[-1]["role"] == role:
                turns[-1]["content"] += blocks
            elif blocks:
                turns.append({"role": role, "content": list(blocks)})
        return turns

    def _blocks(self, message: Message) -> list[Block]:
        if message.role == "assistant":
            ids = tuple(call.id for call in message.tool_calls)
            return (ids and self._kept.get(ids)) or _assistant(message)
        content = self._content(message)
        if message.role == "tool":
            return [{"toolResult": {"toolUseId": plain_id(message.tool_call_id), "content": content}}]
        return content

    def _content(self, message: Message) -> list[Block]:
        if isinstance(message.content, str):
            return [{"text": message.content}] if message.content.strip() else []
        return list(self._parts(message.content))

    def _parts(self, parts: Iterable[Part]) -> Iterable[Block]:
        for part in parts:
            match part:
                case TextPart():
                    if part.text.strip():  # the upstream refuses blank text
                        yield {"text": part.text}
                case ImagePart():
                    yield {"image": _image(part)}
                case FilePart():
                    yield {"document": self._document(part)}
                case OtherPart():
                    raise other_part_refused(part, UPSTREAM)

    def _document(self, part: FilePart) -> Block:
        found = inline(part.url)
        kind = _DOCUMENTS.get(found.media_type) if found else None
        if found is None or kind is None:
            raise part_refused(
                "a file of this kind, or by its address",
                UPSTREAM,
                "send a PDF, a text or an office document as a data: URL",
            )
        return {"format": kind, "name": self._name(part.name), "source": {"bytes": found.data}}

    def _name(self, name: str) -> str:
        """A name with the letters that are permitted, unlike the others."""
        plain = re.sub(r"[^A-Za-z0-9 ()\[\]-]+", "-", name.rpartition(".")[0] or name)
        plain = re.sub(r" +", " ", plain).strip()[:180] or "document"
        unique, number = plain, 1
        while unique in self._names:
            number += 1
            unique = f"{plain} ({number})"
        self._names.add(unique)
        return unique


def _assistant(message: Message) -> list[Block]:
    if any(not isinstance(part, str | TextPart) for part in message.content):
        raise part_refused("images or files in the assistant's messages", UPSTREAM, "send them as the user's")
    text = text_with_refusal(message)
    blocks: list[Block] = [{"text": text}] if text.strip() else []
    for call in message.tool_calls:
        arguments = arguments_object(call.arguments, call.name)
        use = {"toolUseId": plain_id(call.id), "name": call.name, "input": arguments}
        blocks.append({"toolUse": use})
    return blocks


def _image(part: ImagePart) -> Block:
    found = inline(part.url)
    kind = _IMAGES.get(found.media_type) if found else None
    if found is None or kind is None:
        raise part_refused(
            "an image of this kind, or by its address",
            UPSTREAM,
            "send a PNG, JPEG, GIF or WebP as a data: URL",
        )
    return {"format": kind, "source": {"bytes": found.data}}


def _call_ids(content: Iterable[Block]) -> tuple[str, ...]:
    return tuple(block["toolUse"]["toolUseId"] for block in content if "toolUse" in block)

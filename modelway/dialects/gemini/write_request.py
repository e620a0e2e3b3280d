"""Writes requests for generateContent and streamGenerateContent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from modelway.dialects.foreign import is_off_by_habit, told
from modelway.dialects.gemini.thinking import must_think, thinking_config
from modelway.dialects.translation import (
    arguments_object,
    called_names,
    inline,
    other_part_refused,
    part_refused,
    text_with_refusal,
)
from modelway.errors import InvalidRequest
from modelway.types import ChatRequest, FilePart, ImagePart, Message, OtherPart, Params, Part, TextPart, Tool

NAME = "gemini"
UPSTREAM = "Gemini"
# The parameters that can be told, by their name in `generationConfig`.
CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "max_tokens": "maxOutputTokens",
    "stop": "stopSequences",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
PARAMS = (*CONFIG, "reasoning_effort", "tools", "tool_choice", "response_format")
# Stands for the signature of a call that another model made; see Google's guide to thought signatures.
NO_SIGNATURE = "skip_thought_signature_validator"

_UNSIGNED = re.compile(r"gemini-[12]\b|gemma|learnlm").match
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}

Fields = dict[str, Any]


def encode_request(request: ChatRequest, signatures: Mapping[str, str] = {}) -> bytes:
    """The JSON body for the upstream; InvalidRequest for what it cannot be told.

    `signatures` maps the ids of calls in the history to the thought signatures that came with them.
    """
    request = told(request, NAME, UPSTREAM)
    contents = _Contents(request, signatures).written()
    if not contents:
        raise InvalidRequest(
            f"{UPSTREAM} must be told something by the user", param="messages", hint="add a user's message"
        )
    body: Fields = {"contents": contents}
    if instructions := [part for message in request.messages for part in _instructions(message)]:
        body["systemInstruction"] = {"parts": instructions}
    body |= _tools(request.params)
    if config := _config(request):
        body["generationConfig"] = config
    return msgspec.json.encode(body)


def current_turn(messages: tuple[Message, ...]) -> int:
    """Where the current turn begins: after the last thing that the user said."""
    users = [position for position, message in enumerate(messages) if message.role == "user"]
    return users[-1] + 1 if users else 0


def _instructions(message: Message) -> list[Fields]:
    if message.role not in ("system", "developer"):
        return []
    if not isinstance(message.content, str) and not all(
        isinstance(part, TextPart) for part in message.content
    ):
        raise part_refused("anything but text in a system message", UPSTREAM, "send it as the user's")
    return [{"text": message.text}]


class _Contents:
    """The messages as contents of the roles user and model, neighbours of one role as one."""

    def __init__(self, request: ChatRequest, signatures: Mapping[str, str]) -> None:
        self._messages = request.messages
        self._names = called_names(request.messages)
        self._signatures = signatures
        # Only the current turn is checked for signatures; in older ones a made-up one would say nothing.
        self._signed_from = (
            len(request.messages) if _UNSIGNED(_bare(request.model)) else current_turn(request.messages)
        )

    def written(self) -> list[Fields]:
        contents: list[Fields] = []
        for position, message in enumerate(self._messages):
            if message.role in ("system", "developer"):
                continue
            role = "model" if message.role == "assistant" else "user"
            parts = self._parts(position, message)
            if contents and contents[-1]["role"] == role:
                contents[-1]["parts"] += parts
            elif parts:
                contents.append({"role": role, "parts": parts})
        return contents

    def _parts(self, position: int, message: Message) -> list[Fields]:
        if message.role == "tool":
            return [self._result(position, message)]
        if message.role == "assistant":
            text = text_with_refusal(message)
            if any(not isinstance(part, str | TextPart) for part in message.content):
                raise part_refused("images or files that the assistant gave", UPSTREAM, "leave them out")
            return [*([{"text": text}] if text else []), *self._calls(position, message)]
        if isinstance(message.content, str):
            return [{"text": message.content}] if message.content else []
        return [_part(part) for part in message.content]

    def _calls(self, position: int, message: Message) -> list[Fields]:
        parts: list[Fields] = []
        for call in message.tool_calls:
            arguments = arguments_object(call.arguments, call.name)
            part: Fields = {"functionCall": {"id": call.id, "name": call.name, "args": arguments}}
            signature = self._signatures.get(call.id)
            # Of the calls of one step only the first has a signature.
            if not signature and not parts and position >= self._signed_from:
                signature = NO_SIGNATURE
            parts.append(part | ({"thoughtSignature": signature} if signature else {}))
        return parts

    def _result(self, position: int, message: Message) -> Fields:
        response: Fields = {
            "id": message.tool_call_id,
            "name": self._names[position],
            "response": _response(message.text),
        }
        if others := [_part(part) for part in message.content if not isinstance(part, str | TextPart)]:
            response["parts"] = others
        return {"functionResponse": response}


def _bare(model: str) -> str:
    return model.rpartition("/")[2]


def _response(text: str) -> Fields | msgspec.Raw:
    """A function's result, which must be an object."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        value = None
    return msgspec.Raw(text.encode()) if isinstance(value, dict) else {"output": text}


def _part(part: Part) -> Fields:
    match part:
        case TextPart():
            return {"text": part.text}
        case ImagePart():
            return _inline_data(part.url, "", "images by their address")
        case FilePart():
            return _inline_data(part.url, part.media_type, "files by their address or upload")
        case OtherPart():
            raise other_part_refused(part, UPSTREAM)


def _inline_data(url: str, media_type: str, what: str) -> Fields:
    found = inline(url)
    if found is None:
        raise part_refused(what, UPSTREAM, "send the content itself as a data: URL in base64")
    return {"inlineData": {"mimeType": media_type or found.media_type, "data": found.data}}


def _tools(params: Params) -> Fields:
    if not params.tools:
        return {}
    fields: Fields = {"tools": [{"functionDeclarations": [_tool(tool) for tool in params.tools]}]}
    choice = params.tool_choice
    if choice is not None:
        config: Fields = {"mode": _MODES[choice.mode]}
        if choice.mode == "named":
            config["allowedFunctionNames"] = [choice.name]
        fields["toolConfig"] = {"functionCallingConfig": config}
    if (choice is None or choice.mode == "auto") and any(tool.strict for tool in params.tools):
        fields["toolConfig"] = {"functionCallingConfig": {"mode": "VALIDATED"}}
    return fields


def _tool(tool: Tool) -> Fields:
    declaration: Fields = {"name": tool.name, "description": tool.description}
    if tool.parameters:
        declaration["parametersJsonSchema"] = tool.parameters
    return declaration


def _config(request: ChatRequest) -> Fields:
    params, model = request.params, _bare(request.model)
    asked = {key: getattr(params, name) for name, key in CONFIG.items()}
    config: Fields = {key: value for key, value in asked.items() if value is not None}
    if params.reasoning_effort is not None and not (is_off_by_habit(request) and must_think(model)):
        config["thinkingConfig"] = thinking_config(model, params.reasoning_effort)
    wanted = params.response_format
    if wanted is not None and wanted.kind != "text":
        config["responseMimeType"] = "application/json"
        if wanted.kind == "json_schema":
            config["responseJsonSchema"] = wanted.json_schema
    return config

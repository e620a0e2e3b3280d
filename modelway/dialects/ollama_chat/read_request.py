"""Reads a caller's request to /api/chat or /api/generate."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from modelway.dialects.ollama_chat.wire import GENERATE, NAME
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
    ImagePart,
    Message,
    Params,
    Part,
    ResponseFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
)

MAX_MESSAGES = 20_000
MAX_NAME = 512
MAX_TOKENS = 100_000_000
MAX_STOPS = 8192

_ROLES = ("system", "user", "assistant", "tool")
_NOT_ASKED = (-1, -2)
# The first letters of base64 tell the kind of an image, which the format itself does not say.
_KINDS = {"iVBOR": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}


def decode_request(body: bytes) -> ChatRequest:
    """A request out of the body of POST /api/chat. Without `stream` it asks for a stream.

    One without messages asks for the model that it names to be loaded.
    """
    fields = read_object(body)
    value = fields.pop("messages", None)
    if not value and fields.get("model"):
        return _request(NAME, fields, ())
    if not value:
        raise InvalidRequest("`messages` is missing", param="messages", hint="send at least one message")
    if isinstance(value, list) and len(value) > MAX_MESSAGES:
        raise wrong("messages", f"an array of at most {MAX_MESSAGES} messages")
    reader = _MessageReader()
    return _request(NAME, fields, items(value, "messages", reader.read))


def decode_generate_request(body: bytes) -> ChatRequest:
    """A request out of the body of POST /api/generate: a prompt, and perhaps a system message.

    One without a prompt asks for the model that it names to be loaded.
    """
    fields = read_object(body)
    for name in ("suffix", "template", "context", "raw", "tools"):
        if fields.pop(name, None):
            raise InvalidRequest(f"`{name}` is not supported", param=name, hint="leave it out")
    system = take(fields, "system", str, "")
    prompt = take(fields, "prompt", str, "")
    images = fields.pop("images", None)
    if not prompt and not images and fields.get("model"):
        return _request(GENERATE, fields, ())
    asked = Message(role="user", content=_content(prompt, images, "images"))
    return _request(GENERATE, fields, (*((Message(role="system", content=system),) if system else ()), asked))


def _request(dialect: str, fields: Fields, messages: tuple[Message, ...]) -> ChatRequest:
    model = take(fields, "model", str, "")
    if len(model) > MAX_NAME:
        raise wrong("model", f"a string of at most {MAX_NAME} characters")
    return ChatRequest(
        messages=messages,
        model=model,
        provider=take(fields, "provider", str, ""),
        conversation_id=take(fields, "conversation_id", str, ""),
        stream=take(fields, "stream", bool, True),
        include_usage=True,
        params=_params(fields),
        dialect=dialect,
        extra=fields,
    )


class _MessageReader:
    """Reads messages in their order; a tool's result may name only the function that it answers."""

    def __init__(self) -> None:
        self._unanswered: list[ToolCall] = []
        self._calls = 0

    def read(self, value: Any, path: str) -> Message:
        fields = dict(check(value, dict, path))
        role = fields.pop("role", None)
        if role not in _ROLES:
            raise wrong(f"{path}.role", "one of " + ", ".join(_ROLES))
        text = take(fields, "content", str, "", f"{path}.")
        calls = fields.pop("tool_calls", None)
        tool_calls = () if calls is None else items(calls, f"{path}.tool_calls", self._call)
        self._unanswered.extend(tool_calls)
        name = take(fields, "tool_name", str, "", f"{path}.") if role == "tool" else ""
        answered = self._answered(fields, name, path) if role == "tool" else ""
        return Message(
            role=cast("Role", role),
            content=_content(text, fields.pop("images", None), f"{path}.images"),
            reasoning=take(fields, "thinking", str, "", f"{path}."),
            tool_calls=tool_calls,
            # Where the call is not in this request, the conversation finds it by its function's name.
            name="" if answered else name,
            tool_call_id=answered,
            extra={NAME: fields} if fields else {},
        )

    def _call(self, value: Any, path: str) -> ToolCall:
        fields = check(value, dict, path)
        function = check(fields.get("function"), dict, f"{path}.function")
        arguments = check(function.get("arguments") or {}, dict, f"{path}.function.arguments")
        self._calls += 1
        return ToolCall(
            # The same history must read the same each time it is sent.
            id=check(fields.get("id") or f"call_{self._calls}", str, f"{path}.id"),
            name=check(function.get("name"), str, f"{path}.function.name"),
            arguments=msgspec.json.encode(arguments).decode(),
        )

    def _answered(self, fields: Fields, name: str, path: str) -> str:
        """The id of the call that a message answers: the first one that fits and has no answer yet."""
        id = take(fields, "tool_call_id", str, "", f"{path}.")
        for call in self._unanswered:
            if (id or call.id) == call.id and (name or call.name) == call.name:
                self._unanswered.remove(call)
                return call.id
        return id


def _content(text: str, images: Any, path: str) -> str | tuple[Part, ...]:
    if not images:
        return text
    parts: tuple[Part, ...] = (TextPart(text),) if text else ()
    return parts + items(images, path, _image)


def _image(value: Any, path: str) -> Part:
    data = check(value, str, path)
    kind = next(
        (kind for start, kind in _KINDS.items() if data.startswith(start)), "application/octet-stream"
    )
    return ImagePart(f"data:{kind};base64,{data}")


def _params(fields: Fields) -> Params:
    options = dict(take(fields, "options", dict, {}))
    limit = options.pop("num_predict", None) if options.get("num_predict") in _NOT_ASKED else None
    params = Params(
        temperature=take_number(options, "temperature", 0, 100, "options."),
        top_p=take_number(options, "top_p", 0, 1, "options."),
        max_tokens=take_integer(options, "num_predict", 0, MAX_TOKENS, "options."),
        stop=take_strings(options, "stop", MAX_STOPS, "options."),
        seed=take_integer(options, "seed", -(2**63), 2**63 - 1, "options."),
        presence_penalty=take_number(options, "presence_penalty", -100, 100, "options."),
        frequency_penalty=take_number(options, "frequency_penalty", -100, 100, "options."),
        reasoning_effort=_effort(fields),
        tools=_tools(fields),
        response_format=_format(fields),
    )
    if limit is not None:
        options["num_predict"] = limit
    if options:
        fields["options"] = options
    return params


def _effort(fields: Fields) -> str | None:
    """How much to think. Plain `true` is the model's default, which needs saying only to Ollama itself."""
    value = fields.get("think")
    if value is True:
        return None
    fields.pop("think", None)
    if value is None:
        return None
    return "none" if value is False else check(value, str, "think")


def _tools(fields: Fields) -> tuple[Tool, ...] | None:
    value = fields.pop("tools", None)
    return None if value is None else items(value, "tools", _tool)


def _tool(value: Any, path: str) -> Tool:
    function = check(check(value, dict, path).get("function"), dict, f"{path}.function")
    return Tool(
        name=check(function.get("name"), str, f"{path}.function.name"),
        description=check(function.get("description") or "", str, f"{path}.function.description"),
        parameters=check(function.get("parameters") or {}, dict, f"{path}.function.parameters"),
    )


def _format(fields: Fields) -> ResponseFormat | None:
    value = fields.pop("format", None)
    if not value:
        return None
    if value == "json":
        return ResponseFormat("json_object")
    if not isinstance(value, dict):
        raise wrong("format", '"json" or a JSON schema')
    return ResponseFormat("json_schema", name="answer", json_schema=value)

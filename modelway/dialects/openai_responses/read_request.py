"""Reads a caller's request; every mistake in it becomes an InvalidRequest that names the field."""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec.structs import replace

from modelway.dialects.openai_responses.custom import as_function
from modelway.dialects.openai_responses.read_input import read_input, read_items
from modelway.dialects.openai_responses.wire import NAME, full_name, turn_id
from modelway.dialects.reading import (
    Fields,
    check,
    items,
    read_object,
    take,
    take_integer,
    take_number,
    wrong,
)
from modelway.errors import InvalidRequest
from modelway.types import (
    THIS_TURN_ONLY,
    ChatRequest,
    Message,
    Params,
    ResponseFormat,
    Tool,
    ToolChoice,
)

MAX_NAME = 512
MAX_TOKENS = 100_000_000
MAX_METADATA, MAX_KEY, MAX_VALUE = 16, 64, 512

# What a response repeats as it was said.
_REPEATED = (
    "frequency_penalty",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt_cache_key",
    "safety_identifier",
    "store",
    "temperature",
    "tool_choice",
    "top_p",
    "user",
)
# Bookkeeping that changes no answer, for providers that know it; the number of calls is that of OpenAI's
# own tools.
_BOOKKEEPING: dict[str, type[object]] = {
    "image": dict,
    "max_tool_calls": int,
    "prompt_cache_key": str,
    "prompt_cache_options": dict,
    "prompt_cache_retention": str,
    "safety_identifier": str,
    "service_tier": str,
    "stream_options": dict,
    "user": str,
}
# What answers could carry beside the text, and whether nothing is lost where they do not: reasoning is told
# in the clear, and what belongs to OpenAI's own tools cannot come up.
_INCLUDABLE = {
    "code_interpreter_call.outputs": True,
    "computer_call_output.output.image_url": True,
    "file_search_call.results": True,
    "message.input_image.image_url": True,
    "message.output_text.logprobs": False,
    "reasoning.encrypted_content": True,
    "web_search_call.action.sources": True,
    "web_search_call.results": True,
}

T = TypeVar("T")
Noted = tuple[tuple[Message, ...], dict[str, str] | None]


def decode_request(body: bytes) -> ChatRequest:
    """A request out of the body of POST /v1/responses.

    `echo` holds what the response repeats. Instructions hold for this turn only, as the format has it.
    """
    fields = read_object(body)
    echo: Fields = {name: fields[name] for name in _REPEATED if fields.get(name) is not None}
    _refuse(fields)
    instructions = take(fields, "instructions", str, "")
    messages = read_input(fields.pop("input", None))
    if instructions:
        own = Message(role="system", content=instructions, extra={THIS_TURN_ONLY: True})
        messages = (own, *messages)
    echo["metadata"] = _metadata(fields)
    store = take(fields, "store", bool, True)
    is_background = _background(fields, echo, store=store)
    params = _params(fields, echo)
    for name, kind in _BOOKKEEPING.items():
        if fields.get(name) is not None:
            check(fields[name], kind, name)
    return ChatRequest(
        messages=messages,
        model=_model(fields),
        provider=take(fields, "provider", str, ""),
        conversation_id=_conversation(fields),
        after_turn=_previous(fields),
        store=store,
        stream=take(fields, "stream", bool, False),
        include_usage=True,
        params=params,
        dialect=NAME,
        extra=fields,
        echo=echo,
        when_left="finish" if is_background else "cancel",
    )


def decode_conversation(body: bytes) -> Noted:
    """Messages and metadata out of the body of a request about a conversation; None: it names none."""
    fields = read_object(body or b"{}")
    is_named = fields.get("metadata") is not None
    metadata = _metadata(fields)
    return read_items(take(fields, "items", list, []), "items"), metadata if is_named else None


def _refuse(fields: Fields) -> None:
    """Remove what cannot be done, after the check that it is not asked for."""
    if fields.pop("prompt", None):
        raise _cannot("prompt", "templates of prompts that OpenAI keeps", "send `instructions` and `input`")
    if fields.pop("context_management", None):
        raise _cannot("context_management", "compaction by itself", "POST /v1/responses/compact")
    if fields.pop("moderation", None):
        raise _cannot("moderation", "moderation", "leave it out")
    if take_integer(fields, "top_logprobs", 0, 20):
        raise _cannot("top_logprobs", "the probabilities of tokens", "leave it out")
    truncation = fields.pop("truncation", None)
    if truncation == "auto":
        raise _cannot("truncation", "leaving out what is too long", 'send "disabled" or leave it out')
    if truncation not in (None, "disabled"):
        raise wrong("truncation", '"disabled"')
    include = fields.pop("include", None)
    if include is not None:
        items(include, "include", _includable)


def _background(fields: Fields, echo: Fields, *, store: bool) -> bool:
    """Whether the answer goes on without its caller, who asks for it later."""
    if not take(fields, "background", bool, False):
        return False
    if not store:
        raise InvalidRequest(
            "a response in the background must be stored", param="background", hint="leave out `store`"
        )
    # Until the answer begins, the model that was asked for is all that is known.
    echo |= {"background": True, "model": fields.get("model") or ""}
    return True


def _includable(value: Any, path: str) -> None:
    if check(value, str, path) not in _INCLUDABLE:
        raise wrong(path, "one of " + ", ".join(_INCLUDABLE))
    if not _INCLUDABLE[value]:
        raise _cannot(path, "the probabilities of tokens", "leave it out")


def _cannot(param: str, what: str, hint: str) -> InvalidRequest:
    return InvalidRequest(
        f"`{param}`: Modelway does not have {what}", param=param, hint=hint, code="unsupported_parameter"
    )


def _model(fields: Fields) -> str:
    value = take(fields, "model", str, "")
    if len(value) > MAX_NAME:
        raise wrong("model", f"a string of at most {MAX_NAME} characters")
    return value


def _conversation(fields: Fields) -> str:
    """The conversation by the format's own name for it, or by ours."""
    ours = take(fields, "conversation_id", str, "")
    value = fields.pop("conversation", None)
    if value is None:
        return ours
    id = value if isinstance(value, str) else check(value, dict, "conversation").get("id")
    if not isinstance(id, str) or not id:
        raise wrong(
            "conversation" if isinstance(value, str) else "conversation.id", "the id of a conversation"
        )
    if ours not in ("", id):
        raise InvalidRequest("`conversation` and `conversation_id` differ", param="conversation")
    return id


def _previous(fields: Fields) -> str:
    """The turn that this one follows."""
    value = take(fields, "previous_response_id", str, "")
    if value and not turn_id(value):
        raise InvalidRequest(
            f"there is no response {value[:80]!r}",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return turn_id(value)


def _metadata(fields: Fields) -> dict[str, str]:
    metadata = take(fields, "metadata", dict, {})
    if len(metadata) > MAX_METADATA:
        raise wrong("metadata", f"an object of at most {MAX_METADATA} fields")
    for key, value in metadata.items():
        if len(key) > MAX_KEY:
            raise wrong("metadata", f"an object whose keys have at most {MAX_KEY} characters")
        if len(check(value, str, f"metadata.{key}")) > MAX_VALUE:
            raise wrong(f"metadata.{key}", f"a string of at most {MAX_VALUE} characters")
    return metadata


def _params(fields: Fields, echo: Fields) -> Params:
    offered = fields.pop("tools", None)
    told = () if offered is None else items(offered, "tools", _tool)
    if told:
        echo["tools"] = [shown for shown, _ in told]
    tools = None if offered is None else tuple(tool for _, group in told for tool in group)
    choice, tools = _tool_choice(fields, tools)
    return Params(
        temperature=take_number(fields, "temperature", 0, 2),
        top_p=take_number(fields, "top_p", 0, 1),
        max_tokens=take_integer(fields, "max_output_tokens", 1, MAX_TOKENS),
        presence_penalty=take_number(fields, "presence_penalty", -2, 2),
        frequency_penalty=take_number(fields, "frequency_penalty", -2, 2),
        reasoning_effort=_effort(fields, echo),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=_optional(fields, "parallel_tool_calls", bool),
        response_format=_text(fields, echo),
    )


def _effort(fields: Fields, echo: Fields) -> str | None:
    """How much to think. Where a summary is asked for, the thoughts themselves are told in its place."""
    reasoning = dict(take(fields, "reasoning", dict, {}))
    echo["reasoning"] = {"effort": None, "summary": None, **reasoning}
    if reasoning.get("mode") not in (None, "standard"):
        raise _cannot("reasoning.mode", "other modes of reasoning", "leave it out")
    return _optional(reasoning, "effort", str, "reasoning.")


def _text(fields: Fields, echo: Fields) -> ResponseFormat | None:
    """The shape of the text. Its verbosity goes on as the field of chats that it is there."""
    config = dict(take(fields, "text", dict, {}))
    echo["text"] = {"format": {"type": "text"}, **config}
    verbosity = _optional(config, "verbosity", str, "text.")
    if verbosity is not None:
        fields["verbosity"] = verbosity
    value = config.get("format")
    if value is None:
        return None
    kind = check(value, dict, "text.format").get("type")
    if kind in ("text", "json_object"):
        return ResponseFormat(kind)
    if kind != "json_schema":
        raise wrong("text.format.type", '"text", "json_object" or "json_schema"')
    return ResponseFormat(
        "json_schema",
        name=check(value.get("name") or "answer", str, "text.format.name"),
        json_schema=check(value.get("schema"), dict, "text.format.schema"),
        strict=_optional(dict(value), "strict", bool, "text.format."),
    )


def _tool(value: Any, path: str) -> tuple[Fields, tuple[Tool, ...]]:
    """A tool as the response shows it, and the functions that it is."""
    fields = check(value, dict, path)
    if fields.get("type") == "custom":
        return _custom_object(fields), (as_function(fields, path),)
    if fields.get("type") != "namespace":
        tool = _function(value, path)
        return _tool_object(tool), (tool,)
    namespace = check(fields.get("name"), str, f"{path}.name")
    within = items(fields.get("tools"), f"{path}.tools", _function)
    shown = {
        "type": "namespace",
        "name": namespace,
        "description": check(fields.get("description") or "", str, f"{path}.description"),
        "tools": [_tool_object(tool) for tool in within],
    }
    return shown, tuple(replace(tool, name=full_name(namespace, tool.name)) for tool in within)


def _function(value: Any, path: str) -> Tool:
    fields = dict(check(value, dict, path))
    kind = check(fields.get("type"), str, f"{path}.type")
    if kind != "function":
        raise _cannot(f"{path}.type", f"the tool {kind[:40]!r}, only functions of yours", "leave it out")
    return Tool(
        name=check(fields.get("name"), str, f"{path}.name"),
        description=take(fields, "description", str, "", f"{path}."),
        parameters=take(fields, "parameters", dict, {}, f"{path}."),
        strict=_optional(fields, "strict", bool, f"{path}."),
    )


def _custom_object(fields: Fields) -> Fields:
    known = ("type", "name", "description", "format")
    return {name: fields[name] for name in known if fields.get(name) is not None}


def _tool_object(tool: Tool) -> Fields:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description or None,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _tool_choice(
    fields: Fields, tools: tuple[Tool, ...] | None
) -> tuple[ToolChoice | None, tuple[Tool, ...] | None]:
    """The choice, and the tools that it leaves."""
    value = fields.pop("tool_choice", None)
    if value is None:
        return None, tools
    if value in ("auto", "none", "required"):
        return ToolChoice(mode=value), tools
    if not isinstance(value, dict):
        raise wrong("tool_choice", '"auto", "none", "required" or an object')
    match value.get("type"):
        case "function" | "custom":
            return ToolChoice("named", check(value.get("name"), str, "tool_choice.name")), tools
        case "allowed_tools":
            return _allowed(value, tools or ())
    raise wrong("tool_choice.type", '"function", "custom" or "allowed_tools"')


def _allowed(value: Fields, tools: tuple[Tool, ...]) -> tuple[ToolChoice, tuple[Tool, ...]]:
    mode = value.get("mode")
    if mode not in ("auto", "required"):
        raise wrong("tool_choice.mode", '"auto" or "required"')
    names = items(
        value.get("tools"),
        "tool_choice.tools",
        lambda tool, path: check(check(tool, dict, path).get("name"), str, f"{path}.name"),
    )
    return ToolChoice(mode=mode), tuple(tool for tool in tools if tool.name in names)


def _optional(fields: Fields, name: str, kind: type[T], prefix: str = "") -> T | None:
    value = fields.pop(name, None)
    return None if value is None else check(value, kind, prefix + name)

"""What a caller says in its own format that an upstream of another one has no word for: one table, one rule.

The typed parameters of a request are told by each provider, or refused by it. This is about the rest: what
says nothing about the answer is left out, what would change it is refused by its own name.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from modelway.errors import InvalidRequest
from modelway.types import ChatRequest, FilePart, Message, TextPart

Values = dict[str, tuple[object, ...]]


class _Format(Struct, frozen=True):
    """Of one dialect: the fields that the parameters carry already, and values that ask for nothing."""

    carried: frozenset[str] = frozenset()
    defaults: Values = {}


# In all paths [] is any place of an array. How much an answer may cost, where it is cached and what it is
# filed under is bookkeeping, and so is how much of a machine it may use.
_SILENT = frozenset(
    {
        "billing_policy",
        "cache_control",
        "context_management",
        "diagnostics",
        "keep_alive",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "shift",
        "speed",
        "store",
        "stream_options",
        "truncate",
        "user",
        "user_profile_id",
        "workspace_id",
        "options.main_gpu",
        "options.num_batch",
        "options.num_ctx",
        "options.num_gpu",
        "options.num_keep",
        "options.num_predict",
        "options.num_thread",
        "options.use_mmap",
        "tools[].cache_control",
        "tools[].defer_loading",
        "tools[].eager_input_streaming",
        "tools[].input_examples",
    }
)
# Values that every upstream can keep without being told.
_DEFAULTS: Values = {
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "options.repeat_last_n": (64,),
    "options.repeat_penalty": (1,),
    "options.tfs_z": (1,),
    "options.top_k": (-1,),
    "options.typical_p": (1,),
    "tools[].allowed_callers": (["direct"],),
}
_FORMATS = {
    "anthropic_messages": _Format(
        frozenset(
            {
                "anthropic_beta",
                "output_config.effort",
                "thinking",
                "tools[].description",
                "tools[].input_schema",
                "tools[].name",
                "tools[].strict",
            }
        ),
        {"tools[].type": ("custom",)},
    ),
    "ollama_chat": _Format(defaults={"think": (True,)}),
    "ollama_generate": _Format(defaults={"think": (True,)}),
    "openai_chat": _Format(frozenset({"tools[].function"}), {"tools[].type": ("function",)}),
}
_HAS_NAMES = "openai_chat"
# Anthropic's blocks of an assistant's turn that other formats have words for, or need not know.
_TOLD_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
# Fields that ask for something even where they are empty.
_MEANT_WHEN_EMPTY = frozenset({"web_search_options"})
# What is looked into; anything else is refused as a whole.
_OPENED = frozenset({"options", "output_config", "tools", "tools[]"})
# These programs turn thinking off in every request, whatever the model.
_OFF_BY_HABIT = frozenset({"anthropic_messages", "ollama_chat", "ollama_generate"})


def refuse_foreign_fields(
    request: ChatRequest, dialect: str, upstream: str, told: Collection[str] = ()
) -> None:
    """InvalidRequest for a field of the caller's own dialect that this upstream cannot be told.

    `told` names fields of other dialects that this one has, too.
    """
    if request.dialect == dialect:
        return
    form = _FORMATS.get(request.dialect, _Format())
    for name, value in request.extra.items():
        if name not in told and (lost := _lost(name, value, form)):
            raise InvalidRequest(
                f"{upstream} cannot be told `{lost}`",
                param=lost,
                hint="leave it out or choose another provider",
            )


def told(request: ChatRequest, dialect: str, upstream: str) -> ChatRequest:
    """The request with its messages as an upstream of this dialect can be told them.

    That a tool failed becomes a word in its result. InvalidRequest for what has no words here: a name, a
    sound, an old kind of call, and blocks that only the vendor of another format can read.
    """
    messages = tuple([_told(message, dialect, upstream) for message in request.messages])
    return request if messages == request.messages else replace(request, messages=messages)


def is_off_by_habit(request: ChatRequest) -> bool:
    """Whether no thinking is asked for by a caller who means: if there is any. Others insist."""
    return request.params.reasoning_effort == "none" and request.dialect in _OFF_BY_HABIT


def _lost(path: str, value: Any, form: _Format) -> str:
    """The path of the first thing in a field that would change the answer; "" where there is none."""
    place = re.sub(r"\[\d+\]", "[]", path)
    if place not in _MEANT_WHEN_EMPTY and not value:
        return ""
    if place in _SILENT or place in form.carried:
        return ""
    if value in _DEFAULTS.get(place, ()) or value in form.defaults.get(place, ()):
        return ""
    inner: list[tuple[str, Any]] = []
    if place in _OPENED and isinstance(value, dict):
        # Of what kind a tool is says more than what is said of it.
        inner = [(f"{path}.{name}", value[name]) for name in sorted(value, key=lambda name: name != "type")]
    elif place in _OPENED and isinstance(value, list):
        inner = [(f"{path}[{position}]", item) for position, item in enumerate(value)]
    else:
        return path
    return next(filter(None, (_lost(where, item, form) for where, item in inner)), "")


def _told(message: Message, dialect: str, upstream: str) -> Message:
    plain = isinstance(message.content, str)
    if plain and not message.extra and not message.name:
        return message
    foreign = [
        fields for home, fields in message.extra.items() if home != dialect and isinstance(fields, dict)
    ]
    lost = [name for fields in foreign for name in _lost_of_a_message(fields)]
    if message.name and message.role != "tool" and dialect != _HAS_NAMES:
        lost.append("name")
    if not plain:
        lost += [name for part in message.content for name in _lost_of_a_part(part, dialect)]
    if lost:
        raise InvalidRequest(
            f"{upstream} cannot be told `{lost[0]}` of a message", param="messages", hint="leave it out"
        )
    failed = any(fields.get("is_error") is True for fields in foreign)
    return _with_failure(message) if failed else message


def _lost_of_a_message(fields: dict[str, Any]) -> list[str]:
    lost = [name for name in ("audio", "function_call") if fields.get(name)]
    blocks = fields.get("content")
    kinds = (
        [block.get("type") for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
    )
    return lost + [str(kind) for kind in kinds if kind not in _TOLD_BLOCKS]


def _lost_of_a_part(part: Any, dialect: str) -> list[str]:
    extra = part.extra.items() if isinstance(part, FilePart) else ()
    return ["context" for home, fields in extra if home != dialect and fields.get("context")]


def _with_failure(message: Message) -> Message:
    """A tool's result that says of itself that the tool failed."""
    if isinstance(message.content, str):
        return replace(message, content=f"Error: {message.content}")
    return replace(message, content=(TextPart("Error: "), *message.content))

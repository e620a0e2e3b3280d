"""What one upstream can be told of a request: the rest is left out and named, or the request refused.

The one place where that is decided, for every provider and every format. What changes only the flavour of an
answer, or nothing of it, is left out. What would make it another answer than was asked for is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from modelway.dialects.foreign import is_off_by_habit
from modelway.errors import InvalidRequest
from modelway.types import ChatRequest, Params, ResponseFormat, ToolChoice

CODE = "unsupported_parameter"

Values = dict[str, tuple[object, ...]]


class _Format(Struct, frozen=True):
    """Of one format: fields that the parameters carry already, values that ask for nothing, own names."""

    carried: frozenset[str] = frozenset()
    defaults: Values = {}
    names: dict[str, str] = {}


# In all paths [] is any place of an array. How much an answer may cost, where it is cached, what it is filed
# under and how much of a machine it may use says nothing of the answer; how tokens are drawn, and hints at
# what it may look like, only change its flavour.
_LEFT_OUT = frozenset(
    {
        "billing_policy",
        "cache_control",
        "client_metadata",
        "context_management",
        "diagnostics",
        "image",
        "keep_alive",
        "max_tool_calls",
        "metadata",
        "min_p",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "repetition_penalty",
        "safety_identifier",
        "service_tier",
        "shift",
        "speed",
        "store",
        "top_a",
        "top_k",
        "truncate",
        "typical_p",
        "user",
        "user_profile_id",
        "verbosity",
        "workspace_id",
        "tools[].cache_control",
        "tools[].defer_loading",
        "tools[].eager_input_streaming",
        "tools[].input_examples",
    }
)
# All that is said in these is of that kind.
_LEFT_OUT_WITHIN = ("options.", "stream_options.")
# Values that every upstream can keep without being told.
_DEFAULTS: Values = {
    "modalities": (["text"],),
    "service_tier": ("auto", "default", "standard_only"),
    "verbosity": ("medium",),
    "options.num_predict": (-1, -2),
    "options.repeat_last_n": (64,),
    "options.repeat_penalty": (1,),
    "options.tfs_z": (1,),
    "options.top_k": (-1,),
    "options.typical_p": (1,),
    "tools[].allowed_callers": (["direct"],),
}
_OLLAMA = _Format(
    defaults={"think": (True,)},
    names={
        **{
            name: f"options.{name}"
            for name in ("temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty")
        },
        "max_tokens": "options.num_predict",
        "reasoning_effort": "think",
        "response_format": "format",
    },
)
_FORMATS = {
    "anthropic_messages": _Format(
        frozenset(
            {
                "anthropic_beta",
                "anthropic_version",
                "output_config.effort",
                "thinking",
                "tools[].description",
                "tools[].input_schema",
                "tools[].name",
                "tools[].strict",
            }
        ),
        {"tools[].type": ("custom",)},
        {
            "stop": "stop_sequences",
            "reasoning_effort": "thinking",
            "response_format": "output_config.format",
            "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        },
    ),
    "ollama_chat": _OLLAMA,
    "ollama_generate": _OLLAMA,
    "openai_chat": _Format(frozenset({"tools[].function"}), {"tools[].type": ("function",)}),
    "openai_responses": _Format(
        names={
            "max_tokens": "max_output_tokens",
            "reasoning_effort": "reasoning.effort",
            "response_format": "text.format",
        }
    ),
}
_UNKNOWN = _Format()
# What an upstream of the first format is told with the word of another one.
_SHARED = {"openai_chat": frozenset({"verbosity"})}
_SAME = {"ollama_generate": "ollama_chat"}
# Fields that ask for something even where they are empty.
_MEANT_WHEN_EMPTY = frozenset({"web_search_options"})
# What is looked into; anything else is taken as a whole.
_OPENED = frozenset({"options", "output_config", "stream_options", "tools", "tools[]"})
# Without these the answer would be another one.
_NEEDED = frozenset({"n", "tools", "tool_choice", "response_format"})
# What asks for no more than everybody does unasked.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "stop": ((),),
    "tools": ((),),
    "tool_choice": (ToolChoice("auto"), ToolChoice("none")),
    "response_format": (ResponseFormat(),),
}


class Fit:
    """What the upstream of one provider can be told; the arguments are as its ProviderInfo has them."""

    def __init__(
        self,
        name: str,
        *,
        dialect: str,
        params: Collection[str],
        supports: Collection[str],
        lacks: Collection[str] = (),
    ) -> None:
        unable = {word for word in ("tools", "n") if word not in supports}
        self._name = name
        self._dialect = dialect
        self._unheard = tuple(
            field for field in Params.__struct_fields__ if field not in params or field in unable
        )
        self._kinds = frozenset(supports)
        self._lacks = frozenset(lacks)
        self._takes_all = bool(dialect) and not (self._unheard or self._lacks) and self._writes_all
        self._shared = _SHARED.get(dialect, frozenset())

    @property
    def _writes_all(self) -> bool:
        return {"json_object", "json_schema"} <= self._kinds

    def of(self, request: ChatRequest) -> tuple[ChatRequest, tuple[str, ...]]:
        """The request as this upstream can be told it, and the names of the fields that are left out.

        InvalidRequest with the code `unsupported_parameter` where the answer would be another one without
        them; the next candidate may know them.
        """
        if self._takes_all and request.dialect == self._dialect:
            return request, ()
        form = _FORMATS.get(request.dialect, _UNKNOWN)
        request, ignored = self._typed(request, form)
        if request.extra:
            ignored += self._untyped(request, form)
        return (request, tuple(dict.fromkeys(ignored))) if ignored else (request, ())

    def _typed(self, request: ChatRequest, form: _Format) -> tuple[ChatRequest, list[str]]:
        params, ignored = request.params, list[str]()
        dropped: dict[str, None] = {}
        for name in self._unheard:
            value = getattr(params, name)
            if value is None:
                continue
            dropped[name] = None
            if value in _HARMLESS.get(name, ()) or (name == "tool_choice" and not params.tools):
                continue
            if name in _NEEDED:
                raise self._refusal(form.names.get(name, name))
            if name != "reasoning_effort" or not is_off_by_habit(request):
                ignored.append(form.names.get(name, name))
        wanted = params.response_format
        if wanted is not None and wanted.kind != "text" and wanted.kind not in self._kinds:
            raise self._refusal(
                form.names.get("response_format", "response_format"), self._kind_hint(), wanted.kind
            )
        return (replace(request, params=replace(params, **dropped)) if dropped else request), ignored

    def _untyped(self, request: ChatRequest, form: _Format) -> list[str]:
        asked: Iterable[str] = request.extra.keys()
        if _SAME.get(request.dialect, request.dialect) == self._dialect:
            asked = [name for name in asked if name in self._lacks] if self._lacks else ()
        ignored = []
        for name in asked:
            value = request.extra[name]
            if name in self._shared and name not in self._lacks:
                continue
            for path in _lost(name, value, form):
                place = _place(path)
                if place not in _LEFT_OUT and not place.startswith(_LEFT_OUT_WITHIN):
                    raise self._refusal(path)
                ignored.append(place)
        return ignored

    def _refusal(self, field: str, hint: str = "", value: str = "") -> InvalidRequest:
        said = f"`{field}` {value!r}" if value else f"`{field}`"
        return InvalidRequest(
            f"{self._name} cannot be told {said}",
            param=field,
            hint=hint or "leave it out or choose another provider",
            code=CODE,
            failover=True,
        )

    def _kind_hint(self) -> str:
        known = sorted(self._kinds & {"json_object", "json_schema"})
        return f"ask for {known[0]!r} or choose another provider" if known else ""


def _lost(path: str, value: Any, form: _Format) -> Iterator[str]:
    """The paths of everything in a field that asks for something."""
    place = _place(path)
    if not value and place not in _MEANT_WHEN_EMPTY:
        return
    if place in form.carried or value in _DEFAULTS.get(place, ()) or value in form.defaults.get(place, ()):
        return
    if place in _OPENED and isinstance(value, dict):
        # Of what kind a tool is says more than what is said of it.
        for name in sorted(value, key=lambda name: name != "type"):
            yield from _lost(f"{path}.{name}", value[name], form)
    elif place in _OPENED and isinstance(value, list):
        for position, item in enumerate(value):
            yield from _lost(f"{path}[{position}]", item, form)
    else:
        yield path


def _place(path: str) -> str:
    return re.sub(r"\[\d+\]", "[]", path) if "[" in path else path

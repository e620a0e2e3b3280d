"""What a provider yields: pieces of an answer, and its end."""

from __future__ import annotations

from typing import Any, Literal, Union

from msgspec import Struct
from msgspec.structs import force_setattr

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

_MOST_TOKENS = 1_000_000_000


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens as the upstream counted them.

    `cached_tokens` were read from its cache and `cache_write_tokens` written to it: both are part of
    `input_tokens`. `reasoning_tokens` are part of `output_tokens`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def is_plausible(self) -> bool:
        """Whether these can be counts of tokens: none is less than nothing, or more than anybody can read."""
        return (
            0 <= self.input_tokens <= _MOST_TOKENS
            and 0 <= self.output_tokens <= _MOST_TOKENS
            and 0 <= self.cached_tokens <= _MOST_TOKENS
            and 0 <= self.reasoning_tokens <= _MOST_TOKENS
            and 0 <= self.cache_write_tokens <= _MOST_TOKENS
        )


class _Delta(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What all deltas have.

    `choice` counts alternatives where the caller asked for n > 1. `raw` holds the upstream's own bytes
    in the caller's dialect: relayed as they are, never encoded again. None means that there are none
    and the event must be encoded; b"" that the bytes of another event carry this one already.
    """

    choice: int = 0
    raw: bytes | None = None


class TextDelta(_Delta, frozen=True, tag="text"):
    """More text of the answer."""

    text: str


class ReasoningDelta(_Delta, frozen=True, tag="reasoning"):
    """More of what the model thinks before it answers."""

    text: str


class RefusalDelta(_Delta, frozen=True, tag="refusal"):
    """More of the text by which the model declines."""

    text: str


class ToolCallDelta(_Delta, frozen=True, tag="tool_call"):
    """A piece of a tool call: `id` and `name` come with the first piece, `arguments` in pieces."""

    index: int = 0
    id: str = ""
    name: str = ""
    arguments: str = ""


class Citation(_Delta, frozen=True, tag="citation"):
    """A source of the answer. Where it is known, `text[start_index:end_index]` is what it supports."""

    url: str
    title: str = ""
    start_index: int | None = None
    end_index: int | None = None


class Opaque(Struct, frozen=True, tag="opaque"):
    """Upstream bytes that carry no text, call or reason: only a caller of the same dialect sees them."""

    raw: bytes


class UpstreamState(Struct, frozen=True, tag="state"):
    """What the provider needs to go on with this conversation; kept by the store, never sent out."""

    value: dict[str, Any]


class Continued(Struct, frozen=True, omit_defaults=True, kw_only=True, tag="continued"):
    """The answer of the provider `after` broke off with the error `code`; what follows is another one's.

    `seamless`: its upstream was given the beginning and went on with it; otherwise it was told to.
    """

    after: str
    code: str
    provider: str
    model: str = ""
    seamless: bool = False


class Finish(Struct, frozen=True, omit_defaults=True, kw_only=True, tag="finish"):
    """The end of the answer, exactly once, last.

    `raw` is the tail of the stream in the caller's dialect (without its end marker) or, where the caller
    did not ask for a stream, the upstream's whole body. `model` is the name that the upstream gave.
    `reasons` tells why each choice ended. A `usage` that cannot be is taken as none.
    """

    reasons: tuple[FinishReason, ...] = ("stop",)
    usage: Usage | None = None
    model: str = ""
    raw: bytes | None = None

    def __post_init__(self) -> None:
        if self.usage is not None and not self.usage.is_plausible:
            force_setattr(self, "usage", None)

    @property
    def reason(self) -> FinishReason:
        """Why the first choice ended."""
        return self.reasons[0]


Event = Union[
    TextDelta,
    ReasoningDelta,
    RefusalDelta,
    ToolCallDelta,
    Citation,
    Opaque,
    UpstreamState,
    Continued,
    Finish,
]
Delta = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, Citation)

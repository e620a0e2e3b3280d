"""What a caller asks: messages, how they are to be answered, and by whom."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from modelway.types.messages import Message


class Tool(Struct, frozen=True, omit_defaults=True):
    """A function that the model may call. `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class ToolChoice(Struct, frozen=True, omit_defaults=True):
    """How the model must use tools; `name` is set where one function is named."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""


class ResponseFormat(Struct, frozen=True, omit_defaults=True):
    """The shape that the answer must have."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    json_schema: dict[str, Any] = {}
    strict: bool | None = None


class Params(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a caller may ask of the sampling and of the shape of the answer; None: not asked."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: str | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None


class ChatRequest(Struct, frozen=True, kw_only=True):
    """One request to answer a chat.

    `dialect` names the wire format that the caller speaks, which is also the one in which the caller
    can take an event's `raw` bytes. `extra` holds the caller's other top-level fields; they travel to an
    upstream of the same dialect untouched. `new_from` is the index of the first message that the
    conversation did not know yet: a stateful upstream is sent only `messages[new_from:]`.
    `upstream_state` is what this provider yielded as UpstreamState in an earlier turn, if that is
    still the newest turn; `turn_id` names the turn in the store.

    `when_left` says what becomes of the answer when nobody reads it: it is cancelled, goes on for a grace
    time, or goes on to its end.

    `after_turn` names the turn that the messages follow, instead of a conversation; `after_message` the
    message of the conversation: "" is before the first, None where it stands. `store`: whether to keep the
    turn; None: where there is a `conversation_id`. One that is kept without is in a conversation of its own
    that no list shows. `echo` is what the dialect's answer repeats of the request; it is kept with the
    turn and makes it one that can be asked for by its id.
    """

    messages: tuple[Message, ...]
    model: str = ""
    provider: str = ""
    conversation_id: str = ""
    stream: bool = False
    include_usage: bool = False
    params: Params = Params()
    dialect: str = ""
    extra: dict[str, Any] = {}
    new_from: int = 0
    turn_id: str = ""
    upstream_state: dict[str, Any] | None = None
    after_turn: str = ""
    after_message: str | None = None
    store: bool | None = None
    echo: dict[str, Any] | None = None
    when_left: Literal["cancel", "grace", "finish"] = "cancel"

"""The waist: typed requests, and the events that answer them.

Every dialect decodes into these types and encodes from them; every provider takes a ChatRequest and
yields Events; the store keeps Messages. Nothing here does I/O and nothing here knows a wire format.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Union, assert_never

from msgspec import Struct
from msgspec.structs import force_setattr, replace

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

# In `extra` of instructions: the next turn does not inherit them.
THIS_TURN_ONLY = "this_turn_only"
_MOST_TOKENS = 1_000_000_000


class TextPart(Struct, frozen=True, tag="text", omit_defaults=True):
    """Text inside a message. `extra`: see Message."""

    text: str
    extra: dict[str, Any] = {}


class ImagePart(Struct, frozen=True, tag="image", omit_defaults=True):
    """An image: `url` is an http(s) or `data:` URL. Modelway never fetches it. `extra`: see Message."""

    url: str
    detail: str = ""
    extra: dict[str, Any] = {}


class FilePart(Struct, frozen=True, tag="file", omit_defaults=True):
    """A document, a PDF for example: `url` is a `data:` or http(s) URL, or else `file_id` names an upload.

    An upload is known only to the upstream that it was made to. `media_type` is "" where nobody said it.
    Modelway never fetches the file. `extra`: see Message.
    """

    url: str = ""
    file_id: str = ""
    name: str = ""
    media_type: str = ""
    extra: dict[str, Any] = {}


class OtherPart(Struct, frozen=True, tag="other"):
    """A content part that the waist has no type for (audio, ...), as its dialect wrote it."""

    dialect: str
    value: dict[str, Any]


Part = Union[TextPart, ImagePart, FilePart, OtherPart]


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """A call that the model asks for. `arguments` is the JSON text exactly as the model wrote it."""

    id: str
    name: str
    arguments: str = "{}"


class _Delta(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What all deltas have.

    `choice` counts alternatives where the caller asked for n > 1. `raw` holds the upstream's own bytes
    in the caller's dialect: relayed as they are, never encoded again. None means that there are none
    and the event must be encoded; b"" that the bytes of another event carry this one already.
    """

    choice: int = 0
    raw: bytes | None = None


class Citation(_Delta, frozen=True, tag="citation"):
    """A source of the answer. Where it is known, `text[start_index:end_index]` is what it supports."""

    url: str
    title: str = ""
    start_index: int | None = None
    end_index: int | None = None


class Message(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One message of a conversation.

    `content` is plain text where there is nothing but text, otherwise a tuple of parts. `annotations`
    are the sources that an answer cites. `extra` holds the fields that the waist does not know, under
    the name of the dialect that they came in.
    """

    role: Role
    content: str | tuple[Part, ...] = ""
    name: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    annotations: tuple[Citation, ...] = ()
    extra: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """All text of the message, parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def refusal(self) -> str:
        """What the assistant declined with: kept by the store, or as the caller's dialect wrote it."""
        for fields in (self.extra, *self.extra.values()):
            if isinstance(fields, dict) and isinstance(said := fields.get("refusal"), str):
                return said
        return ""


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


class Rules(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a caller may do; empty and 0 mean no limit.

    `providers` are names in any case; `models` are patterns ("gpt-*", "Groq/*") for the names that callers
    use and for the upstreams'. Budgets are in billionths of a dollar, by the day and month of UTC.
    """

    providers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    streams: int = 0
    daily_budget: int = 0
    monthly_budget: int = 0


class Caller(Struct, frozen=True):
    """Who asks. Conversations belong to a caller and are invisible to every other one.

    `rules` is None where there are none.
    """

    name: str
    rules: Rules | None = None


class Model(Struct, frozen=True, omit_defaults=True):
    """A model that a provider offers. `context_length` is in tokens, 0: not known."""

    id: str
    created: int = 0
    owned_by: str = ""
    context_length: int = 0


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


class Choice(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One alternative of an answer."""

    message: Message
    refusal: str = ""
    finish_reason: FinishReason | None = None


class Completion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All events of one answer, collected. `raw` is the upstream's own body, if there is one."""

    choices: tuple[Choice, ...]
    usage: Usage | None = None
    model: str = ""
    raw: bytes | None = None
    provider: str = ""
    conversation_id: str = ""

    @property
    def message(self) -> Message:
        """The message of the first choice."""
        return self.choices[0].message

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].message.text

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first choice ended; None: it was cut off."""
        return self.choices[0].finish_reason


class _ChoiceParts:
    """What has come of one choice so far."""

    __slots__ = ("calls", "citations", "reasoning", "refusal", "text")

    def __init__(self) -> None:
        self.citations: list[Citation] = []
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: dict[int, list[str]] = {}

    def choice(self, reason: FinishReason | None) -> Choice:
        calls = tuple(
            ToolCall(id=call[0], name=call[1], arguments="".join(call[2:]))
            for _, call in sorted(self.calls.items())
        )
        message = Message(
            role="assistant",
            content="".join(self.text),
            reasoning="".join(self.reasoning),
            tool_calls=calls,
            annotations=tuple(self.citations),
        )
        return Choice(message=message, refusal="".join(self.refusal), finish_reason=reason)


class Collector:
    """Folds events into a Completion; at any moment, so that a cut answer is not lost."""

    def __init__(self) -> None:
        self._choices: list[_ChoiceParts] = [_ChoiceParts()]
        self.finish: Finish | None = None

    def add(self, event: Event) -> None:
        """Take the next event of the answer."""
        match event:
            case TextDelta():
                self._parts(event.choice).text.append(event.text)
            case ReasoningDelta():
                self._parts(event.choice).reasoning.append(event.text)
            case RefusalDelta():
                self._parts(event.choice).refusal.append(event.text)
            case ToolCallDelta():
                self._add_call(event)
            case Citation():
                bare = event if event.raw is None and not event.choice else replace(event, raw=None, choice=0)
                self._parts(event.choice).citations.append(bare)
            case Finish():
                self.finish = event
            case Opaque() | UpstreamState() | Continued():
                pass
            case _:
                assert_never(event)

    def completion(self) -> Completion:
        """What has been collected; `finish_reason` is None where no Finish has come yet."""
        finish = self.finish
        reasons: tuple[FinishReason | None, ...] = finish.reasons if finish else ()
        padded = reasons + (reasons[-1] if reasons else None,) * (len(self._choices) - len(reasons))
        return Completion(
            choices=tuple(parts.choice(reason) for parts, reason in zip(self._choices, padded, strict=False)),
            usage=finish.usage if finish else None,
            model=finish.model if finish else "",
            raw=finish.raw if finish else None,
        )

    def _parts(self, choice: int) -> _ChoiceParts:
        while len(self._choices) <= choice:
            self._choices.append(_ChoiceParts())
        return self._choices[choice]

    def _add_call(self, delta: ToolCallDelta) -> None:
        call = self._parts(delta.choice).calls.setdefault(delta.index, ["", ""])
        call[0] = call[0] or delta.id
        call[1] = call[1] or delta.name
        call.append(delta.arguments)


def collect(events: Iterable[Event]) -> Completion:
    """Fold all events of one answer into a Completion."""
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.completion()

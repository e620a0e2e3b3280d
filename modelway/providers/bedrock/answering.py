"""Reads what Bedrock's Converse API answers: whole, or as an event stream of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from modelway.dialects import sse
from modelway.dialects.replay import Block, state_after
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamTimeout,
)
from modelway.types import (
    Citation,
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UpstreamState,
    Usage,
)

T = TypeVar("T")

MAX_MESSAGE = 500
MAX_BLOCKS = 10_000
_CONTEXT_CODE = "context_length_exceeded"
_CONTEXT_WORDS = ("too long", "too many input tokens", "context limit", "context window", "context length")

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_ERRORS: dict[str, type[GatewayError]] = {
    "internalServerException": UpstreamFailed,
    "modelStreamErrorException": UpstreamFailed,
    "modelTimeoutException": UpstreamTimeout,
    "serviceUnavailableException": UpstreamOverloaded,
    "throttlingException": UpstreamRateLimited,
    "validationException": InvalidRequest,
}
_BROKEN = ("malformed_model_output", "malformed_tool_use")


class Frame(Struct, frozen=True):
    """One message of an event stream."""

    headers: dict[str, str]
    payload: bytes


class FrameReader(Protocol):
    """Takes an event stream apart."""

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take bytes, cut anywhere, and give the frames that they complete."""
        ...


class _ToolUse(Struct):
    input: Any = None
    toolUseId: str = ""  # noqa: N815
    name: str = ""


class _Reasoning(Struct):
    text: str | None = None
    signature: str | None = None
    redactedContent: str | None = None  # noqa: N815
    reasoningText: dict[str, str] | None = None  # noqa: N815


class _Said(Struct):
    text: str | None = None


class _Cited(Struct):
    content: list[_Said] | None = None
    citations: list[dict[str, Any]] | None = None


class _Piece(Struct):
    """A block, or a piece of one: exactly one of these is there."""

    text: str | None = None
    toolUse: _ToolUse | None = None  # noqa: N815
    reasoningContent: _Reasoning | None = None  # noqa: N815
    citation: dict[str, Any] | None = None
    citationsContent: _Cited | None = None  # noqa: N815


class _Usage(Struct):
    inputTokens: int = 0  # noqa: N815
    outputTokens: int = 0  # noqa: N815
    totalTokens: int = 0  # noqa: N815
    cacheReadInputTokens: int | None = None  # noqa: N815
    cacheWriteInputTokens: int | None = None  # noqa: N815

    def usage(self) -> Usage:
        """In our words: what the cache had is part of the total alone."""
        return Usage(
            input_tokens=max(self.inputTokens, self.totalTokens - self.outputTokens),
            output_tokens=self.outputTokens,
            cached_tokens=self.cacheReadInputTokens or 0,
            cache_write_tokens=self.cacheWriteInputTokens or 0,
        )


class _Body(Struct):
    contentBlockIndex: int = 0  # noqa: N815
    start: _Piece | None = None
    delta: _Piece | None = None
    stopReason: str | None = None  # noqa: N815
    usage: _Usage | None = None
    message: Any = None


class _Message(Struct):
    content: list[Block]


class _Output(Struct):
    message: _Message


class _Whole(Struct):
    output: _Output
    stopReason: str  # noqa: N815
    usage: _Usage | None = None


class _Content:
    """The blocks of one answer, as events and as they were."""

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}
        self._calls: dict[int, int] = {}
        self._arguments: dict[int, str] = {}
        self._thinks = False

    def start(self, index: int, piece: _Piece) -> list[Event]:
        if len(self._blocks) >= MAX_BLOCKS:
            raise UpstreamProtocolError(f"the upstream's answer has more than {MAX_BLOCKS} blocks")
        use = piece.toolUse
        if use is None:
            return []
        if not (use.toolUseId and use.name):
            raise UpstreamProtocolError("the upstream's answer has a call without an id or a name")
        call = self._calls.setdefault(index, len(self._calls))
        self._blocks[index] = {"toolUse": {"toolUseId": use.toolUseId, "name": use.name, "input": {}}}
        self._arguments[index] = ""
        return [ToolCallDelta(index=call, id=use.toolUseId, name=use.name)]

    def add(self, index: int, piece: _Piece) -> list[Event]:
        if piece.text is not None:
            block = self._blocks.setdefault(index, {"text": ""})
            block["text"] = block.get("text", "") + piece.text
            return [TextDelta(text=piece.text)] if piece.text else []
        if piece.reasoningContent is not None:
            return self._reason(index, piece.reasoningContent)
        if piece.toolUse is not None and index in self._arguments:
            arguments = piece.toolUse.input if isinstance(piece.toolUse.input, str) else ""
            self._arguments[index] += arguments
            return [ToolCallDelta(index=self._calls[index], arguments=arguments)] if arguments else []
        return list(_citations([piece.citation])) if piece.citation else []

    def stop(self, index: int) -> list[Event]:
        arguments = self._arguments.pop(index, None)
        if arguments is None:
            return []
        self._blocks[index]["toolUse"]["input"] = _object(arguments)
        return [] if arguments else [ToolCallDelta(index=self._calls[index], arguments="{}")]

    def whole(self, index: int, block: Block) -> list[Event]:
        """A block that came in one piece."""
        piece = msgspec.convert(block, _Piece)
        if piece.toolUse is not None:
            arguments = msgspec.json.encode(piece.toolUse.input or {}).decode()
            call = self.start(index, piece)
            self._blocks[index] = block
            return [*call, ToolCallDelta(index=self._calls[index], arguments=arguments)]
        if piece.citationsContent is not None:
            cited = piece.citationsContent
            text = "".join(part.text or "" for part in cited.content or ())
            return [*self.add(index, _Piece(text=text)), *_citations(cited.citations)]
        events = self.add(index, piece)
        self._blocks[index] = block
        return events

    def state(self, turns: Sequence[list[Block]], stop_reason: str) -> list[UpstreamState]:
        """What the next turn of a tool loop needs; `turns` were replayed for this answer."""
        content = [block for _, block in sorted(self._blocks.items())]
        return [state_after(turns, content)] if (turns or self._thinks) and stop_reason == "tool_use" else []

    def _reason(self, index: int, piece: _Reasoning) -> list[Event]:
        self._thinks = True
        block = self._blocks.setdefault(index, {}).setdefault("reasoningContent", {})
        if piece.redactedContent is not None:
            block["redactedContent"] = block.get("redactedContent", "") + piece.redactedContent
            return []
        whole = piece.reasoningText or {}
        text = piece.text or whole.get("text", "")
        kept = block.setdefault("reasoningText", {"text": ""})
        kept["text"] += text
        if signature := piece.signature or whole.get("signature"):
            kept["signature"] = kept.get("signature", "") + signature
        return [ReasoningDelta(text=text)] if text else []


class EventDecoder:
    """Reads one streamed answer. `turns` are those that the request has sent back (see `replayed`)."""

    def __init__(self, frames: FrameReader, *, turns: Sequence[list[Block]] = (), model: str = "") -> None:
        self.finished = False
        self._frames = frames
        self._turns = turns
        self._model = model
        self._content = _Content()
        self._stop_reason = ""
        self._usage: _Usage | None = None

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Take bytes, cut anywhere; give the events that they complete, and only then raise."""
        events: list[Event] = []
        for frame in self._frames.feed(chunk) if not self.finished else ():
            try:
                events += self._events(frame)
            except GatewayError as error:
                return sse.then_raise(events, error)
            if self._stop_reason and self._usage:
                return [*events, *self._finish()]
        return events

    def close(self) -> Iterable[Event]:
        """The body has ended: give the Finish, or raise UpstreamProtocolError("upstream_truncated")."""
        if self.finished:
            return []
        if not self._stop_reason:
            raise UpstreamProtocolError(
                "the upstream's stream ended without a stop reason", code="upstream_truncated"
            )
        return self._finish()

    def _events(self, frame: Frame) -> list[Event]:
        kind = frame.headers.get(":message-type", "event")
        if kind == "error":
            raise UpstreamFailed(
                f"the upstream reported an error: {frame.headers.get(':error-message', 'no reason given')}"
            )
        body = _decoded(frame.payload, _BODY)
        if kind == "exception":
            raise _exception(frame.headers.get(":exception-type", ""), body.message)
        match frame.headers.get(":event-type"):
            case "contentBlockStart" if body.start is not None:
                return self._content.start(body.contentBlockIndex, body.start)
            case "contentBlockDelta" if body.delta is not None:
                return self._content.add(body.contentBlockIndex, body.delta)
            case "contentBlockStop":
                return self._content.stop(body.contentBlockIndex)
            case "messageStop":
                self._stop_reason = _known(body.stopReason or "")
            case "metadata":
                self._usage = body.usage
        return []

    def _finish(self) -> list[Event]:
        self.finished = True
        return _ending(self._content, self._turns, self._stop_reason, self._usage, self._model)


def decode_completion(body: bytes, *, turns: Sequence[list[Block]] = (), model: str = "") -> list[Event]:
    """The events of an answer that came in one piece; the last is Finish."""
    whole = _decoded(body, _WHOLE)
    content, events = _Content(), list[Event]()
    try:
        for index, block in enumerate(whole.output.message.content):
            events += content.whole(index, block)
    except msgspec.ValidationError as error:
        raise UpstreamProtocolError("the upstream's answer has a block that cannot be read") from error
    return [*events, *_ending(content, turns, _known(whole.stopReason), whole.usage, model)]


def decode_error(status: int, body: bytes) -> tuple[str, str]:
    """(message, code) out of an error reply, as well as it can be read."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    fields = value if isinstance(value, dict) else {}
    text = fields.get("message") or fields.get("Message")
    message = text[:MAX_MESSAGE] if isinstance(text, str) else f"status {status} without a reason"
    return message, _CONTEXT_CODE if _is_about_context(message) else ""


def _ending(
    content: _Content, turns: Sequence[list[Block]], stop_reason: str, usage: _Usage | None, model: str
) -> list[Event]:
    finish = Finish(
        reasons=(_REASONS.get(stop_reason, "stop"),), usage=usage.usage() if usage else None, model=model
    )
    return [*content.state(turns, stop_reason), finish]


def _known(stop_reason: str) -> str:
    if stop_reason in _BROKEN:
        raise UpstreamProtocolError(f"the model's answer cannot be used: {stop_reason.replace('_', ' ')}")
    return stop_reason


def _exception(kind: str, message: Any) -> GatewayError:
    text = message[:MAX_MESSAGE] if isinstance(message, str) and message else kind
    said = f"the upstream reported an error: {text}"
    if kind == "validationException" and _is_about_context(text):
        return ContextTooLong(said)
    return _ERRORS.get(kind, UpstreamFailed)(said)


def _is_about_context(text: str) -> bool:
    return any(words in text.lower() for words in _CONTEXT_WORDS)


def _citations(cited: Any) -> Iterable[Citation]:
    """The sources that have an address."""
    for one in cited if isinstance(cited, list) else ():
        location = one.get("location") if isinstance(one, dict) else None
        web = location.get("web") if isinstance(location, dict) else None
        url = web.get("url") if isinstance(web, dict) else None
        if isinstance(url, str) and url:
            title = one.get("title")
            yield Citation(url=url, title=title if isinstance(title, str) else "")


def _object(arguments: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream's answer cannot be read") from error


_BODY = msgspec.json.Decoder(_Body)
_WHOLE = msgspec.json.Decoder(_Whole)

"""The shapes on the wire that streamed and whole answers of Ollama share."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from modelway.dialects.envelope import Envelope
from modelway.errors import ContextTooLong, GatewayError, UpstreamFailed, UpstreamProtocolError
from modelway.types import FinishReason, Usage

NAME = "ollama_chat"
# The same format but for where the question and the answer stand.
GENERATE = "ollama_generate"
ID_PREFIX = ""
STREAM_TYPE = b"application/x-ndjson"
# The format has no line that says nothing.
KEEP_ALIVE = b""
MAX_MESSAGE = 500

_CONTEXT_WORDS = ("exceed_context_size_error", "exceeds the available context size", "context length")


class WireFunction(Struct):
    """The function of a call; its arguments are an object, kept as the upstream wrote it."""

    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class WireToolCall(Struct):
    """A tool call, always whole. Older servers give no id."""

    function: WireFunction
    id: str | None = None


class WireMessage(Struct):
    """A piece of an answer, or all of it."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[WireToolCall] | None = None


class Line(Struct):
    """One line of a stream, or a whole body, of /api/chat (`message`) or /api/generate (`response`)."""

    model: str | None = None
    message: WireMessage | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    prompt_eval_cached_count: int | None = None
    eval_count: int | None = None
    error: Any = None

    def said(self) -> WireMessage:
        """The piece of the answer in this line."""
        return self.message or WireMessage(content=self.response, thinking=self.thinking)

    def usage(self) -> Usage | None:
        """Tokens, where the line counts them."""
        if self.prompt_eval_count is None and self.eval_count is None:
            return None
        return Usage(
            input_tokens=self.prompt_eval_count or 0,
            output_tokens=self.eval_count or 0,
            cached_tokens=self.prompt_eval_cached_count or 0,
        )


_decode_line = msgspec.json.Decoder(Line).decode


def read_line(data: bytes) -> Line:
    """One line, or a whole body; bytes that are not UTF-8 become U+FFFD."""
    try:
        return _decode_line(data.decode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream sent a line that is not an answer of /api/chat") from error


def new_call_id() -> str:
    """An id for a call that the upstream gave none."""
    return "call_" + secrets.token_hex(12)


def finish_reason(word: str | None, *, has_calls: bool) -> FinishReason:
    """Ollama's word for the end; it has none for calls, and words of its own count as an ordinary stop."""
    if word == "length":
        return "length"
    if word == "content_filter":
        return "content_filter"
    return "tool_calls" if has_calls else "stop"


def done_reason(reason: FinishReason) -> str:
    """The word that Ollama's clients know."""
    return "stop" if reason == "tool_calls" else reason


def write_usage(usage: Usage | None) -> dict[str, int]:
    """The counts as Ollama writes them."""
    if usage is None:
        return {}
    counts = {"prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens}
    return counts | ({"prompt_eval_cached_count": usage.cached_tokens} if usage.cached_tokens else {})


def time_of(envelope: Envelope) -> str:
    """`created_at`, in RFC 3339."""
    return datetime.fromtimestamp(envelope.created, UTC).isoformat().replace("+00:00", "Z")


def error_text(value: Any, fallback: str) -> str:
    """The words of an `error` member, which is a string that may hold JSON of the engine below."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = msgspec.json.decode(value, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return str(value)[:MAX_MESSAGE]
    while isinstance(value, dict):
        value = value.get("error") or value.get("message") or ""
    return str(value)[:MAX_MESSAGE] if value else fallback


def is_context_error(text: str) -> bool:
    """Whether the words say that the model cannot read so much; Ollama says it in words only."""
    return any(words in text for words in _CONTEXT_WORDS)


def error_in_stream(error: Any) -> GatewayError:
    """What an error line inside a 200 answer means."""
    text = error_text(error, "no reason given")
    kind = ContextTooLong if is_context_error(str(error)) else UpstreamFailed
    return kind(f"the upstream reported an error: {text}")

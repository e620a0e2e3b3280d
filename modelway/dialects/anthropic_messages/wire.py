"""The shapes on the wire that streamed and whole answers of Anthropic's share."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from modelway.dialects import sse
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    RequestTooLarge,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
)
from modelway.types import FinishReason, Usage

NAME = "anthropic_messages"
# In `extra` of a request: the features that the caller has turned on.
BETA = "anthropic_beta"
# The version of the format that a caller speaks, where a header or, for the clouds, a field says it.
VERSION_SPOKEN = "anthropic_version"
ID_PREFIX = "msg_"
STREAM_TYPE = sse.STREAM_TYPE
KEEP_ALIVE = b'event: ping\ndata: {"type":"ping"}\n\n'
MAX_MESSAGE = 500

# "pause_turn" asks to be sent back so that the answer goes on: what there is of it is not all.
_FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_ERRORS: dict[str, type[GatewayError]] = {
    "invalid_request_error": InvalidRequest,
    "authentication_error": UpstreamRefusedCredential,
    "billing_error": UpstreamRefusedCredential,
    "permission_error": UpstreamRefusedCredential,
    "not_found_error": ModelNotFound,
    "request_too_large": RequestTooLarge,
    "rate_limit_error": UpstreamRateLimited,
    "api_error": UpstreamFailed,
    "timeout_error": UpstreamTimeout,
    "overloaded_error": UpstreamOverloaded,
}
# A request that is too long is an ordinary invalid one; only its words tell.
_CONTEXT_WORDS = ("prompt is too long", "exceed context limit", "exceeds the context window")
_CONTEXT_CODE = "context_length_exceeded"


class _OutputDetails(Struct):
    thinking_tokens: int | None = None


class WireUsage(Struct):
    """`usage` as Anthropic writes it. In a stream later counts replace earlier ones."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None

    def with_later(self, later: WireUsage) -> WireUsage:
        """These counts, but for those that the later ones have."""
        fields = msgspec.structs.asdict(later)
        return msgspec.structs.replace(self, **{name: value for name, value in fields.items() if value})

    def usage(self) -> Usage:
        """The same in our words: there, what the cache had is not part of `input_tokens`."""
        cached, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        details = self.output_tokens_details
        return Usage(
            input_tokens=(self.input_tokens or 0) + cached + written,
            output_tokens=self.output_tokens or 0,
            cached_tokens=cached,
            reasoning_tokens=(details and details.thinking_tokens) or 0,
            cache_write_tokens=written,
        )


def write_usage(usage: Usage | None) -> dict[str, Any]:
    """`usage` as Anthropic writes it."""
    usage = usage or Usage()
    fresh = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
    fields: dict[str, Any] = {
        "input_tokens": max(fresh, 0),
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
    }
    if usage.reasoning_tokens:
        fields["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return fields


def finish_reason(word: str) -> FinishReason:
    """An upstream's word for the end; new ones count as an ordinary stop."""
    return _FINISH_REASONS.get(word, "stop")


def stop_fields(reason: FinishReason, refusal: str) -> dict[str, Any]:
    """Why an answer ended; what the model declined with is the explanation of a refusal."""
    fields: dict[str, Any] = {
        "stop_reason": "refusal" if refusal else _STOP_REASONS[reason],
        "stop_sequence": None,
    }
    if refusal:
        fields["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    return fields


def read_error(error: Any) -> tuple[str, str]:
    """Message and code out of an `error` member; the message is cut to size."""
    if not isinstance(error, dict):
        return str(error or "")[:MAX_MESSAGE], ""
    message, code = error.get("message"), error.get("type")
    text = message if isinstance(message, str) else ""
    if code == "invalid_request_error" and any(words in text.lower() for words in _CONTEXT_WORDS):
        code = _CONTEXT_CODE
    return text[:MAX_MESSAGE], code if isinstance(code, str) else ""


def error_in_stream(error: Any) -> GatewayError:
    """What an error inside a 200 answer means."""
    message, code = read_error(error)
    said = f"the upstream reported an error: {message or code or 'no reason given'}"
    if code == _CONTEXT_CODE:
        return ContextTooLong(said)
    kind = _ERRORS.get(code, UpstreamFailed)
    return ModelNotFound(said, failover=True) if kind is ModelNotFound else kind(said)

"""The shapes on the wire that streamed and whole answers share."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import msgspec
from msgspec import Struct

from modelway.dialects import sse
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
)
from modelway.types import Citation, FinishReason, ToolCallDelta, Usage

NAME = "openai_chat"
ID_PREFIX = "chatcmpl-"
STREAM_TYPE = sse.STREAM_TYPE
KEEP_ALIVE = sse.KEEP_ALIVE

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_ERROR_CODES: dict[str, type[GatewayError]] = {
    "400": InvalidRequest,
    "401": UpstreamRefusedCredential,
    "403": UpstreamRefusedCredential,
    "429": UpstreamRateLimited,
    "503": UpstreamOverloaded,
    "529": UpstreamOverloaded,
    "authentication_error": UpstreamRefusedCredential,
    "context_length_exceeded": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,
    "invalid_api_key": UpstreamRefusedCredential,
    "invalid_request_error": InvalidRequest,
    "overloaded": UpstreamOverloaded,
    "overloaded_error": UpstreamOverloaded,
    "rate_limit_error": UpstreamRateLimited,
    "rate_limit_exceeded": UpstreamRateLimited,
}
MAX_MESSAGE = 500
MAX_CHOICES = 128


class _InputDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct):
    reasoning_tokens: int | None = None


class WireUsage(Struct):
    """`usage` as OpenAI writes it."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None

    def usage(self) -> Usage:
        """The same in our words."""
        details = self.prompt_tokens_details or _InputDetails()
        thought = self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens
        return Usage(
            input_tokens=self.prompt_tokens or 0,
            output_tokens=self.completion_tokens or 0,
            cached_tokens=details.cached_tokens or 0,
            reasoning_tokens=thought or 0,
            cache_write_tokens=details.cache_write_tokens or 0,
        )


class WireFunction(Struct):
    """The function of a tool call, or a piece of it."""

    name: str | None = None
    arguments: str | None = None


class WireToolCall(Struct):
    """A tool call, or a piece of it."""

    index: int = 0
    id: str | None = None
    function: WireFunction | None = None

    def call(self, choice: int, index: int, raw: bytes | None = None) -> ToolCallDelta:
        """The same in our words; a call that its upstream gave no id gets one with its name."""
        function = self.function or WireFunction()
        id = self.id or (f"call_{token_hex(12)}" if function.name else "")
        return ToolCallDelta(
            choice=choice,
            index=index,
            id=id,
            name=function.name or "",
            arguments=function.arguments or "",
            raw=raw,
        )


class _UrlCitation(Struct):
    url: str
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class WireMessage(Struct):
    """A message of an answer, or a delta of it. `content` is a list with some upstreams (Mistral)."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[WireToolCall] | None = None
    annotations: Any = None

    def text(self) -> str:
        """Plain text of the content."""
        if isinstance(self.content, str):
            return self.content
        parts = self.content or []
        return "".join(
            part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
        )

    def citations(self, choice: int, raw: bytes | None = None) -> Iterator[Citation]:
        """The sources among the annotations; kinds that the waist has no type for are passed over."""
        for annotation in self.annotations if isinstance(self.annotations, list) else ():
            cited = annotation.get("url_citation") if isinstance(annotation, dict) else None
            try:
                found = msgspec.convert(cited, _UrlCitation)
            except msgspec.ValidationError:
                continue
            yield Citation(
                url=found.url,
                title=found.title or "",
                start_index=found.start_index,
                end_index=found.end_index,
                choice=choice,
                raw=raw,
            )


def write_citation(citation: Citation) -> dict[str, Any]:
    """A source as OpenAI writes it; a place that is not known is null, for clients that read the field."""
    cited = {
        "url": citation.url,
        "title": citation.title,
        "start_index": citation.start_index,
        "end_index": citation.end_index,
    }
    return {"type": "url_citation", "url_citation": cited}


def write_usage(usage: Usage) -> dict[str, Any]:
    """`usage` as OpenAI writes it; tokens written to a cache are a detail that it has no word for."""
    written = {"cache_write_tokens": usage.cache_write_tokens} if usage.cache_write_tokens else {}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, **written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def choice_index(index: int) -> int:
    """The index of a choice, if it can be one: every index below it takes memory."""
    if not 0 <= index < MAX_CHOICES:
        raise UpstreamProtocolError(f"the upstream's answer has a choice with the index {index}")
    return index


def finish_reason(word: str) -> FinishReason:
    """An upstream's word for the end; words of its own count as an ordinary stop."""
    return _FINISH_REASONS.get(word, "stop")


def read_error(error: Any) -> tuple[str, str]:
    """Message and code out of an `error` member, whatever its shape; the message is cut to size."""
    if isinstance(error, dict):
        message = error.get("message") or error.get("msg") or error.get("detail") or ""
        code, kind = error.get("code"), error.get("type")
        # Some servers put the status into `code` and the reason into `type`.
        code = kind if isinstance(code, int) and str(kind) in _ERROR_CODES else code or kind or ""
    else:
        message, code = error, ""
    text = message if isinstance(message, str) else msgspec.json.encode(message).decode()
    return text[:MAX_MESSAGE], str(code)


def error_in_stream(error: Any) -> GatewayError:
    """What an error object inside a 200 answer means."""
    message, code = read_error(error)
    said = f"the upstream reported an error: {message or code or 'no reason given'}"
    if code in {"404", "model_not_found"}:
        return ModelNotFound(said, failover=True)
    return _ERROR_CODES.get(code, UpstreamFailed)(said)

"""The response object, which streamed, whole and stored answers share."""

from __future__ import annotations

from typing import Any, Literal

from modelway.dialects import sse
from modelway.dialects.envelope import Envelope
from modelway.errors import GatewayError
from modelway.types import FinishReason, Usage

NAME = "openai_responses"
ID_PREFIX = "resp_"
STREAM_TYPE = sse.STREAM_TYPE
KEEP_ALIVE = sse.KEEP_ALIVE

Status = Literal["completed", "incomplete", "failed", "in_progress", "cancelled", "queued"]
Fields = dict[str, Any]

_TURN_PREFIX = "turn_"
_INCOMPLETE: dict[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
# What a response repeats where the request did not say it; the numbers are OpenAI's own defaults.
_DEFAULTS: Fields = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "previous_response_id": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "reasoning": {"effort": None, "summary": None},
    "user": None,
    "store": True,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}


def full_name(namespace: str, name: str) -> str:
    """What a function of a namespace is called where there are none."""
    return f"{namespace}__{name}" if namespace else name


def response_id(turn: str) -> str:
    """The response that a turn is to a caller."""
    return ID_PREFIX + turn.removeprefix(_TURN_PREFIX)


def turn_id(response: str) -> str:
    """The turn that a response is in the store; "" where this cannot be the id of a response."""
    return _TURN_PREFIX + response[len(ID_PREFIX) :] if response.startswith(ID_PREFIX) else ""


def response_object(
    envelope: Envelope,
    status: Status,
    output: list[Fields],
    *,
    usage: Usage | None = None,
    incomplete: str | None = None,
    error: Fields | None = None,
    completed_at: int | None = None,
) -> Fields:
    """A response in any state, with what it repeats of its request."""
    return {
        **_DEFAULTS,
        **envelope.echo,
        "id": envelope.id,
        "object": "response",
        "created_at": envelope.created,
        "completed_at": completed_at,
        "status": status,
        "error": error,
        "incomplete_details": {"reason": incomplete} if status == "incomplete" else None,
        "model": envelope.model,
        "output": output,
        "usage": None if usage is None else usage_object(usage),
        "conversation": {"id": envelope.conversation_id} if envelope.conversation_id else None,
        "provider": envelope.provider,
    }


def status_of(reason: FinishReason) -> tuple[Status, str | None]:
    """The state of a response that has ended so, and why it is incomplete if it is."""
    incomplete = _INCOMPLETE.get(reason)
    return ("incomplete" if incomplete else "completed"), incomplete


def response_error(status: int, message: str) -> Fields:
    """Why a response failed, in one of the codes that OpenAI has for it."""
    if status == 429:
        return {"code": "rate_limit_exceeded", "message": message}
    # What conflicts with something else is no fault of the prompt's.
    is_told = status < 500 and status != 409
    return {"code": "invalid_prompt" if is_told else "server_error", "message": message}


def error_object(error: GatewayError) -> Fields:
    """An error as OpenAI's clients read it."""
    # What an upstream cannot be told of the messages stands in `input` here.
    param = "input" if error.param == "messages" else error.param
    return {"message": error.explanation, "type": error.type, "param": param, "code": error.code}


def usage_object(usage: Usage) -> Fields:
    """How many tokens were read and written."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }

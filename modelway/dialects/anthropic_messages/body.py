"""Whole JSON bodies: messages, errors and lists of models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from modelway.dialects.anthropic_messages.blocks import Blocks, joined
from modelway.dialects.anthropic_messages.read_stream import refusal
from modelway.dialects.anthropic_messages.wire import (
    MAX_MESSAGE,
    WireUsage,
    error_in_stream,
    finish_reason,
    read_error,
    stop_fields,
    write_usage,
)
from modelway.dialects.envelope import Envelope
from modelway.dialects.replay import Block
from modelway.dialects.translation import arguments_object
from modelway.errors import GatewayError, UpstreamProtocolError
from modelway.types import Choice, Citation, Completion, Event, Finish, Model

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_encode = msgspec.json.Encoder().encode


class _Message(Struct):
    content: list[Block] | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_details: dict[str, Any] | None = None
    usage: WireUsage | None = None
    error: Any = None


class _Model(Struct):
    id: str
    created_at: str | None = None
    max_input_tokens: int | None = None


class _Count(Struct):
    input_tokens: int


class _Models(Struct):
    data: list[_Model]


_decode_message = msgspec.json.Decoder(_Message).decode


def decode_completion(body: bytes, *, raw: bool = False, turns: Sequence[list[Block]] = ()) -> list[Event]:
    """The events of an answer that an upstream gave in one piece; the last is Finish.

    `raw`: the caller speaks this dialect too; Finish then carries the whole body. `turns` are those that
    the request has sent back (see `replayed`).
    """
    try:
        message = _decode_message(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream's answer is not a message") from error
    if message.error is not None:
        raise error_in_stream(message.error)
    if message.content is None or not message.stop_reason:
        raise UpstreamProtocolError("the upstream's answer has no content or no stop reason")
    blocks, events = Blocks(), list[Event]()
    for index, block in enumerate(message.content):
        events += [*blocks.start(index, block), *blocks.stop(index)]
    events += refusal(message.stop_details)
    finish = Finish(
        reasons=(finish_reason(message.stop_reason),),
        usage=message.usage.usage() if message.usage else None,
        model=message.model or "",
        raw=body if raw else None,
    )
    return [*joined(events), *blocks.state(turns, message.stop_reason), finish]


def encode_completion(completion: Completion, envelope: Envelope) -> bytes:
    """The body of a `stream: false` answer; an upstream's own body is only added to."""
    if completion.raw is not None:
        return envelope.add_to(completion.raw)
    choice = completion.choices[0]
    message = {
        "id": envelope.id,
        "type": "message",
        "role": "assistant",
        "model": envelope.model,
        "content": _content(choice),
        **stop_fields(choice.finish_reason or "stop", choice.refusal),
        "usage": write_usage(completion.usage),
    }
    return _encode(message)[:-1] + b"," + envelope.fields() + b"}"


def _content(choice: Choice) -> list[dict[str, Any]]:
    message = choice.message
    content: list[dict[str, Any]] = []
    if message.reasoning:
        content.append({"type": "thinking", "thinking": message.reasoning, "signature": ""})
    if message.text or message.annotations:
        cited = [citation_object(citation) for citation in message.annotations]
        content.append({"type": "text", "text": message.text, **({"citations": cited} if cited else {})})
    content += [
        {
            "type": "tool_use",
            "id": call.id,
            "name": call.name,
            "input": arguments_object(call.arguments, call.name, UpstreamProtocolError),
        }
        for call in message.tool_calls
    ]
    return content


def citation_object(citation: Citation) -> dict[str, Any]:
    """A source as Anthropic writes those that it found in the web."""
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title or None,
        "cited_text": "",
        "encrypted_index": "",
    }


def error_object(error: GatewayError) -> dict[str, Any]:
    """An error as Anthropic's clients read it, with our own code beside it."""
    fallback = "invalid_request_error" if error.status < 500 else "api_error"
    return {
        "type": _TYPES.get(error.status, fallback),
        "message": error.explanation,
        "code": error.code,
        "param": error.param,
    }


def encode_error(error: GatewayError) -> bytes:
    """The body of an error reply."""
    return _encode({"type": "error", "error": error_object(error)})


def decode_error(status: int, body: bytes) -> tuple[str, str]:
    """(message, code) out of an upstream's error reply, as well as it can be read.

    The message is cut to 500 characters; a page of HTML is named, not quoted.
    """
    nothing = f"status {status} without a reason"
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[: MAX_MESSAGE * 4].decode("utf-8", "replace").strip()
        return ("an HTML page" if text.startswith("<") else text[:MAX_MESSAGE] or nothing), ""
    message, code = read_error(value.get("error", value) if isinstance(value, dict) else value)
    return message or nothing, code


def encode_models(models: Iterable[Model]) -> bytes:
    """The body of GET /v1/models in this format."""
    listed = [_model_object(model) for model in models]
    first, last = (listed[0]["id"], listed[-1]["id"]) if listed else (None, None)
    return _encode({"data": listed, "has_more": False, "first_id": first, "last_id": last})


def encode_model(model: Model) -> bytes:
    """The body of GET /v1/models/{id} in this format."""
    return _encode(_model_object(model))


def _model_object(model: Model) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
        **({"max_input_tokens": model.context_length} if model.context_length else {}),
    }


def encode_count(tokens: int) -> bytes:
    """The body of POST /v1/messages/count_tokens."""
    return _encode({"input_tokens": tokens})


def decode_count(body: bytes) -> int:
    """How many tokens an upstream has counted."""
    try:
        return msgspec.json.decode(body, type=_Count).input_tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream's count of tokens cannot be read") from error


def decode_models(body: bytes) -> list[Model]:
    """The models that an upstream lists."""
    try:
        listed = msgspec.json.decode(body, type=_Models)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream's list of models cannot be read") from error
    return [
        Model(
            id=model.id,
            created=_seconds(model.created_at),
            owned_by="anthropic",
            context_length=model.max_input_tokens or 0,
        )
        for model in listed.data
    ]


def _seconds(written: str | None) -> int:
    try:
        return int(datetime.fromisoformat(written or "").timestamp())
    except ValueError:
        return 0

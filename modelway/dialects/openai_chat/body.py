"""Whole JSON bodies: completions, errors and lists of models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_chat.wire import (
    MAX_MESSAGE,
    WireMessage,
    WireUsage,
    choice_index,
    error_in_stream,
    finish_reason,
    read_error,
    write_citation,
    write_usage,
)
from modelway.errors import GatewayError, UpstreamProtocolError
from modelway.types import (
    Choice,
    Completion,
    Event,
    Finish,
    Model,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
)

_encode = msgspec.json.Encoder().encode


class _Choice(Struct):
    message: WireMessage | None = None
    index: int = 0
    finish_reason: str | None = None


class _Completion(Struct):
    choices: list[_Choice] | None = None
    usage: WireUsage | None = None
    model: str | None = None
    error: Any = None


class _Model(Struct):
    id: str
    created: Any = None
    owned_by: str | None = None
    context_length: Any = None
    context_window: Any = None


class _Models(Struct):
    data: list[_Model]


_decode_completion = msgspec.json.Decoder(_Completion).decode


def decode_completion(body: bytes, *, raw: bool = False) -> list[Event]:
    """The events of an answer that an upstream gave in one piece; the last is Finish.

    `raw`: the caller speaks this dialect too; Finish then carries the whole body.
    """
    try:
        answer, body = _read_completion(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream's answer is not a chat completion") from error
    if answer.error is not None:
        raise error_in_stream(answer.error)
    if not answer.choices:
        raise UpstreamProtocolError("the upstream's answer has no choices")
    events: list[Event] = []
    for choice in answer.choices:
        events.extend(_message_events(choice_index(choice.index), choice.message or WireMessage()))
    reasons = tuple(finish_reason(choice.finish_reason or "stop") for choice in answer.choices)
    usage = answer.usage.usage() if answer.usage else None
    finish = Finish(reasons=reasons, usage=usage, model=answer.model or "", raw=body if raw else None)
    return [*events, finish]


def _read_completion(body: bytes) -> tuple[_Completion, bytes]:
    """The answer and its body; bytes that are not UTF-8 become U+FFFD in both, as they do in a stream."""
    # The decoder does not look at the bytes of fields that it skips.
    if not body.isascii():
        body = body.decode("utf-8", "replace").encode()
    return _decode_completion(body), body


def _message_events(choice: int, message: WireMessage) -> Iterable[Event]:
    thought = message.reasoning_content or message.reasoning
    if thought:
        yield ReasoningDelta(text=thought, choice=choice)
    if message.content:
        yield TextDelta(text=message.text(), choice=choice)
    if message.refusal:
        yield RefusalDelta(text=message.refusal, choice=choice)
    for index, call in enumerate(message.tool_calls or ()):
        yield call.call(choice, index)
    yield from message.citations(choice)


def encode_completion(completion: Completion, envelope: Envelope) -> bytes:
    """The body of a `stream: false` answer; an upstream's own body is only added to."""
    if completion.raw is not None:
        return envelope.add_to(completion.raw)
    answer: dict[str, Any] = {
        "id": envelope.id,
        "object": "chat.completion",
        "created": envelope.created,
        "model": envelope.model,
        "choices": [
            {
                "index": index,
                "message": _message(choice),
                "logprobs": None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(completion.choices)
        ],
        "provider": envelope.provider,
    }
    if completion.usage is not None:
        answer["usage"] = write_usage(completion.usage)
    if envelope.conversation_id:
        answer["conversation_id"] = envelope.conversation_id
    if envelope.ignored:
        answer["ignored"] = envelope.ignored
    return _encode(answer)


def _message(choice: Choice) -> dict[str, Any]:
    message = choice.message
    fields: dict[str, Any] = {
        "role": "assistant",
        "content": message.text or None if message.tool_calls or choice.refusal else message.text,
        "refusal": choice.refusal or None,
    }
    if message.reasoning:
        fields["reasoning_content"] = message.reasoning
    if message.annotations:
        fields["annotations"] = [write_citation(citation) for citation in message.annotations]
    if message.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return fields


def error_object(error: GatewayError) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {
        "message": error.explanation,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }


def encode_error(error: GatewayError) -> bytes:
    """The body of an error reply."""
    return _encode({"error": error_object(error)})


def decode_error(status: int, body: bytes) -> tuple[str, str]:
    """(message, code) out of an upstream's error reply, as well as it can be read.

    The message is cut to 500 characters; a page of HTML is named, not quoted.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[: MAX_MESSAGE * 4].decode("utf-8", "replace").strip()
        if text.startswith("<"):
            text = "an HTML page"
        return text[:MAX_MESSAGE] or f"status {status} without a reason", ""
    if isinstance(value, list) and value:
        value = value[0]
    error = value.get("error", value) if isinstance(value, dict) else value
    message, code = read_error(error)
    return message or f"status {status} without a reason", code


def encode_models(models: Iterable[Model]) -> bytes:
    """The body of GET /v1/models."""
    return _encode({"object": "list", "data": [model_object(model) for model in models]})


def model_object(model: Model) -> dict[str, Any]:
    """One entry of GET /v1/models."""
    fields = {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owned_by}
    return fields | ({"context_length": model.context_length} if model.context_length else {})


def decode_models(body: bytes) -> list[Model]:
    """The models that an upstream lists."""
    try:
        listed = msgspec.json.decode(body, type=_Models | list[_Model])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream's list of models cannot be read") from error
    models = listed.data if isinstance(listed, _Models) else listed
    return [
        Model(
            id=model.id,
            created=_count(model.created),
            owned_by=model.owned_by or "",
            context_length=_count(model.context_length) or _count(model.context_window),
        )
        for model in models
    ]


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0

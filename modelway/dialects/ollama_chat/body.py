"""Whole JSON bodies: completions, errors and lists of models."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.dialects.envelope import Envelope
from modelway.dialects.ollama_chat.stream import EventDecoder, Shape, said_fields
from modelway.dialects.ollama_chat.wire import (
    done_reason,
    error_text,
    is_context_error,
    time_of,
    write_usage,
)
from modelway.errors import GatewayError, UpstreamProtocolError
from modelway.types import ChatRequest, Completion, Event, Finish, Model

CONTEXT_CODE = "context_length_exceeded"

# How long a model stays after its last use, where that is not at all.
_AT_ONCE = (0, "0", "0s")

# It stays for as long as the server runs.
_IN_MEMORY = {"expires_at": "9999-12-31T23:59:59Z", "size_vram": 0}

_encode = msgspec.json.Encoder().encode


class _Model(Struct):
    model: str = ""
    name: str = ""
    modified_at: datetime | None = None
    context_length: int | None = None


class _Models(Struct):
    models: list[_Model] | None = None


def decode_completion(body: bytes, *, raw: bool = False) -> list[Event]:
    """The events of an answer that an upstream gave in one piece; the last is Finish.

    `raw`: the caller speaks this dialect too; Finish then carries the whole body.
    """
    decoder = EventDecoder(max_event_bytes=len(body))
    # A body may be written over several lines; its newlines are all between tokens.
    events = [*decoder.feed(body.replace(b"\n", b" ")), *decoder.close()]
    if raw and isinstance(events[-1], Finish):
        events[-1] = replace(events[-1], raw=body)
    return events


def encode_completion(completion: Completion, envelope: Envelope, shape: Shape = "chat") -> bytes:
    """The body of a `stream: false` answer; an upstream's own body is only added to."""
    if completion.raw is not None:
        return envelope.add_to(completion.raw)
    choice = completion.choices[0]
    message = choice.message
    answer = {
        "model": envelope.model,
        "created_at": time_of(envelope),
        **said_fields(shape, message.text + choice.refusal, message.reasoning, message.tool_calls),
        "done": True,
        "done_reason": done_reason(choice.finish_reason or "stop"),
        **write_usage(completion.usage),
    }
    return _encode(answer)[:-1] + b"," + envelope.fields() + b"}"


def encode_loaded(request: ChatRequest, shape: Shape = "chat") -> bytes:
    """The body of the answer to a request without a question: the model is there, or is given up."""
    gives_up = request.extra.get("keep_alive") in _AT_ONCE
    return _encode(
        {
            "model": request.model,
            "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            **said_fields(shape, "", "", ()),
            "done": True,
            "done_reason": "unload" if gives_up else "load",
        }
    )


def encode_error(error: GatewayError) -> bytes:
    """The body of an error reply."""
    return _encode({"error": error.explanation})


def decode_error(status: int, body: bytes) -> tuple[str, str]:
    """(message, code) out of an upstream's error reply; the only code is that of too long a context."""
    fallback = f"status {status} without a reason"
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:2000].decode("utf-8", "replace").strip()
        return error_text("an HTML page" if text.startswith("<") else text, fallback), ""
    error = value.get("error") if isinstance(value, dict) else value
    code = CONTEXT_CODE if status == 400 and is_context_error(str(error)) else ""
    return error_text(error, fallback), code


def decode_models(body: bytes) -> list[Model]:
    """The models of GET /api/tags (those that are there) or GET /api/ps (those that are loaded)."""
    try:
        listed = msgspec.json.decode(body, type=_Models)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream's list of models cannot be read") from error
    return [
        Model(
            id=model.model or model.name,
            created=max(0, int(model.modified_at.timestamp())) if model.modified_at else 0,
            owned_by="ollama",
            context_length=model.context_length or 0,
        )
        for model in listed.models or ()
    ]


def encode_models(models: Iterable[Model]) -> bytes:
    """The body of GET /api/tags. Programs tell models apart by their digest, which is that of the name."""
    return _encode({"models": [_listed(model) for model in models]})


def encode_loaded_models(models: Iterable[Model]) -> bytes:
    """The body of GET /api/ps."""
    return _encode({"models": [_listed(model) | _IN_MEMORY for model in models]})


def _listed(model: Model) -> dict[str, Any]:
    return {
        "name": model.id,
        "model": model.id,
        "modified_at": datetime.fromtimestamp(model.created, UTC).isoformat(),
        "size": 0,
        "digest": sha256(model.id.encode()).hexdigest(),
        "details": {},
    }

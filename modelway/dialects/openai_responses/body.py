"""Whole JSON bodies: responses, lists of items and errors."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_responses.items import Manner, Names, output_items
from modelway.dialects.openai_responses.wire import (
    Fields,
    Status,
    error_object,
    response_object,
    status_of,
)
from modelway.errors import GatewayError
from modelway.types import Completion, Message, Usage

_encode = msgspec.json.Encoder().encode


def encode_completion(completion: Completion, envelope: Envelope) -> bytes:
    """The body of a `stream: false` answer."""
    choice = completion.choices[0]
    status, incomplete = status_of(choice.finish_reason or "stop")
    output = output_items(choice.message, choice.refusal, Names(envelope.id), status, Manner(envelope.echo))
    response = response_object(
        envelope,
        status,
        output,
        usage=completion.usage,
        incomplete=incomplete,
        completed_at=envelope.completed if status == "completed" else None,
    )
    return _encode(response)


def encode_response(
    envelope: Envelope,
    status: Status,
    answer: Message | None,
    *,
    usage: Usage | None = None,
    incomplete: str | None = None,
    error: Fields | None = None,
) -> bytes:
    """A response that was kept, as it stands; `envelope.completed` counts where it is complete."""
    output: list[Fields] = []
    if answer is not None:
        refusal = answer.extra.get("refusal", "")
        of_last = "completed" if status == "completed" else "incomplete"
        output = output_items(answer, refusal, Names(envelope.id), of_last, Manner(envelope.echo))
    response = response_object(
        envelope,
        status,
        output,
        usage=usage,
        incomplete=incomplete,
        error=error,
        completed_at=envelope.completed if status == "completed" else None,
    )
    return _encode(response)


def encode_items(items: Sequence[Fields], *, has_more: bool) -> bytes:
    """A page of a list of items."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    listed = {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}
    return _encode(listed)


def encode_deleted(response_id: str) -> bytes:
    """What says that a response is gone."""
    return _encode({"id": response_id, "object": "response.deleted", "deleted": True})


def encode_count(tokens: int) -> bytes:
    """The body of a count of tokens."""
    return _encode({"object": "response.input_tokens", "input_tokens": tokens})


def encode_error(error: GatewayError) -> bytes:
    """The body of an error reply."""
    return _encode({"error": error_object(error)})

"""Compaction: what was said, summed up in an item that stands for it and that only Modelway reads.

Source: the Open Responses specification, 2026-04-24. Its content is called encrypted because no caller may
rely on what is in it. There is nothing in it that its caller did not send or could not have asked for.
"""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64encode
from typing import Any

import msgspec

from modelway.dialects.openai_responses.items import input_items
from modelway.dialects.openai_responses.read_input import KIND, MARK, MAX_SUMMARY, read_items
from modelway.dialects.openai_responses.wire import ID_PREFIX, Fields, usage_object
from modelway.dialects.reading import read_object, take
from modelway.errors import InvalidRequest
from modelway.types import Message, Usage

_ASK = (
    "Sum up everything above for someone who goes on with this conversation and sees nothing of it but your "
    "summary: names, facts, numbers, decisions, files, what was asked last and what is still to be done. "
    "Write the summary and nothing else."
)
_NOT_COMPLETE = "\n(The summary was cut off here.)"
# What a summary is asked with; everything else would be about an answer, which there is not.
_TOLD = ("model", "provider", "instructions", "previous_response_id", "max_output_tokens")
_LEFT_OUT = ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "service_tier")


def decode_compaction(body: bytes) -> tuple[bytes, tuple[Message, ...]]:
    """The body of the request for a summary, and the callers' own messages, which stay as they are."""
    fields = read_object(body)
    if fields.get("model") is None:
        raise InvalidRequest("`model` is missing", param="model", hint="name who sums up")
    for name in fields.keys() - {"input", *_TOLD, *_LEFT_OUT}:
        raise InvalidRequest(f"`{name}` has no meaning here", param=name, code="unsupported_parameter")
    asked = {name: fields[name] for name in _TOLD if fields.get(name) is not None}
    input = fields.get("input")
    said = [_user(input)] if isinstance(input, str) and input else take(fields, "input", list, [])
    if not said and "previous_response_id" not in asked:
        raise InvalidRequest("`input` is missing", param="input", hint="send what is to be summed up")
    read_items(said, "input")
    own = read_items([item for item in said if _is_of_user(item)], "input")
    return msgspec.json.encode({**asked, "input": [*said, _user(_ASK)], "store": False}), own


def encode_compaction(
    id: str, created: int, own: tuple[Message, ...], summary: str, usage: Usage, *, is_complete: bool
) -> bytes:
    """What stands for a conversation from now on: the callers' own messages, and the summary."""
    text = summary if is_complete else summary + _NOT_COMPLETE
    packed = urlsafe_b64encode(zlib.compress(text[:MAX_SUMMARY].encode()))
    item = {"id": f"cmp_{id}", "type": KIND, "encrypted_content": MARK + packed.decode()}
    compacted = {
        "id": ID_PREFIX + id,
        "object": "response.compaction",
        "created_at": created,
        "output": [*input_items(own, id), item],
        "usage": usage_object(usage),
    }
    return msgspec.json.encode(compacted)


def _user(text: str) -> Fields:
    return {"type": "message", "role": "user", "content": text}


def _is_of_user(item: Any) -> bool:
    return isinstance(item, dict) and item.get("role") == "user" and item.get("type", "message") == "message"

"""What every dialect needs to carry a request that was made in another one: translated, or refused."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from hashlib import blake2b
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from modelway.errors import GatewayError, InvalidRequest
from modelway.types import Message, OtherPart

_is_plain_id = re.compile(r"[a-zA-Z0-9_-]{1,64}").fullmatch


class Inline(Struct, frozen=True):
    """What a `data:` URL holds: the media type and the content in base64."""

    media_type: str
    data: str


def inline(url: str) -> Inline | None:
    """What a `data:` URL (RFC 2397) holds; None where it is another kind of URL or cannot be read."""
    if url[:5].lower() != "data:":
        return None
    head, found, data = url[5:].partition(",")
    media_type, *options = head.split(";")
    if not found:
        return None
    try:
        if any(option.strip().lower() == "base64" for option in options):
            content = unquote_to_bytes(data).decode("ascii") if "%" in data else data
            base64.b64decode(content, validate=True)
        else:
            content = base64.b64encode(unquote_to_bytes(data)).decode()
    except (binascii.Error, ValueError):
        return None
    return Inline(media_type.strip().lower() or "text/plain", content)


def part_refused(what: str, upstream: str, hint: str) -> InvalidRequest:
    """What to raise for a content part that cannot be carried."""
    return InvalidRequest(f"{upstream} cannot take {what}", param="messages", hint=hint)


def other_part_refused(part: OtherPart, upstream: str) -> InvalidRequest:
    """What to raise for a part that the waist has no type for."""
    kind = part.value.get("type", "of this kind")
    return part_refused(
        f"a content part {kind!r} of the dialect {part.dialect}",
        upstream,
        "send the part as text or choose a provider of that dialect",
    )


def text_with_refusal(message: Message) -> str:
    """All text of a message; what the assistant declined with is part of what was said."""
    return message.text + message.refusal


def called_names(messages: Iterable[Message]) -> list[str]:
    """For each message the name of the function whose result it is, "" where it is no result.

    InvalidRequest where a result answers no call that was made before it.
    """
    names: list[str] = []
    calls: dict[str, str] = {}
    for message in messages:
        calls.update((call.id, call.name) for call in message.tool_calls)
        if message.role != "tool":
            names.append("")
            continue
        name = calls.get(message.tool_call_id) or message.name
        if not name:
            raise InvalidRequest(
                f"no message calls the tool that `tool_call_id` {message.tool_call_id[:80]!r} answers",
                param="messages",
                hint="send the assistant's message with the call too",
            )
        names.append(name)
    return names


def plain_id(id: str) -> str:
    """The id of a call in letters that every upstream takes; those of some upstreams have others."""
    if _is_plain_id(id):
        return id
    return re.sub(r"[^a-zA-Z0-9_-]", "_", id)[:40] + "_" + blake2b(id.encode(), digest_size=8).hexdigest()


def arguments_object(arguments: str, name: str, error: type[GatewayError] = InvalidRequest) -> msgspec.Raw:
    """A call's arguments as they stand, where they are the JSON object that the other side demands.

    `error` is UpstreamProtocolError where the model has made the call, rather than the caller sent it.
    """
    text = arguments.strip() or "{}"
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise error(
            f"the arguments of the call of {name[:80]!r} are not a JSON object",
            param="messages" if error is InvalidRequest else None,
        )
    return msgspec.Raw(text.encode())

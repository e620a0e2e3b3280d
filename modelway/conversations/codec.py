"""Messages, instructions and deltas as the bytes that are stored and hashed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any, Union

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.errors import InvalidRequest
from modelway.types import (
    Citation,
    Completion,
    FilePart,
    ImagePart,
    Message,
    Part,
    ReasoningDelta,
    RefusalDelta,
    Role,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    Usage,
)

Recorded = Union[TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, Citation]

_encoder = msgspec.json.Encoder()
_sorted_encoder = msgspec.json.Encoder(order="sorted")
_message_decoder = msgspec.json.Decoder(Message)
_messages_decoder = msgspec.json.Decoder(tuple[Message, ...])
_deltas_decoder = msgspec.json.Decoder(tuple[Recorded, ...])
_usage_decoder = msgspec.json.Decoder(Usage)


# Beyond it a whole number is no float.
_LARGEST = 10**300


class SavedState(Struct, frozen=True):
    """What a provider needs to go on after the message `at`."""

    provider: str
    at: int
    value: dict[str, Any]


_state_decoder = msgspec.json.Decoder(SavedState)


class Row(Struct, frozen=True):
    """A message ready to be stored.

    `key` is what makes two messages equal. `text` is all its text; `rest` is the message as JSON where
    there is more to it than a role and plain text.
    """

    message: Message
    key: bytes
    text: str
    rest: bytes | None


def rows(messages: Iterable[Message]) -> list[Row]:
    """Prepare a request's messages; what JSON cannot carry is the caller's mistake."""
    try:
        return [row(message) for message in messages]
    except (ValueError, OverflowError, TypeError, RecursionError) as exc:
        raise InvalidRequest(
            "a message holds something that JSON in UTF-8 cannot carry",
            hint="look for unpaired surrogates and for very large numbers",
            param="messages",
        ) from exc


def row(message: Message) -> Row:
    """Prepare one message."""
    text = message.text
    return Row(message, _key(message), text, _rest(message))


def message_of(role: Role, text: str, rest: bytes | None) -> Message:
    """The message that a row holds."""
    if rest is None:
        return Message(role=role, content=text)
    message = _message_decoder.decode(rest)
    return replace(message, content=text) if message.content == "" else message


def chained(parent: bytes, key: bytes) -> bytes:
    """The hash of a message that follows the one with the hash `parent` (b"" at the root)."""
    return blake2b(key, key=parent, digest_size=16).digest()


def hashes(rows: Sequence[Row]) -> list[bytes]:
    """The hash of each message of a chain that begins at the root."""
    found = []
    parent = b""
    for one in rows:
        parent = chained(parent, one.key)
        found.append(parent)
    return found


def encode_messages(messages: tuple[Message, ...]) -> bytes:
    """Instructions as they are stored."""
    return _encoder.encode(messages)


def decode_messages(body: bytes | None) -> tuple[Message, ...]:
    """Instructions as they were stored."""
    return _messages_decoder.decode(body) if body else ()


def encode_state(state: SavedState) -> bytes:
    """An upstream state as it is stored."""
    return _encoder.encode(state)


def decode_state(body: bytes | None) -> SavedState | None:
    """An upstream state as it was stored."""
    return _state_decoder.decode(body) if body else None


def encode_asked(asked: dict[str, Any] | None) -> bytes | None:
    """What an answer repeats of its request, as it is stored."""
    try:
        return None if asked is None else _encoder.encode(asked)
    except (ValueError, OverflowError, TypeError, RecursionError) as exc:
        raise InvalidRequest("a field holds something that JSON in UTF-8 cannot carry") from exc


def decode_asked(body: bytes | None) -> dict[str, Any]:
    """What an answer repeats of its request, as it was stored."""
    return msgspec.json.decode(body, type=dict[str, Any]) if body else {}


def encode_usage(usage: Usage | None) -> bytes | None:
    """Usage as it is stored."""
    return None if usage is None else _encoder.encode(usage)


def decode_usage(body: bytes | None) -> Usage | None:
    """Usage as it was stored."""
    return _usage_decoder.decode(body) if body else None


def encode_deltas(deltas: Iterable[Recorded]) -> bytes:
    """Deltas without the upstream's bytes, neighbours of one kind joined."""
    joined: list[Recorded] = []
    for _, run in groupby(deltas, key=lambda delta: (type(delta), delta.choice)):
        first, *others = run
        if isinstance(first, ToolCallDelta | Citation):
            joined.extend(
                _bare(delta) for delta in (first, *others) if isinstance(delta, ToolCallDelta | Citation)
            )
        else:
            text = first.text + "".join(
                delta.text for delta in others if not isinstance(delta, ToolCallDelta | Citation)
            )
            joined.append(replace(first, text=well_formed(text), raw=None))
    return _encoder.encode(joined)


def decode_deltas(body: bytes) -> tuple[Recorded, ...]:
    """The deltas of a checkpoint."""
    return _deltas_decoder.decode(body)


def answer_rows(completion: Completion) -> list[Row]:
    """Every choice of an answer that holds anything, as messages to store."""
    found = []
    for choice in completion.choices:
        message = choice.message
        spoken = message.content or message.reasoning or message.tool_calls or message.annotations
        if not (spoken or choice.refusal):
            continue
        message = replace(
            message,
            content=well_formed(message.text),
            reasoning=well_formed(message.reasoning),
            tool_calls=tuple(
                ToolCall(well_formed(call.id), well_formed(call.name), well_formed(call.arguments))
                for call in message.tool_calls
            ),
            annotations=tuple(_bare_citation(citation) for citation in message.annotations),
            extra={"refusal": well_formed(choice.refusal)} if choice.refusal else message.extra,
        )
        found.append(row(message))
    return found


def well_formed(text: str) -> str:
    """Text that UTF-8 can carry: halves of surrogate pairs from separate deltas joined, others replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _bare(delta: ToolCallDelta | Citation) -> ToolCallDelta | Citation:
    if isinstance(delta, Citation):
        return _bare_citation(delta)
    return replace(
        delta,
        id=well_formed(delta.id),
        name=well_formed(delta.name),
        arguments=well_formed(delta.arguments),
        raw=None,
    )


def _bare_citation(citation: Citation) -> Citation:
    return replace(citation, url=well_formed(citation.url), title=well_formed(citation.title), raw=None)


def _key(message: Message) -> bytes:
    """What makes two messages equal: what they say, not how a client writes it.

    Ids of calls say nothing, and some clients make up their own whenever they send the history; nor do
    fields that only one format has, such as marks for a cache, which move from turn to turn.
    """
    name = "" if message.role == "tool" else message.name
    calls = [(call.name, _arguments(call.arguments)) for call in message.tool_calls]
    return _encoder.encode((message.role, _said(message), name, calls))


def _said(message: Message) -> str | list[Any]:
    """The content, neighbouring texts joined; plain text where there is nothing else."""
    refusal = message.refusal if message.role == "assistant" else ""
    if isinstance(message.content, str):
        return message.content + refusal
    said: list[Any] = []
    for is_text, run in groupby(message.content, key=lambda part: isinstance(part, TextPart)):
        if is_text:
            said.append("".join(part.text for part in run if isinstance(part, TextPart)))
        else:
            said.extend(_bare_part(part) for part in run)
    if refusal:
        said.append(refusal)
    if all(isinstance(piece, str) for piece in said):
        return "".join(said)
    return said


def _bare_part(part: Part) -> Any:
    match part:
        case ImagePart():
            return ("image", part.url)
        case FilePart():
            return ("file", part.url, part.file_id, part.name)
    return part


def _arguments(text: str) -> Any:
    """What arguments say, however they are spaced and escaped: a client may write them anew."""
    try:
        return _sorted_encoder.encode(_plain(msgspec.json.decode(text.strip() or "{}")))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return text


def _plain(value: Any) -> Any:
    """A JSON value whose numbers are those of JavaScript, which knows no others."""
    match value:
        case bool():
            return value
        case int():
            return float(value) if abs(value) < _LARGEST else str(value)
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {name: _plain(item) for name, item in value.items()}
    return value


def _rest(message: Message) -> bytes | None:
    plain = isinstance(message.content, str)
    if plain and not (
        message.name
        or message.reasoning
        or message.tool_calls
        or message.tool_call_id
        or message.annotations
        or message.extra
    ):
        return None
    return _encoder.encode(replace(message, content="") if plain else message)

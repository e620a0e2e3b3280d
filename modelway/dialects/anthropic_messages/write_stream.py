"""Writes a streamed answer for a caller."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from modelway.dialects import sse
from modelway.dialects.anthropic_messages.body import citation_object, error_object
from modelway.dialects.anthropic_messages.wire import stop_fields, write_usage
from modelway.dialects.continuing import continued_field
from modelway.dialects.envelope import Envelope
from modelway.dialects.writing import AnyDelta, EventWriter
from modelway.errors import GatewayError
from modelway.types import (
    Citation,
    Continued,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)

_encode = msgspec.json.Encoder().encode
_FIRST = b"event: message_start\ndata: "


class EventEncoder(EventWriter):
    """Writes one streamed answer for a caller.

    A block of this format is whole before the next begins. Some upstreams write several calls by turns: what
    comes beside a call whose arguments are not whole yet waits for the end.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._started = False
        self._blocks = 0
        self._open = ""
        self._calls: dict[int, int] = {}
        self._call = -1
        self._arguments = ""
        self._held: list[AnyDelta] = []
        self._refusal = ""

    def end(self) -> bytes:
        """The stream's end marker."""
        return _event("message_stop")

    def error(self, error: GatewayError) -> bytes:
        """An error in the middle of the stream; nothing but the end may follow."""
        return _event("error", error=error_object(error))

    def _relay(self, raw: bytes) -> bytes:
        if self._started or not raw:
            return raw
        self._started = True
        if not raw.startswith(_FIRST):
            return raw
        end = raw.index(b"\n\n")
        fields = msgspec.json.decode(raw[len(_FIRST) : end], type=dict[str, msgspec.Raw])
        fields["message"] = msgspec.Raw(self._envelope.add_to(bytes(fields["message"])))
        return _FIRST + _encode(fields) + raw[end:]

    def _continued(self, event: Continued) -> bytes:
        return _event("ping", **continued_field(event))

    def _delta(self, event: AnyDelta) -> bytes:
        if event.choice:
            return b""  # the format has one answer
        if self._must_wait(event):
            self._held.append(event)
            return b""
        return self._written(event)

    def _must_wait(self, event: AnyDelta) -> bool:
        if self._open != "tool_use" or (isinstance(event, ToolCallDelta) and event.index == self._call):
            return False
        return bool(self._held) or not _is_object(self._arguments)

    def _written(self, event: AnyDelta) -> bytes:
        match event:
            case TextDelta():
                return self._within("text") + self._piece(type="text_delta", text=event.text)
            case ReasoningDelta():
                return self._within("thinking") + self._piece(type="thinking_delta", thinking=event.text)
            case Citation():
                citation = citation_object(event)
                return self._within("text") + self._piece(type="citations_delta", citation=citation)
            case ToolCallDelta():
                return self._of_call(event)
            case RefusalDelta():
                self._refusal += event.text
                return b""

    def _of_call(self, event: ToolCallDelta) -> bytes:
        written = b""
        if event.index not in self._calls:
            written = self._begin("tool_use", id=event.id, name=event.name, input={})
            self._calls[event.index] = self._blocks - 1
            self._call, self._arguments = event.index, ""
        self._arguments += event.arguments
        if not event.arguments:
            return written
        delta = {"type": "input_json_delta", "partial_json": event.arguments}
        return written + _event("content_block_delta", index=self._calls[event.index], delta=delta)

    def _within(self, kind: str) -> bytes:
        """What must be written so that a block of this kind is open."""
        if self._open == kind:
            return b""
        empty = {"thinking": "", "signature": ""} if kind == "thinking" else {"text": ""}
        return self._begin(kind, **empty)

    def _begin(self, kind: str, **fields: Any) -> bytes:
        written = self._begin_message() + self._close()
        self._open = kind
        self._blocks += 1
        block = {"type": kind, **fields}
        return written + _event("content_block_start", index=self._blocks - 1, content_block=block)

    def _piece(self, **delta: Any) -> bytes:
        return _event("content_block_delta", index=self._blocks - 1, delta=delta)

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return _event("content_block_stop", index=self._blocks - 1)

    def _begin_message(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        message: dict[str, Any] = {
            "id": self._envelope.id,
            "type": "message",
            "role": "assistant",
            "model": self._envelope.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": write_usage(None),
        }
        body = _encode(message)[:-1] + b"," + self._envelope.fields() + b"}"
        return _event("message_start", message=msgspec.Raw(body))

    def _finish(self, finish: Finish) -> bytes:
        waited = b"".join(map(self._written, _by_call(self._held)))
        delta = stop_fields(finish.reason, self._refusal)
        last = _event("message_delta", delta=delta, usage=write_usage(finish.usage))
        return waited + self._begin_message() + self._close() + last


def _event(kind: str, **fields: Any) -> bytes:
    return sse.encode(_encode({"type": kind, **fields}), event=kind)


def _by_call(events: list[AnyDelta]) -> list[AnyDelta]:
    """The events with all pieces of a call made one, where its first one came."""
    pieces: dict[int, list[str]] = {}
    first: list[AnyDelta] = []
    for event in events:
        if not isinstance(event, ToolCallDelta) or event.index not in pieces:
            first.append(event)
        if isinstance(event, ToolCallDelta):
            pieces.setdefault(event.index, []).append(event.arguments)
    return [
        replace(event, arguments="".join(pieces[event.index])) if isinstance(event, ToolCallDelta) else event
        for event in first
    ]


def _is_object(arguments: str) -> bool:
    """Whether the arguments of a call are whole: nothing can follow an object."""
    try:
        return isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, RecursionError):
        return False

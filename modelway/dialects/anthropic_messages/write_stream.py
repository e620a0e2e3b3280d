"""Writes a streamed answer for a caller."""

from __future__ import annotations

from typing import Any

import msgspec

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
    """Writes one streamed answer for a caller."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._started = False
        self._blocks = 0
        self._open = ""
        self._calls: dict[int, int] = {}
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
        match event:
            case TextDelta():
                return self._within("text") + self._piece(type="text_delta", text=event.text)
            case ReasoningDelta():
                return self._within("thinking") + self._piece(type="thinking_delta", thinking=event.text)
            case Citation():
                citation = citation_object(event)
                return self._within("text") + self._piece(type="citations_delta", citation=citation)
            case ToolCallDelta():
                return self._call(event)
            case RefusalDelta():
                self._refusal += event.text
                return b""

    def _call(self, event: ToolCallDelta) -> bytes:
        written = b""
        if event.index not in self._calls:
            written = self._begin("tool_use", id=event.id, name=event.name, input={})
            self._calls[event.index] = self._blocks - 1
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
        delta = stop_fields(finish.reason, self._refusal)
        last = _event("message_delta", delta=delta, usage=write_usage(finish.usage))
        return self._begin_message() + self._close() + last


def _event(kind: str, **fields: Any) -> bytes:
    return sse.encode(_encode({"type": kind, **fields}), event=kind)

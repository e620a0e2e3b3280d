"""Streamed answers: one JSON object in each line, read from upstreams and written for callers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from modelway.dialects import sse
from modelway.dialects.continuing import continued_field
from modelway.dialects.envelope import Envelope
from modelway.dialects.ollama_chat.wire import (
    Line,
    done_reason,
    error_in_stream,
    finish_reason,
    new_call_id,
    read_line,
    time_of,
    write_usage,
)
from modelway.dialects.translation import arguments_object
from modelway.dialects.writing import AnyDelta, EventWriter
from modelway.errors import GatewayError, UpstreamProtocolError
from modelway.types import (
    Citation,
    Continued,
    Event,
    Finish,
    Opaque,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)

MAX_EVENT_BYTES = 8 * 1024 * 1024

Shape = Literal["chat", "generate"]

_encode = msgspec.json.Encoder().encode


class EventDecoder:
    """Reads one streamed answer of an upstream.

    `raw`: the caller speaks this dialect too, so events carry the upstream's lines. `to_error` reads an
    error line, `new_id` makes the id of a call that has none.
    """

    def __init__(
        self,
        *,
        raw: bool = False,
        max_event_bytes: int = MAX_EVENT_BYTES,
        to_error: Callable[[Any], GatewayError] = error_in_stream,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self.finished = False
        self._raw = raw
        self._max_event_bytes = max_event_bytes
        self._to_error = to_error
        self._new_id = new_id
        self._lines = sse.LineDecoder()
        self._calls = 0

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Take bytes, cut anywhere; give the events that they complete, and only then raise."""
        events: list[Event] = []
        try:
            for line in [] if self.finished else self._lines.feed(chunk):
                events += self._read(line)
            if self._lines.pending > self._max_event_bytes:
                raise UpstreamProtocolError(
                    f"the upstream sent a line of more than {self._max_event_bytes} bytes",
                    code="upstream_too_large",
                )
        except GatewayError as error:
            return sse.then_raise(events, error)
        return events

    def close(self) -> Iterable[Event]:
        """The body has ended: give what is left, or raise UpstreamProtocolError("upstream_truncated")."""
        if self.finished:
            return
        for line in self._lines.close():
            yield from self._read(line)
        if not self.finished:
            raise UpstreamProtocolError(
                "the upstream's stream ended before its last line", code="upstream_truncated"
            )

    def _read(self, data: bytes) -> list[Event]:
        if self.finished:
            return []
        line = read_line(data)
        if line.error is not None:
            raise self._to_error(line.error)
        events = self._deltas(line)
        if line.done:
            self.finished = True
            reason = finish_reason(line.done_reason, has_calls=self._calls > 0)
            raw = data + b"\n" if self._raw else None
            return [*events, Finish(reasons=(reason,), usage=line.usage(), model=line.model or "", raw=raw)]
        if not self._raw:
            return events
        if not events:
            return [Opaque(data + b"\n")]
        events[0] = msgspec.structs.replace(events[0], raw=data + b"\n")
        return events

    def _deltas(self, line: Line) -> list[Event]:
        raw = b"" if self._raw else None
        said = line.said()
        events: list[Event] = []
        if said.thinking:
            events.append(ReasoningDelta(text=said.thinking, raw=raw))
        if said.content:
            events.append(TextDelta(text=said.content, raw=raw))
        for call in said.tool_calls or ():
            events.append(
                ToolCallDelta(
                    index=self._calls,
                    id=call.id or self._new_id(),
                    name=call.function.name,
                    arguments=bytes(call.function.arguments).decode(),
                    raw=raw,
                )
            )
            self._calls += 1
        return events


class EventEncoder(EventWriter):
    """Writes one streamed answer for a caller of /api/chat or /api/generate.

    The format has calls only in one piece, so they are written when the answer ends.
    """

    def __init__(self, envelope: Envelope, shape: Shape = "chat") -> None:
        self._envelope = envelope
        self._shape = shape
        self._started = False
        self._head = {"model": envelope.model, "created_at": time_of(envelope)}
        self._calls: dict[int, list[str]] = {}

    def end(self) -> bytes:
        """Nothing: the last line says that it is the last."""
        return b""

    def error(self, error: GatewayError) -> bytes:
        """An error in the middle of the stream; nothing but the end may follow."""
        return _encode({"error": error.explanation}) + b"\n"

    def _continued(self, event: Continued) -> bytes:
        return self._line("", own=continued_field(event))

    def _delta(self, event: AnyDelta) -> bytes:
        # The format has one answer, and no place for the sources of it.
        if event.choice or isinstance(event, Citation):
            return b""
        if isinstance(event, ToolCallDelta):
            self._calls.setdefault(event.index, [event.id, event.name]).append(event.arguments)
            return b""
        if isinstance(event, ReasoningDelta):
            return self._line("", event.text)
        return self._line(event.text)

    def _relay(self, raw: bytes) -> bytes:
        if self._started or not raw:
            return raw
        self._started = True
        first, end, rest = raw.partition(b"\n")
        return self._envelope.add_to(first) + end + rest

    def _finish(self, finish: Finish) -> bytes:
        calls = [ToolCall(call[0], call[1], "".join(call[2:])) for _, call in sorted(self._calls.items())]
        before = self._line("", calls=calls) if calls and self._shape == "chat" else b""
        reason = {"done_reason": done_reason(finish.reason)}
        return before + self._line("", last={**reason, **write_usage(finish.usage)})

    def _line(
        self,
        text: str,
        thinking: str = "",
        calls: Iterable[ToolCall] = (),
        last: Mapping[str, str | int] | None = None,
        own: Mapping[str, Any] = {},
    ) -> bytes:
        said = said_fields(self._shape, text, thinking, calls)
        line = _encode({**self._head, **said, "done": last is not None, **(last or {}), **own})
        if not self._started:
            self._started = True
            line = line[:-1] + b"," + self._envelope.fields() + b"}"
        return line + b"\n"


def said_fields(
    shape: Shape, text: str, thinking: str = "", calls: Iterable[ToolCall] = ()
) -> dict[str, Any]:
    """A piece of an answer, or all of it, in the form of one of the two addresses."""
    thoughts = {"thinking": thinking} if thinking else {}
    if shape == "generate":
        return {"response": text, **thoughts}
    message: dict[str, Any] = {"role": "assistant", "content": text, **thoughts}
    if written := [_call(index, call) for index, call in enumerate(calls)]:
        message["tool_calls"] = written
    return {"message": message}


def _call(index: int, call: ToolCall) -> dict[str, Any]:
    """A call as the format has it: the arguments are an object, not its text."""
    function = {
        "index": index,
        "name": call.name,
        "arguments": arguments_object(call.arguments, call.name, UpstreamProtocolError),
    }
    return {"id": call.id, "function": function}

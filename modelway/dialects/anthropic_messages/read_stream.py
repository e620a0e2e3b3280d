"""Reads a streamed answer of an upstream: message_start, blocks in pieces, message_delta, message_stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from modelway.dialects import sse
from modelway.dialects.anthropic_messages.blocks import Blocks, WireDelta, joined
from modelway.dialects.anthropic_messages.wire import WireUsage, error_in_stream, finish_reason
from modelway.dialects.replay import Block
from modelway.errors import GatewayError, UpstreamProtocolError
from modelway.types import Event, Finish, Opaque, RefusalDelta

MAX_EVENT_BYTES = 8 * 1024 * 1024


class _Start(Struct):
    model: str | None = None
    usage: WireUsage | None = None


class _ServerEvent(Struct):
    type: str
    index: int = 0
    message: _Start | None = None
    content_block: Block | None = None
    delta: WireDelta | None = None
    usage: WireUsage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_ServerEvent).decode


class EventDecoder:
    """Reads one streamed answer of an upstream.

    `raw`: the caller speaks this dialect too, so events carry the upstream's bytes (one event of each
    network read carries them all); those of the end go into Finish, but for message_stop. `turns` are
    those that the request has sent back (see `replayed`). `to_error` reads an error inside the stream.
    """

    def __init__(
        self,
        *,
        raw: bool = False,
        max_event_bytes: int = MAX_EVENT_BYTES,
        turns: Sequence[list[Block]] = (),
        to_error: Callable[[Any], GatewayError] = error_in_stream,
    ) -> None:
        self.finished = False
        self._raw = raw
        self._max_event_bytes = max_event_bytes
        self._turns = turns
        self._to_error = to_error
        self._lines = sse.Decoder()
        self._blocks = Blocks(b"" if raw else None)
        self._usage = WireUsage()
        self._model = ""
        self._stop_reason = ""
        self._tail = b""

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Take bytes, cut anywhere; give the events that they complete, and only then raise."""
        if self.finished:
            return []
        server_events = self._lines.feed(chunk)
        if self._lines.pending > self._max_event_bytes:
            raise UpstreamProtocolError(
                f"the upstream sent an event of more than {self._max_event_bytes} bytes",
                code="upstream_too_large",
            )
        return self._read(server_events)

    def close(self) -> Iterable[Event]:
        """The body has ended: give the Finish, or raise UpstreamProtocolError("upstream_truncated")."""
        if self.finished:
            return
        yield from self._read(self._lines.close())
        yield from self._without_stop()

    def _without_stop(self) -> list[Event]:
        """The end of a stream that has had its stop reason; message_stop may be missing."""
        if self.finished:
            return []
        if not self._stop_reason:
            raise UpstreamProtocolError(
                "the upstream's stream ended without a stop reason", code="upstream_truncated"
            )
        return self._finish()

    def _read(self, server_events: list[sse.ServerEvent]) -> Iterable[Event]:
        events: list[Event] = []
        raw = b""
        for server_event in server_events:
            if not server_event.data.strip():
                continue
            try:
                data, event = _decode_one(server_event.data)
                events += self._events(event)
            except GatewayError as error:
                return sse.then_raise(self._with_raw(events, raw), error)
            if event.type == "message_stop":
                return [*self._with_raw(events, raw), *self._finish()]
            if not self._raw:
                continue
            written = sse.encode(data, event=event.type)
            if self._stop_reason:
                self._tail += written
            else:
                raw += written
        return self._with_raw(events, raw)

    def _events(self, event: _ServerEvent) -> list[Event]:
        match event.type:
            case "message_start" if event.message is not None:
                self._model = event.message.model or ""
                self._usage = event.message.usage or self._usage
            case "content_block_start" if event.content_block is not None:
                return self._blocks.start(event.index, event.content_block)
            case "content_block_delta" if event.delta is not None:
                return self._blocks.add(event.index, event.delta)
            case "content_block_stop":
                return self._blocks.stop(event.index)
            case "message_delta":
                return self._end(event)
            case "error":
                raise self._to_error(event.error)
        return []

    def _end(self, event: _ServerEvent) -> list[Event]:
        if event.usage is not None:
            self._usage = self._usage.with_later(event.usage)
        if event.delta is None or not event.delta.stop_reason:
            return []
        self._stop_reason = event.delta.stop_reason
        return refusal(event.delta.stop_details, b"" if self._raw else None)

    def _with_raw(self, events: list[Event], raw: bytes) -> list[Event]:
        events = joined(events)
        if not raw:
            return events
        if not events:
            return [Opaque(raw)]
        return [msgspec.structs.replace(events[0], raw=raw), *events[1:]]

    def _finish(self) -> list[Event]:
        self.finished = True
        finish = Finish(
            reasons=(finish_reason(self._stop_reason),),
            usage=self._usage.usage(),
            model=self._model,
            raw=self._tail if self._raw else None,
        )
        return [*self._blocks.state(self._turns, self._stop_reason), finish]


def refusal(details: dict[str, Any] | None, raw: bytes | None = None) -> list[Event]:
    """Why the model declined, where it says so."""
    explanation = (details or {}).get("explanation")
    return [RefusalDelta(text=explanation, raw=raw)] if isinstance(explanation, str) and explanation else []


def _decode_one(data: bytes) -> tuple[bytes, _ServerEvent]:
    """One event's JSON; bytes that are not UTF-8 become U+FFFD, as the standard for streams says."""
    try:
        data = data.decode("utf-8", "replace").encode()
        return data, _decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream sent a stream event that cannot be read") from error

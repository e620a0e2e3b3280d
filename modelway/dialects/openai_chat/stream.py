"""Streamed answers: `chat.completion.chunk` events, read from upstreams and written for callers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from modelway.dialects import sse
from modelway.dialects.continuing import continued_field
from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_chat.body import error_object
from modelway.dialects.openai_chat.deltas import Deltas
from modelway.dialects.openai_chat.texts import BETWEEN, Texts, decode_text, end_of_texts, read_texts
from modelway.dialects.openai_chat.wire import (
    WireMessage,
    WireUsage,
    choice_index,
    error_in_stream,
    finish_reason,
    write_citation,
    write_usage,
)
from modelway.dialects.writing import AnyDelta, EventWriter
from modelway.errors import GatewayError, UpstreamProtocolError
from modelway.types import (
    Citation,
    Continued,
    Event,
    Finish,
    FinishReason,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)

DONE = b"data: [DONE]\n\n"
MAX_EVENT_BYTES = 8 * 1024 * 1024

_encode = msgspec.json.Encoder().encode


class _Choice(Struct):
    index: int = 0
    delta: WireMessage | None = None
    finish_reason: str | None = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: WireUsage | None = None
    model: str | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_chunks = msgspec.json.Decoder(list[_Chunk]).decode


class EventDecoder:
    """Reads one streamed answer of an upstream.

    `raw`: the caller speaks this dialect too, so events carry the upstream's bytes (one event of each
    network read carries them all). Chunks without choices are kept from the caller unless it asked for
    them with `include_usage`: widespread client code indexes `choices[0]`. From the read on in which
    the last choice finished, the bytes go into Finish, so that the caller sees the end only when the
    answer has been recorded. `to_error` reads an error object inside the stream.
    """

    def __init__(
        self,
        *,
        raw: bool = False,
        include_usage: bool = False,
        choices: int = 1,
        max_event_bytes: int = MAX_EVENT_BYTES,
        to_error: Callable[[Any], GatewayError] = error_in_stream,
    ) -> None:
        self.finished = False
        self._to_error = to_error
        self._raw = raw
        self._include_usage = include_usage
        self._choices = choices
        self._max_event_bytes = max_event_bytes
        self._rest = b""
        self._lines: sse.Decoder | None = None
        self._reasons: dict[int, FinishReason] = {}
        self._usage: WireUsage | None = None
        self._model = ""
        self._tail = b""

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Take bytes, cut anywhere; give the events that they complete, and only then raise."""
        if self.finished:
            return []
        if self._lines is not None:
            return self._read_slowly(self._lines.feed(chunk), self._lines.pending)
        if not self._rest and (text := self._more_text(chunk)) is not None:
            return [text]
        buffer = self._rest + chunk
        if chunk.find(b"\r") >= 0:
            # Other line ends than LF: leave the batch reader for the rest of the stream.
            self._lines, self._rest = sse.Decoder(), b""
            return self._read_slowly(self._lines.feed(buffer), self._lines.pending)
        boundary = buffer.rfind(b"\n\n")
        end = 0 if boundary < 0 else boundary + 2
        complete, self._rest = buffer[:end], buffer[end:]
        self._check_size(len(self._rest))
        return self._read_batch(complete) if complete else []

    def close(self) -> Iterable[Event]:
        """The body has ended: give the Finish, or raise UpstreamProtocolError("upstream_truncated")."""
        if self.finished:
            return
        lines = self._lines or sse.Decoder()
        left = lines.feed(self._rest) + lines.close()
        self._rest = b""
        finished = False
        for event in self._read_slowly(left, 0):
            finished = isinstance(event, Finish)
            yield event
        if finished:
            return
        if not self._reasons:
            raise UpstreamProtocolError(
                "the upstream's stream ended without a finish reason", code="upstream_truncated"
            )
        yield self._finish()

    def _more_text(self, chunk: bytes) -> TextDelta | None:
        """What nearly every read of a slow stream is: one event, with more text of the first choice."""
        if chunk.find(b"\n\n") != len(chunk) - 2 or not chunk.startswith(b"data: {") or self._reasons:
            return None
        # `in` of bytes first tries its left side as a number, and catches an exception: find() is faster.
        if chunk.find(b"\r") >= 0 or not (chunk.isascii() or _is_utf8(chunk)):
            return None
        try:
            read = decode_text(chunk[6:])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        text = read.choices[0].delta.content
        if not text:
            return None
        self._model = read.model or self._model
        return TextDelta(text=text, raw=chunk if self._raw else None)

    def _read_batch(self, complete: bytes) -> Iterable[Event]:
        """Read whole events with one JSON decode or two; what is not of the usual form is read line by line.

        Inside JSON a newline is always escaped, so what looks like an event boundary is one.
        """
        body, done = complete[6:-2], False
        if body.endswith(b"data: [DONE]") or body == b"[DONE]":
            body, done = body[:-6].removesuffix(b"data: ").removesuffix(b"\n\n"), True
        if not complete.startswith(b"data: ") or not (body.isascii() or _is_utf8(body)):
            return self._read_slowly(sse.Decoder().feed(complete), 0)
        # Nearly all of it is text; what is more can only be said chunk by chunk.
        end = end_of_texts(body)
        texts = read_texts(body[:end]) if body.find(BETWEEN, 0, end) > 0 else None
        before, rest = (body[:end], body[end:].removeprefix(BETWEEN)) if texts else (b"", body)
        chunks: list[_Chunk] = []
        try:
            if rest:
                chunks = _decode_chunks(b"[%b]" % rest.replace(BETWEEN, b","))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._read_slowly(sse.Decoder().feed(complete), 0)
        if b'"error"' in rest and any(chunk.error is not None for chunk in chunks):
            return self._read_slowly(sse.Decoder().feed(complete), 0)
        raw = b""
        if self._raw:
            raw = b"data: %b\n\n" % before if before else b""
            raw += self._visible(rest, chunks)
        return self._events(chunks, raw, done=done, texts=texts)

    def _visible(self, body: bytes, chunks: list[_Chunk]) -> bytes:
        """The bytes of the chunks that the caller may see: `body` joins them without the first prefix."""
        if not self._include_usage:
            seen = len(chunks)
            # Nearly always it is only the last chunk, the one with the usage, that is kept back.
            while seen and not chunks[seen - 1].choices:
                seen -= 1
                body = body[: max(body.rfind(BETWEEN), 0)]
            if any(not chunk.choices for chunk in chunks[:seen]):
                pieces = zip(body.split(BETWEEN), chunks, strict=False)
                body = BETWEEN.join(piece for piece, chunk in pieces if chunk.choices)
        return b"data: " + body + b"\n\n" if body else b""

    def _read_slowly(self, server_events: list[sse.ServerEvent], pending: int) -> Iterable[Event]:
        self._check_size(pending)
        chunks: list[_Chunk] = []
        raw: list[bytes] = []
        for server_event in server_events:
            data = server_event.data.strip()
            if data == b"[DONE]":
                return self._events(chunks, b"".join(raw), done=True)
            if not data:
                continue
            try:
                data, chunk = _decode_one(data)
                if chunk.error is not None:
                    raise self._to_error(chunk.error)
            except GatewayError as error:
                return sse.then_raise(self._events(chunks, b"".join(raw), done=False), error)
            chunks.append(chunk)
            if self._raw and (chunk.choices or self._include_usage):
                raw.append(b"data: " + data.replace(b"\n", b" ") + b"\n\n")
        return self._events(chunks, b"".join(raw), done=False)

    def _events(
        self, chunks: list[_Chunk], raw: bytes, *, done: bool, texts: Texts | None = None
    ) -> list[Event]:
        deltas = Deltas(b"" if self._raw else None)
        if texts is not None:
            self._model = texts.model or self._model
            deltas.begin(texts.text)
        for chunk in chunks:
            self._read(chunk, deltas)
        events = deltas.events()
        if raw:
            self._attach(raw, events, ended=done or len(self._reasons) >= self._choices)
        if done:
            events.append(self._finish())
        return events

    def _read(self, chunk: _Chunk, deltas: Deltas) -> None:
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.model:
            self._model = chunk.model
        for choice in chunk.choices or ():
            if choice.index:
                choice_index(choice.index)
            if choice.delta is not None:
                deltas.add(choice.index, choice.delta)
            if choice.finish_reason:
                self._reasons[choice.index] = finish_reason(choice.finish_reason)

    def _attach(self, raw: bytes, events: list[Event], *, ended: bool) -> None:
        if ended:
            self._tail += raw
        elif events:
            events[0] = msgspec.structs.replace(events[0], raw=raw)
        else:
            events.append(Opaque(raw))

    def _finish(self) -> Finish:
        self.finished = True
        return Finish(
            reasons=tuple(reason for _, reason in sorted(self._reasons.items())) or ("stop",),
            usage=self._usage.usage() if self._usage else None,
            model=self._model,
            raw=self._tail if self._raw else None,
        )

    def _check_size(self, held: int) -> None:
        if held > self._max_event_bytes:
            raise UpstreamProtocolError(
                f"the upstream sent an event of more than {self._max_event_bytes} bytes",
                code="upstream_too_large",
            )


def _is_utf8(body: bytes) -> bool:
    # The decoder does not look at the bytes of fields that it skips.
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decode_one(data: bytes) -> tuple[bytes, _Chunk]:
    """One event's JSON; bytes that are not UTF-8 become U+FFFD, as the standard for streams says."""
    try:
        data = data.decode("utf-8", "replace").encode()
        chunk = _decode_chunk(data)
    except msgspec.DecodeError as error:
        raise UpstreamProtocolError(
            "the upstream sent a stream event that is not a chat completion chunk"
        ) from error
    return data, chunk


class EventEncoder(EventWriter):
    """Writes one streamed answer for a caller."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._started = False
        self._roles: set[int] = set()
        self._head = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[{"index":'
            % (_encode(envelope.id), envelope.created, _encode(envelope.model))
        )
        self._tail = b',"usage":null}\n\n' if envelope.include_usage else b"}\n\n"

    def end(self) -> bytes:
        """The stream's end marker."""
        return DONE

    def error(self, error: GatewayError) -> bytes:
        """An error in the middle of the stream; nothing but the end may follow."""
        return b"data: " + _encode({"error": error_object(error)}) + b"\n\n"

    def _relay(self, raw: bytes) -> bytes:
        if self._started or not raw:
            return raw
        self._started = True
        # Raw bytes are whole events of the form "data: {...}\n\n".
        end = raw.index(b"\n\n")
        return b"data: " + self._envelope.add_to(raw[6:end]) + raw[end:]

    def _delta(self, event: AnyDelta) -> bytes:
        return self._chunk(event.choice, _piece(event), None)

    def _continued(self, event: Continued) -> bytes:
        return self._chunk(0, {}, None, continued_field(event))

    def _chunk(
        self, choice: int, delta: dict[str, Any], reason: str | None, own: dict[str, Any] | None = None
    ) -> bytes:
        if choice not in self._roles:
            self._roles.add(choice)
            delta = {"role": "assistant", "content": "", **delta}
        chunk = b'%b%d,"delta":%b,"finish_reason":%b}]' % (
            self._head,
            choice,
            _encode(delta),
            _encode(reason),
        )
        if not self._started:
            self._started = True
            chunk += b"," + self._envelope.fields()
        if own is not None:
            chunk += b"," + _encode(own)[1:-1]
        return chunk + self._tail

    def _finish(self, finish: Finish) -> bytes:
        written = b"".join(self._chunk(choice, {}, reason) for choice, reason in enumerate(finish.reasons))
        if self._envelope.include_usage and finish.usage is not None:
            usage = _encode(write_usage(finish.usage))
            written += self._head.removesuffix(b'[{"index":') + b'[],"usage":' + usage + b"}\n\n"
        return written


def _piece(event: AnyDelta) -> dict[str, Any]:
    match event:
        case TextDelta():
            return {"content": event.text}
        case ReasoningDelta():
            return {"reasoning_content": event.text}
        case RefusalDelta():
            return {"refusal": event.text}
        case Citation():
            return {"annotations": [write_citation(event)]}
        case ToolCallDelta():
            call: dict[str, Any] = {"index": event.index}
            if event.id:
                call |= {"id": event.id, "type": "function"}
            function = {"name": event.name} if event.name else {}
            return {"tool_calls": [call | {"function": function | {"arguments": event.arguments}}]}

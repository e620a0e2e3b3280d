"""Writes a streamed answer for a caller."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from modelway.dialects import sse
from modelway.dialects.continuing import continued_comment
from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_responses.custom import text_of
from modelway.dialects.openai_responses.items import (
    SUMMARY,
    Manner,
    Names,
    call_item,
    citation_object,
    message_item,
    reasoning_item,
    reasoning_part,
    refusal_part,
    text_part,
)
from modelway.dialects.openai_responses.wire import (
    Fields,
    Status,
    error_object,
    response_error,
    response_object,
    status_of,
)
from modelway.dialects.writing import AnyDelta, EventWriter
from modelway.errors import GatewayError, TurnInterrupted
from modelway.types import (
    Citation,
    Continued,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)

_encode = msgspec.json.Encoder().encode
# For each kind of part: its item, what its events are called, and the field that holds the whole of it.
_ITEM_OF = {"output_text": "message", "refusal": "message"}
_WHOLE = {"refusal": "refusal"}
# What the events of a kind of part are called where that is another name, and which of its item they are of.
_CALLED = {SUMMARY: "reasoning_summary_text"}
_PLACES = {SUMMARY: ("reasoning_summary_part", "summary_index")}
_CONTENT = ("content_part", "content_index")


class _Item:
    """An output item under way. A message has parts, of which the last may be open."""

    def __init__(self, kind: str, id: str, index: int, manner: Manner) -> None:
        self.kind, self.id, self.index = kind, id, index
        self.manner = manner
        self.parts: list[Fields] = []
        self.part = ""
        self.pieces: list[str] = []
        self.annotations: list[Fields] = []
        self.call_id, self.name = "", ""
        self.status = "in_progress"

    @property
    def whole(self) -> str:
        """All text of the open part, or all arguments."""
        return "".join(self.pieces)

    @property
    def is_custom(self) -> bool:
        """Whether it is a call of a tool that takes plain text."""
        return self.kind == "function_call" and self.manner.is_custom(self.name)

    def object(self) -> Fields:
        """The item as it stands."""
        match self.kind:
            case "message":
                return message_item(self.id, self.status, self.parts)
            case "reasoning":
                return reasoning_item(self.id, self.status, self.parts)
            case _:
                call = ToolCall(self.call_id, self.name, self.whole)
                return call_item(self.id, self.status, call, self.manner)

    def part_object(self) -> Fields:
        """The open part as it stands."""
        match self.part:
            case "output_text":
                return text_part(self.whole, self.annotations)
            case "refusal":
                return refusal_part(self.whole)
            case _:
                return reasoning_part(self.whole, self.part)


class EventEncoder(EventWriter):
    """Writes one streamed answer for a caller."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._names = Names(envelope.id)
        self._sequence = 0
        self._has_begun = False
        self._items: list[_Item] = []
        self._open: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._manner = Manner(envelope.echo)

    def end(self) -> bytes:
        """Nothing: the last event says that it is the last."""
        return b""

    def error(self, error: GatewayError) -> bytes:
        """An error in the middle of the stream: the response as it was left, and what SDKs raise."""
        begun = self._begin() + self._close_all("incomplete")
        if isinstance(error, TurnInterrupted):
            # Nobody's error, and what asking for the response tells too. Streams have no event for one that
            # was cancelled: SDKs know none.
            status: Status = "cancelled" if error.code == "turn_cancelled" else "incomplete"
            failed = self._ended(status, kind="response.incomplete")
        else:
            failed = self._ended("failed", error=response_error(error.status, error.explanation))
        told = self._event(
            "error",
            code=error.code,
            message=error.explanation,
            param=error.param,
            error=error_object(error),
        )
        return begun + failed + told

    def begin(self) -> bytes:
        """That a response in the background waits, before it is known who answers it."""
        envelope = self._envelope
        if self._sequence or not envelope.echo.get("background"):
            return b""
        asked = replace(envelope, model=envelope.echo.get("model", ""), provider="")
        response = response_object(asked, "queued", [])
        created = self._event("response.created", response=response)
        return created + self._event("response.queued", response=response)

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        written = self.begin()
        response = response_object(self._envelope, "in_progress", [])
        if not self._sequence:
            written = self._event("response.created", response=response)
        return written + self._event("response.in_progress", response=response)

    def _continued(self, event: Continued) -> bytes:
        return continued_comment(event)

    def _delta(self, event: AnyDelta) -> bytes:
        # The format has one answer.
        return b"" if event.choice else self._begin() + self._written(event)

    def _written(self, event: AnyDelta) -> bytes:
        match event:
            case TextDelta():
                return self._piece("output_text", event.text)
            case ReasoningDelta():
                return self._piece(self._manner.thoughts, event.text)
            case RefusalDelta():
                return self._piece("refusal", event.text)
            case Citation():
                return self._citation(event)
            case ToolCallDelta():
                return self._call(event)

    def _piece(self, part: str, text: str) -> bytes:
        written, item = self._within(part)
        item.pieces.append(text)
        more: Fields = {"logprobs": []} if part == "output_text" else {}
        return written + self._of_part(item, f"response.{_CALLED.get(part, part)}.delta", delta=text, **more)

    def _citation(self, event: Citation) -> bytes:
        written, item = self._within("output_text")
        annotation = citation_object(event)
        item.annotations.append(annotation)
        return written + self._of_part(
            item,
            "response.output_text.annotation.added",
            annotation_index=len(item.annotations) - 1,
            annotation=annotation,
        )

    def _call(self, event: ToolCallDelta) -> bytes:
        item = self._calls.get(event.index)
        written = b""
        if item is None:
            written = self._close_open("completed")
            item = self._calls[event.index] = self._new("function_call", self._manner.prefix(event.name))
            item.call_id, item.name = event.id, event.name
            written += self._added(item)
        if not event.arguments:
            return written
        item.pieces.append(event.arguments)
        if item.is_custom:
            return written  # what its text is shows only when the object around it is whole
        return written + self._of_item(item, "response.function_call_arguments.delta", delta=event.arguments)

    def _within(self, part: str) -> tuple[bytes, _Item]:
        """The item with an open part of this kind, and what must be written to have it."""
        kind, item, written = _ITEM_OF.get(part, "reasoning"), self._open, b""
        if item is None or item.kind != kind:
            written = self._close_open("completed")
            item = self._open = self._new(kind, "msg" if kind == "message" else "rs")
            written += self._added(item)
        if item.part != part:
            written += self._close_part(item)
            item.part = part
            written += self._of_part(item, f"response.{_place(part)[0]}.added", part=item.part_object())
        return written, item

    def _new(self, kind: str, prefix: str) -> _Item:
        item = _Item(kind, self._names.new(prefix), len(self._items), self._manner)
        self._items.append(item)
        return item

    def _added(self, item: _Item) -> bytes:
        return self._event("response.output_item.added", output_index=item.index, item=item.object())

    def _close_part(self, item: _Item) -> bytes:
        if not item.part:
            return b""
        more: Fields = {"logprobs": []} if item.part == "output_text" else {}
        name, whole = _CALLED.get(item.part, item.part), _WHOLE.get(item.part, "text")
        done = self._of_part(item, f"response.{name}.done", **{whole: item.whole}, **more)
        done += self._of_part(item, f"response.{_place(item.part)[0]}.done", part=item.part_object())
        item.parts.append(item.part_object())
        item.part, item.pieces, item.annotations = "", [], []
        return done

    def _close_open(self, status: str) -> bytes:
        """End the message or the thoughts that are under way."""
        item, self._open = self._open, None
        if item is None:
            return b""
        written = self._close_part(item)
        return written + self._done(item, status)

    def _close_all(self, status: str) -> bytes:
        """End everything; `status` is that of the last item.

        Calls end only now: an upstream may write several of them at once.
        """
        written = b""
        for item in self._calls.values():
            written += self._told(item)
            written += self._done(item, status if item is self._items[-1] else "completed")
        self._calls.clear()
        return written + self._close_open(status)

    def _told(self, item: _Item) -> bytes:
        """The end of what a call is told."""
        if not item.is_custom:
            return self._of_item(item, "response.function_call_arguments.done", arguments=item.whole)
        text = text_of(item.whole)
        return self._of_item(item, "response.custom_tool_call_input.delta", delta=text) + self._of_item(
            item, "response.custom_tool_call_input.done", input=text
        )

    def _done(self, item: _Item, status: str) -> bytes:
        item.status = status
        return self._event("response.output_item.done", output_index=item.index, item=item.object())

    def _finish(self, finish: Finish) -> bytes:
        status, incomplete = status_of(finish.reason)
        written = self._begin()
        if not self._items:
            written += self._within("output_text")[0]
        written += self._close_all(status)
        return written + self._ended(status, usage=finish.usage, incomplete=incomplete)

    def _ended(
        self,
        status: Status,
        *,
        kind: str = "",
        usage: Usage | None = None,
        incomplete: str | None = None,
        error: Fields | None = None,
    ) -> bytes:
        response = response_object(
            self._envelope,
            status,
            [item.object() for item in self._items],
            usage=usage,
            incomplete=incomplete,
            error=error,
            completed_at=int(self._envelope.now()) if status == "completed" else None,
        )
        return self._event(kind or f"response.{status}", response=response)

    def _of_part(self, item: _Item, kind: str, **fields: Any) -> bytes:
        return self._of_item(item, kind, **{_place(item.part)[1]: len(item.parts)}, **fields)

    def _of_item(self, item: _Item, kind: str, **fields: Any) -> bytes:
        return self._event(kind, item_id=item.id, output_index=item.index, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = _encode({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return sse.encode(body, event=kind)


def _place(part: str) -> tuple[str, str]:
    """What a part is called as one of its item, and the field that counts such."""
    return _PLACES.get(part, _CONTENT)

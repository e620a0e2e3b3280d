"""What the chunks of one read come to."""

from __future__ import annotations

from modelway.dialects.openai_chat.wire import WireMessage
from modelway.types import Event, ReasoningDelta, RefusalDelta, TextDelta


class Deltas:
    """Joins neighbouring pieces of the same kind, so that a read of fifty chunks is one event."""

    def __init__(self, raw: bytes | None) -> None:
        self._raw = raw
        self._events: list[Event] = []
        self._kind: type[TextDelta | ReasoningDelta | RefusalDelta] = TextDelta
        self._choice = 0
        self._pieces: list[str] = []

    def begin(self, text: str) -> None:
        """The first choice's text."""
        self._pieces.append(text)

    def add(self, choice: int, delta: WireMessage) -> None:
        """What a chunk says of a choice."""
        if thought := delta.reasoning_content or delta.reasoning:
            self._add_text(ReasoningDelta, choice, thought)
        if delta.content:
            text = delta.content if isinstance(delta.content, str) else delta.text()
            self._add_text(TextDelta, choice, text)
        if delta.refusal:
            self._add_text(RefusalDelta, choice, delta.refusal)
        for call in delta.tool_calls or ():
            self._flush()
            self._events.append(call.call(choice, call.index, self._raw))
        if delta.annotations:
            self._flush()
            self._events.extend(delta.citations(choice, self._raw))

    def events(self) -> list[Event]:
        """What all of it comes to."""
        self._flush()
        return self._events

    def _add_text(
        self, kind: type[TextDelta | ReasoningDelta | RefusalDelta], choice: int, text: str
    ) -> None:
        if self._pieces and (kind is not self._kind or choice != self._choice):
            self._flush()
        self._kind, self._choice = kind, choice
        self._pieces.append(text)

    def _flush(self) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._events.append(self._kind(text=text, choice=self._choice, raw=self._raw))
            self._pieces = []

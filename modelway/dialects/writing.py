"""What every writer of streamed answers does: bytes in the caller's own format go on, all else is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import assert_never

from modelway.types import (
    Citation,
    Continued,
    Event,
    Finish,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UpstreamState,
)

AnyDelta = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | Citation


class EventWriter(ABC):
    """Writes the events of one answer; a format says what its bytes are."""

    def encode(self, event: Event) -> bytes:
        """The bytes for one event; b"" where the caller sees nothing of it."""
        match event:
            case TextDelta() | ReasoningDelta() | RefusalDelta() | ToolCallDelta() | Citation():
                return self._delta(event) if event.raw is None else self._relay(event.raw)
            case Opaque():
                return self._relay(event.raw)
            case Finish():
                return self._finish(event) if event.raw is None else self._relay(event.raw)
            case Continued():
                return self._continued(event)
            case UpstreamState():
                return b""
            case _:
                assert_never(event)

    def begin(self) -> bytes:
        """What may be written before the first event; a format that has nothing to say then says nothing."""
        return b""

    @abstractmethod
    def _delta(self, event: AnyDelta) -> bytes:
        """A piece of the answer."""

    @abstractmethod
    def _finish(self, finish: Finish) -> bytes:
        """The end of it."""

    @abstractmethod
    def _continued(self, event: Continued) -> bytes:
        """That another provider goes on."""

    def _relay(self, raw: bytes) -> bytes:
        """An upstream's own bytes; a format that no upstream speaks has none."""
        return raw

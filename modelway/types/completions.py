"""All events of one answer, collected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from modelway.types.events import (
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
    UpstreamState,
    Usage,
)
from modelway.types.messages import Message, ToolCall


class Choice(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One alternative of an answer."""

    message: Message
    refusal: str = ""
    finish_reason: FinishReason | None = None


class Completion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All events of one answer, collected. `raw` is the upstream's own body, if there is one."""

    choices: tuple[Choice, ...]
    usage: Usage | None = None
    model: str = ""
    raw: bytes | None = None
    provider: str = ""
    conversation_id: str = ""

    @property
    def message(self) -> Message:
        """The message of the first choice."""
        return self.choices[0].message

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].message.text

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first choice ended; None: it was cut off."""
        return self.choices[0].finish_reason


class _ChoiceParts:
    """What has come of one choice so far."""

    __slots__ = ("calls", "citations", "reasoning", "refusal", "text")

    def __init__(self) -> None:
        self.citations: list[Citation] = []
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: dict[int, list[str]] = {}

    def choice(self, reason: FinishReason | None) -> Choice:
        calls = tuple(
            ToolCall(id=call[0], name=call[1], arguments="".join(call[2:]))
            for _, call in sorted(self.calls.items())
        )
        message = Message(
            role="assistant",
            content="".join(self.text),
            reasoning="".join(self.reasoning),
            tool_calls=calls,
            annotations=tuple(self.citations),
        )
        return Choice(message=message, refusal="".join(self.refusal), finish_reason=reason)


class Collector:
    """Folds events into a Completion; at any moment, so that a cut answer is not lost."""

    def __init__(self) -> None:
        self._first = _ChoiceParts()
        self._choices = [self._first]
        self.finish: Finish | None = None

    def add(self, event: Event) -> None:
        """Take the next event of the answer."""
        match event:
            case TextDelta():
                parts = self._parts(event.choice) if event.choice else self._first
                parts.text.append(event.text)
            case ReasoningDelta():
                self._parts(event.choice).reasoning.append(event.text)
            case RefusalDelta():
                self._parts(event.choice).refusal.append(event.text)
            case ToolCallDelta():
                self._add_call(event)
            case Citation():
                bare = event if event.raw is None and not event.choice else replace(event, raw=None, choice=0)
                self._parts(event.choice).citations.append(bare)
            case Finish():
                self.finish = event
            case Opaque() | UpstreamState() | Continued():
                pass
            case _:
                assert_never(event)

    def completion(self) -> Completion:
        """What has been collected; `finish_reason` is None where no Finish has come yet."""
        finish = self.finish
        reasons: tuple[FinishReason | None, ...] = finish.reasons if finish else ()
        padded = reasons + (reasons[-1] if reasons else None,) * (len(self._choices) - len(reasons))
        return Completion(
            choices=tuple(parts.choice(reason) for parts, reason in zip(self._choices, padded, strict=False)),
            usage=finish.usage if finish else None,
            model=finish.model if finish else "",
            raw=finish.raw if finish else None,
        )

    def _parts(self, choice: int) -> _ChoiceParts:
        while len(self._choices) <= choice:
            self._choices.append(_ChoiceParts())
        return self._choices[choice]

    def _add_call(self, delta: ToolCallDelta) -> None:
        call = self._parts(delta.choice).calls.setdefault(delta.index, ["", ""])
        call[0] = call[0] or delta.id
        call[1] = call[1] or delta.name
        call.append(delta.arguments)


def collect(events: Iterable[Event]) -> Completion:
    """Fold all events of one answer into a Completion."""
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.completion()

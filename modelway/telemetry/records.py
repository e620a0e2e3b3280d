"""What is known about one request."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import Struct

MOST_TOLD = 20


class Attempt(Struct, frozen=True, omit_defaults=True):
    """One call of a candidate: how long it took (in milliseconds) and how it failed, if it did."""

    provider: str
    model: str
    ms: float
    code: str = ""


class RequestRecord(Struct, kw_only=True, omit_defaults=True):
    """What is known about one request, in the order in which it becomes known. Times in milliseconds.

    `traceparent` is the span of whoever asks, where spans are sent. `turn` is one that is read along with,
    and has a record of its own. `path` is the upstream's address of a request that is no chat. `cost` is in
    dollars. `earlier_attempts` is how many there were before those that the line in the log tells of. The
    conversation's id is no part of it; `messages` and `answer` are only where the user asks for it.
    """

    time: float
    request_id: str
    traceparent: str = ""
    dialect: str = ""
    path: str = ""
    turn: str = ""
    caller: str = ""
    provider: str = ""
    model: str = ""
    stream: bool = False
    status: int = 0
    code: str = ""
    first_ms: float = 0.0
    total_ms: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    finish_reason: str = ""
    attempts: list[Attempt] = []
    earlier_attempts: int = 0
    messages: tuple[str, ...] = ()
    answer: str = ""


def trail(attempts: Sequence[Attempt]) -> str:
    """Who was asked, how it ended and the milliseconds: "Groq;upstream_error;12, Local;ok;340"."""
    if len(attempts) == 1:
        # Nearly always; a list for one costs as much again.
        return _told(attempts[0])
    return ", ".join([_told(one) for one in attempts[-MOST_TOLD:]])


def _told(one: Attempt) -> str:
    return f"{one.provider};{one.code or 'ok'};{int(one.ms)}"


def milliseconds_since(start: float) -> float:
    """Milliseconds since a moment (in seconds since the epoch), to a hundredth."""
    return round((time.time() - start) * 1000, 2)

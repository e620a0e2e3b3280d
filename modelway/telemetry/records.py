"""One line of JSON in the log for each request."""

from __future__ import annotations

import logging
import time

import msgspec
from msgspec import Struct

from modelway.types import ChatRequest, Completion

_encode = msgspec.json.Encoder().encode


class Attempt(Struct, frozen=True, omit_defaults=True):
    """One call of a candidate: how long it took (in milliseconds) and how it failed, if it did."""

    provider: str
    model: str
    ms: float
    code: str = ""


class RequestRecord(Struct, kw_only=True, omit_defaults=True):
    """What is known about one request, in the order in which it becomes known. Times in milliseconds.

    `path` is the upstream's address of a request that is no chat. The conversation's id is no part of it;
    `messages` and `answer` are only where the user asks for it.
    """

    time: float
    request_id: str
    dialect: str = ""
    path: str = ""
    caller: str = ""
    provider: str = ""
    model: str = ""
    stream: bool = False
    status: int = 0
    code: str = ""
    first_ms: float = 0.0
    total_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str = ""
    attempts: list[Attempt] = []
    messages: tuple[str, ...] = ()
    answer: str = ""


class Telemetry:
    """Writes the records of requests to the logger `modelway.request`; `prompts` adds the texts."""

    def __init__(self, *, prompts: bool = False) -> None:
        self._prompts = prompts
        self._log = logging.getLogger("modelway.request")

    def start(self, request_id: str) -> RequestRecord:
        """A record of a request that begins now."""
        return RequestRecord(time=time.time(), request_id=request_id)

    def asked(self, record: RequestRecord, request: ChatRequest) -> None:
        """Note what was asked."""
        record.dialect, record.stream = request.dialect, request.stream
        if self._prompts:
            record.messages = tuple(message.text for message in request.messages)

    def answered(self, record: RequestRecord, completion: Completion) -> None:
        """Note how the answer ended."""
        record.finish_reason = completion.finish_reason or ""
        if completion.usage is not None:
            record.input_tokens = completion.usage.input_tokens
            record.output_tokens = completion.usage.output_tokens
        if self._prompts:
            record.answer = completion.text

    def end(self, record: RequestRecord) -> None:
        """Write the record of a request that has ended."""
        record.total_ms = milliseconds_since(record.time)
        if self._log.isEnabledFor(logging.INFO):
            self._log.info("%s", _encode(record).decode())


def milliseconds_since(start: float) -> float:
    """Milliseconds since a moment (in seconds since the epoch), to a hundredth."""
    return round((time.time() - start) * 1000, 2)

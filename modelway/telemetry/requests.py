"""Follows requests from their beginning to the line in the log and the figures."""

from __future__ import annotations

import logging
import time

import msgspec
from msgspec.structs import replace

from modelway.telemetry.figures import Figures
from modelway.telemetry.records import MOST_TOLD, RequestRecord, milliseconds_since
from modelway.telemetry.traces import Traces
from modelway.types import ChatRequest, Completion

_encode = msgspec.json.Encoder().encode


class Telemetry:
    """Writes the records of requests to the logger `modelway.request`; `prompts` adds the texts.

    `traces` is None where no spans are sent.
    """

    def __init__(self, *, prompts: bool = False, traces: Traces | None = None) -> None:
        self.figures = Figures()
        self.traces = traces
        self._prompts = prompts
        self._log = logging.getLogger("modelway.request")

    def start(self, request_id: str) -> RequestRecord:
        """A record of a request that begins now."""
        self.figures.open += 1
        return RequestRecord(time=time.time(), request_id=request_id)

    def stands_aside(self, record: RequestRecord) -> None:
        """Note that a request only looks on: what it reads is not answered for it, or not yet there."""
        self.figures.aside.add(record.request_id)

    def turn_begun(self, record: RequestRecord) -> None:
        """Count a turn that belongs to no request; whoever reads it along stands aside."""
        self.figures.open += 1

    def asked(self, record: RequestRecord, request: ChatRequest) -> None:
        """Note what was asked."""
        record.dialect, record.stream = request.dialect, request.stream
        if request.stream:
            self.figures.streams.add(record.request_id)
        if self._prompts:
            record.messages = tuple(message.text for message in request.messages)

    def answered(self, record: RequestRecord, completion: Completion, cost: float = 0.0) -> None:
        """Note how the answer ended; `cost` is in dollars."""
        record.finish_reason = completion.finish_reason or ""
        record.cost = cost
        if completion.usage is not None:
            record.input_tokens = completion.usage.input_tokens
            record.output_tokens = completion.usage.output_tokens
        if self._prompts:
            record.answer = completion.text

    def turn_ended(self, record: RequestRecord, completion: Completion | None) -> None:
        """Count that a turn has ended which was begun as turn_begun() has counted, and write its record."""
        if completion is not None:
            self.answered(record, completion, record.cost)
        self.end(record)

    def end(self, record: RequestRecord) -> None:
        """Count a request that has ended, and write its record."""
        record.total_ms = milliseconds_since(record.time)
        figures = self.figures
        figures.count(record)
        figures.open -= 1
        if figures.aside:
            figures.aside.discard(record.request_id)
        if record.stream:
            figures.streams.discard(record.request_id)
        if self.traces is not None:
            self.traces.end(record)
        if self._log.isEnabledFor(logging.INFO):
            self._log.info("%s", _encode(_shortened(record)).decode())


def _shortened(record: RequestRecord) -> RequestRecord:
    """The record with no more attempts than the header of a reply has."""
    excess = len(record.attempts) - MOST_TOLD
    if excess <= 0:
        return record
    return replace(record, attempts=record.attempts[excess:], earlier_attempts=excess)

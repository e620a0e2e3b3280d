"""The fake upstream of modelway.testing, under its old name."""

from modelway.testing.fake_upstream import (
    END_OF_CHUNKS,
    USAGE,
    End,
    FakeUpstream,
    Received,
    Script,
    Step,
    closed_port,
    text_event,
)

__all__ = [
    "END_OF_CHUNKS",
    "USAGE",
    "End",
    "FakeUpstream",
    "Received",
    "Script",
    "Step",
    "closed_port",
    "text_event",
]

"""What becomes of requests: one line of JSON in the log for each, and figures about all of them."""

from modelway.telemetry.exposition import expose
from modelway.telemetry.figures import Figures
from modelway.telemetry.records import Attempt, RequestRecord, milliseconds_since, trail
from modelway.telemetry.requests import Telemetry
from modelway.telemetry.traces import Traces, open_traces

__all__ = [
    "Attempt",
    "Figures",
    "RequestRecord",
    "Telemetry",
    "Traces",
    "expose",
    "milliseconds_since",
    "open_traces",
    "trail",
]

"""What becomes of requests: one line of JSON in the log for each, and figures about all of them."""

from modelway.telemetry.exposition import expose
from modelway.telemetry.figures import Figures
from modelway.telemetry.records import Attempt, RequestRecord, milliseconds_since, trail
from modelway.telemetry.requests import Telemetry

__all__ = ["Attempt", "Figures", "RequestRecord", "Telemetry", "expose", "milliseconds_since", "trail"]

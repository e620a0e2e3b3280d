"""GET endpoints that tell the figures: for Prometheus, and as JSON for plots."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from modelway.routing import Breakers
from modelway.server.catalogue import json_response
from modelway.telemetry import Telemetry, expose
from modelway.telemetry.exposition import CONTENT_TYPE


class FigureEndpoints:
    """Tells what this process has counted since it started."""

    def __init__(self, telemetry: Telemetry, breakers: Breakers) -> None:
        self._figures = telemetry.figures
        self._breakers = breakers

    async def metrics(self, _: Request) -> Response:
        """The text format of Prometheus."""
        return Response(
            expose(self._figures, self._breakers.left_alone()), headers={"content-type": CONTENT_TYPE}
        )

    async def figures(self, _: Request) -> Response:
        """Totals since the start, and the last hour in steps of ten seconds."""
        return json_response(self._figures.snapshot())

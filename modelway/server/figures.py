"""GET endpoints that tell the figures: for Prometheus, and as JSON for plots."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from modelway.accounts import check_may_watch
from modelway.routing import Breakers
from modelway.server.catalogue import json_response
from modelway.server.exchange import Exchange
from modelway.telemetry import Telemetry, expose
from modelway.telemetry.exposition import CONTENT_TYPE
from modelway.types import Caller


class FigureEndpoints:
    """Tells what this process has counted since it started, of all callers: not for keys with rules."""

    def __init__(self, telemetry: Telemetry, breakers: Breakers) -> None:
        self._figures = telemetry.figures
        self._breakers = breakers

    async def metrics(self, request: Request) -> Response:
        """The text format of Prometheus."""
        check_may_watch(_caller(request))
        return Response(
            expose(self._figures, self._breakers.left_alone()), headers={"content-type": CONTENT_TYPE}
        )

    async def figures(self, request: Request) -> Response:
        """Totals since the start, and the last hour in steps of ten seconds."""
        check_may_watch(_caller(request))
        return json_response(self._figures.snapshot())


def _caller(request: Request) -> Caller:
    exchange: Exchange = request.scope["modelway.exchange"]
    return exchange.caller

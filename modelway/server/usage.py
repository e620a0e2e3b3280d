"""GET /v1/usage: what was spent, by day, caller, provider and model."""

from __future__ import annotations

import time
from datetime import date, timedelta

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from modelway.auth import Auth
from modelway.conversations import Callers, Spending, day_of
from modelway.errors import InvalidRequest
from modelway.prices import NANOS
from modelway.server.catalogue import json_response
from modelway.server.exchange import Exchange

_DAYS = 30


class UsageEndpoint:
    """Tells each caller its own spending; where no key is needed, everybody's."""

    def __init__(self, callers: Callers, auth: Auth) -> None:
        self._callers = callers
        self._auth = auth

    async def usage(self, request: Request) -> Response:
        """The sums of the days `from` one `to` another, in UTC; without them, of the last thirty."""
        exchange: Exchange = request.scope["modelway.exchange"]
        whose = "" if self._auth.open else exchange.caller.name
        today = date.fromisoformat(day_of(time.time()))
        last = _day(request, "to", today)
        first = _day(request, "from", last - timedelta(days=_DAYS - 1))
        found = await self._callers.usage(whose, first.isoformat(), last.isoformat())
        total = sum(one.nanos for one in found)
        return json_response(
            {
                "object": "list",
                "data": [told(one) for one in found],
                "from": first.isoformat(),
                "to": last.isoformat(),
                "cost": total / NANOS,
            }
        )


def told(spending: Spending) -> dict[str, object]:
    """A sum as JSON, its cost in dollars."""
    fields: dict[str, object] = msgspec.structs.asdict(spending)
    del fields["nanos"]
    return {**fields, "cost": spending.nanos / NANOS}


def _day(request: Request, name: str, default: date) -> date:
    text = request.query_params.get(name, "")
    try:
        return date.fromisoformat(text) if text else default
    except ValueError:
        raise InvalidRequest(f"`{name}` must be a day such as 2026-12-31", param=name) from None

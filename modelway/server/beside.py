"""What may stand beside the API: a page for people, which the server knows by this face only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from modelway.auth import Auth
from modelway.gateway import Gateway
from modelway.server.exchange import Exchange
from modelway.telemetry import Telemetry


class Page(Protocol):
    """Answers the addresses that it owns, for whoever it lets in."""

    def owns(self, path: str) -> bool:
        """Whether the address is one of the page's."""
        ...

    async def __call__(self, exchange: Exchange, make_room: Callable[[Exchange], None]) -> None:
        """Answer a request that the guard has let pass.

        `make_room` counts it among those that are answered, and raises Overloaded if it cannot.
        """
        ...

    @property
    def under_way(self) -> int:
        """How many answers are that were asked for on the page."""
        ...

    def close_streams(self) -> None:
        """End what would otherwise go on for as long as a page is open."""
        ...

    async def aclose(self) -> None:
        """End the answers under way."""
        ...


# Of the gateway, the keys, the telemetry, and the most bytes that a body may have.
MakePage = Callable[[Gateway, Auth, Telemetry, int], Page]

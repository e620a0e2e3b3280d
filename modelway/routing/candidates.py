"""Who may answer a request, and under which conditions."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from modelway.config import CandidateLimits
from modelway.errors import ContextTooLong, GatewayError
from modelway.provider import Provider


class Limits(Struct, frozen=True):
    """How long a candidate may take, in seconds; None: as long as [upstream] says."""

    connect_s: float | None = None
    first_token_s: float | None = None
    idle_s: float | None = None
    total_s: float | None = None


class Route(Struct, frozen=True):
    """What a route asks for beyond its candidates. None: as [upstream] says, or not at all."""

    name: str
    continues: bool = False
    retries: int | None = None
    deadline_s: float | None = None
    hedge_after_s: float | None = None
    shadow: Candidate | None = None
    shadow_share: float = 1.0


class Candidate(Struct, frozen=True):
    """A provider and the model that is asked of it; `route` is the one that led here, if any did.

    `name` is the provider's.
    """

    provider: Provider
    model: str
    failover_on_context: bool = False
    route: Route | None = None
    limits: Limits | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Take the provider's name: describing itself is more work than it looks, and it never changes."""
        force_setattr(self, "name", self.provider.info.name)

    @property
    def key(self) -> tuple[str, str]:
        """What its failures are counted under."""
        return self.name, self.model

    @property
    def is_plain(self) -> bool:
        """Whether it is simply asked: under no limits of its own, by no route that wants more than that."""
        route = self.route
        return self.limits is None and (
            route is None or (not route.continues and route.hedge_after_s is None and route.shadow is None)
        )

    def may_fail_over(self, error: GatewayError) -> bool:
        """Whether the next candidate may answer in place of this one."""
        return error.failover or (self.failover_on_context and isinstance(error, ContextTooLong))


def limits_of(*said: CandidateLimits | None, deadline_s: float | None = None) -> Limits | None:
    """The limits that were set, the first one's before the others'; None where nothing was.

    No candidate has longer to its first token than all of them together.
    """

    def first(
        key: Literal["connect_timeout_s", "first_token_timeout_s", "idle_timeout_s", "total_timeout_s"],
    ) -> float | None:
        values = (getattr(limits, key) for limits in said if limits is not None)
        return next((value for value in values if value is not None), None)

    first_token_s = min(
        (limit for limit in (first("first_token_timeout_s"), deadline_s) if limit is not None), default=None
    )
    found = Limits(
        first("connect_timeout_s"),
        first_token_s,
        first("idle_timeout_s"),
        first("total_timeout_s"),
    )
    return None if found == Limits() else found

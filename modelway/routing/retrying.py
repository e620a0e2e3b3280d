"""How often the same candidate is asked again, and when."""

from __future__ import annotations

import random

from msgspec import Struct, field

from modelway.errors import GatewayError, UpstreamError, UpstreamTimeout

FIRST_PAUSE_S = 0.25
DEADLINE_S = 300.0


class RetryPolicy(Struct, frozen=True):
    """How often the same candidate is asked again, after which pause, and until when anybody is.

    `deadline_s` is what all attempts for one answer have together, until its first piece. `random` gives
    numbers from 0 to 1.
    """

    retries: int = 2
    max_wait_s: float = 10.0
    deadline_s: float = DEADLINE_S
    random: random.Random = field(default_factory=random.Random)

    def pause(
        self, error: GatewayError, attempt: int, *, stateful: bool, retries: int | None = None
    ) -> float | None:
        """Seconds to wait before attempt number `attempt + 1` (from 0); None: do not try again."""
        # A timeout has used up its share of the caller's patience already.
        unsent = (
            isinstance(error, UpstreamError) and not error.sent and not isinstance(error, UpstreamTimeout)
        )
        allowed = unsent or (error.retryable and not stateful)
        if not allowed or attempt >= (self.retries if retries is None else retries):
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.max_wait_s else None
        ceiling = min(FIRST_PAUSE_S * 2.0**attempt, self.max_wait_s)
        # Jitter keeps many callers that failed together from coming back together.
        return ceiling * self.random.uniform(0.5, 1.0)

"""Leaves an upstream alone that keeps failing: who is asked again, when, and by how many."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from modelway.errors import (
    GatewayError,
    ProviderUnavailable,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
)

MAX_COOL_DOWN_S = 60.0
MAX_KNOWN = 1000
PROBE_RETRY_S = 1.0

Key = tuple[str, ...]


class BreakerState(Struct, frozen=True):
    """How a candidate fares. `last_code` is of its last failure; `retry_after_s` 0: it may be asked."""

    provider: str
    model: str
    state: Literal["closed", "open", "half_open"]
    failures: int
    last_code: str
    retry_after_s: float


class _Breaker(Struct):
    """One candidate that has failed: how often in a row, and until when it is left alone."""

    failures: int = 0
    last_code: str = ""
    opened: bool = False
    until: float = 0.0
    cool_down_s: float = 0.0
    probing: bool = False


class Breakers:
    """One breaker for each key, a candidate (provider and model), that has failed and not answered since.

    After `failures` requests in a row that came to nothing a candidate is not asked for `cool_down_s` (twice
    as long each time it fails its probe, or an answer before one has come to its end). Then exactly one
    request may try it, and its outcome decides. `failures` 0 turns all this off. `troubled` is empty as long
    as nobody fails: one look at it is all that a request costs then.
    """

    def __init__(
        self, failures: int = 5, cool_down_s: float = 10.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.troubled: dict[Key, _Breaker] = {}
        self._failures = failures
        self._cool_down_s = cool_down_s
        self.clock = clock

    def apart(self) -> Breakers:
        """Others that open and close in the same way, for what must not close this."""
        return Breakers(self._failures, self._cool_down_s, clock=self.clock)

    def admit(self, key: Key) -> bool:
        """Whether a call is the probe; raises ProviderUnavailable where it may not be made now.

        Who makes a probe tells how it went: `failed`, `succeeded` or, where nobody knows, `released`.
        """
        breaker = self.troubled.get(key)
        if breaker is None or not breaker.opened:
            return False
        wait = self._wait(breaker)
        if wait:
            name = "/".join(filter(None, key))
            raise ProviderUnavailable(
                f"{name} failed {breaker.failures} times in a row ({breaker.last_code}) and is left alone",
                hint=f"try again in {max(1, round(wait))} s, or name another provider",
                retry_after=wait,
            )
        breaker.probing = True
        return True

    def failed(self, key: Key, error: GatewayError, *, probe: bool = False) -> None:
        """Take note of a request that came to nothing, or of an answer that broke off."""
        if not self._failures:
            return
        breaker = self.troubled.get(key)
        if breaker is not None and breaker.opened and not probe:
            return  # it was asked before the breaker opened, and says nothing new
        if not _is_outage(error):
            self._learn(key, error)
            return
        if breaker is None:
            if len(self.troubled) >= MAX_KNOWN:
                # Callers choose the names of models: what they make up must not fill memory.
                del self.troubled[next(iter(self.troubled))]
            breaker = self.troubled[key] = _Breaker()
        breaker.failures += 1
        breaker.last_code = error.code
        if breaker.probing or breaker.failures >= self._failures:
            self._open(breaker, error)

    def succeeded(self, key: Key) -> None:
        """Take note of an answer that came to its end."""
        self.troubled.pop(key, None)

    def answers(self, key: Key) -> None:
        """Take note that a probe is being answered: all may ask again, but one failure opens again.

        The next pause is twice as long as the last one, until an answer has come to its end.
        """
        breaker = self.troubled.get(key)
        if breaker is not None:
            breaker.opened = breaker.probing = False
            breaker.failures = self._failures - 1

    def released(self, key: Key) -> None:
        """Take note of a probe that was given up before anybody knew how it would go."""
        breaker = self.troubled.get(key)
        if breaker is not None:
            breaker.probing = False

    def state(self, key: Key) -> BreakerState | None:
        """How a candidate fares; None where nothing is wrong with it."""
        breaker = self.troubled.get(key)
        if breaker is None:
            return None
        wait = self._wait(breaker) if breaker.opened else 0.0
        half_open = breaker.opened and self.clock() >= breaker.until
        state: Literal["closed", "open", "half_open"] = "closed"
        if breaker.opened:
            state = "half_open" if half_open else "open"
        return BreakerState(key[0], key[1], state, breaker.failures, breaker.last_code, round(wait, 3))

    def states(self, provider: str) -> list[BreakerState]:
        """How the models of a provider fare with which something is wrong."""
        found = (self.state(key) for key in list(self.troubled) if key[0] == provider)
        return [state for state in found if state is not None]

    def left_alone(self) -> dict[str, int]:
        """How many models of each provider are not asked now; providers of which none is are left out."""
        now = self.clock()
        return dict(Counter(key[0] for key, one in self.troubled.items() if one.opened and one.until > now))

    def _learn(self, key: Key, error: GatewayError) -> None:
        """An error that is no outage: most show that the upstream is there."""
        breaker = self.troubled.get(key)
        if breaker is None:
            return
        if isinstance(error, UpstreamRateLimited):
            if breaker.probing:
                self._open(breaker, error)
        elif isinstance(error, UpstreamRefusedCredential) or error.status in {400, 404, 413}:
            del self.troubled[key]
        else:
            breaker.probing = False

    def _open(self, breaker: _Breaker, error: GatewayError) -> None:
        # It has a pause only from the last time, since when no answer has come to its end.
        longer = breaker.cool_down_s * 2 or self._cool_down_s
        most = max(MAX_COOL_DOWN_S, self._cool_down_s)
        breaker.cool_down_s = min(max(longer, error.retry_after or 0.0), most)
        breaker.until = self.clock() + breaker.cool_down_s
        breaker.opened, breaker.probing = True, False

    def _wait(self, breaker: _Breaker) -> float:
        wait = breaker.until - self.clock()
        if wait > 0:
            return wait
        return PROBE_RETRY_S if breaker.probing else 0.0


def _is_outage(error: GatewayError) -> bool:
    """Whether the error says that the upstream cannot answer, whoever asks."""
    return isinstance(error, UpstreamError) and not isinstance(
        error, UpstreamRateLimited | UpstreamRefusedCredential
    )

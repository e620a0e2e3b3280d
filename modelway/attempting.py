"""Tries candidates until one begins to answer: retries, failover, hedging, all before the first delta."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from modelway.errors import GatewayError, ProviderUnavailable, UpstreamTimeout
from modelway.provider import CONNECT_LIMIT_S
from modelway.routing import Breakers, Candidate, Limits, RetryPolicy
from modelway.telemetry import Attempt, milliseconds_since
from modelway.types import Event

T = TypeVar("T")

LOST = "hedge_lost"


class EventStream(Protocol):
    """The events of an answer; closing it ends the upstream call."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Itself."""
        ...

    async def __anext__(self) -> Event:
        """The next event; StopAsyncIteration at the end."""
        ...

    async def aclose(self) -> None:
        """End the call."""
        ...


class Begun(Struct, frozen=True):
    """An answer that has begun: what has come of it, and where the rest will come from.

    `ignored` names the fields of the request that the provider could not be told. `seamless`: it goes on with
    another answer, whose beginning it was given.
    """

    candidate: Candidate
    stream: EventStream
    held: list[Event]
    ignored: tuple[str, ...] = ()
    seamless: bool = False


Begin = Callable[[Candidate], Awaitable[Begun]]


class Attempting:
    """Asks candidates. `begin` is one call of one of them, up to the first event that a caller can see."""

    def __init__(self, policy: RetryPolicy, breakers: Breakers) -> None:
        self.policy = policy
        self.breakers = breakers
        # One caller's requests for images, say, must not cut off the chats of all.
        self._others = breakers.apart()
        self._clock = breakers.clock

    async def first_to_answer(
        self, candidates: Sequence[Candidate], begin: Begin, attempts: list[Attempt]
    ) -> Begun:
        """Who begins to answer first, in the order of the candidates; otherwise the first one's error."""
        asked, *others = candidates
        until = self._clock() + self._deadline_s(asked)
        try:
            if asked.route is not None and (after_s := asked.route.hedge_after_s) is not None:
                return await self._hedged(asked, others, begin, attempts, until, after_s)
            return await self._with_retries(asked, begin, attempts, until)
        except GatewayError as error:
            if not others or not asked.may_fail_over(error):
                raise
            first = error
        for candidate in others:
            if self._clock() >= until:
                _add_hint(first, "there was no time left to ask another one")
                break
            try:
                return await self._with_retries(candidate, begin, attempts, until, is_next=True)
            except GatewayError as error:
                # The caller asked for the first: its error says most, the others only what they lack.
                _add_hint(first, f"{candidate.name} could not answer instead: {error.message}")
                _wait_for_the_earliest(first, error)
                if not candidate.may_fail_over(error):
                    break
        raise first

    async def once_it_works(
        self, key: tuple[str, str, str], call: Callable[[], Awaitable[T]], attempts: list[Attempt]
    ) -> T:
        """What a call gives that only this upstream can answer; again where that may help.

        `key` is the provider, the model and the operation.
        """
        (name, model, _), breakers, tried = key, self._others, 0
        while True:
            probe = breakers.admit(key) if breakers.troubled else False
            started = time.time()
            try:
                result = await call()
            except GatewayError as error:
                attempts.append(Attempt(name, model, milliseconds_since(started), error.code))
                pause = None if probe else self.policy.pause(error, tried, stateful=False)
                if pause is None:
                    breakers.failed(key, error, probe=probe)
                    raise
            except BaseException:
                if probe:
                    breakers.released(key)
                raise
            else:
                attempts.append(Attempt(name, model, milliseconds_since(started)))
                if breakers.troubled:
                    breakers.succeeded(key)
                return result
            tried += 1
            await asyncio.sleep(pause)

    async def _with_retries(
        self,
        candidate: Candidate,
        begin: Begin,
        attempts: list[Attempt],
        until: float,
        *,
        is_next: bool = False,
    ) -> Begun:
        """Try one candidate, again where the error, the policy and the time permit it."""
        breakers, tried = self.breakers, 0
        while True:
            # Again before each retry: others may have failed during the pause.
            probe = self._admit(candidate, attempts) if breakers.troubled else False
            started = time.time()
            try:
                if candidate.limits is None and not is_next and not tried:
                    begun = await begin(candidate)
                else:
                    left = until - self._clock() if is_next or tried else None
                    begun = await self._within(candidate, begin, left)
            except GatewayError as error:
                attempts.append(
                    Attempt(candidate.name, candidate.model, milliseconds_since(started), error.code)
                )
                pause = None if probe else self._pause(candidate, error, tried)
                if pause is None or self._clock() + pause >= until:
                    breakers.failed(candidate.key, error, probe=probe)
                    raise
            except BaseException:
                if probe:
                    breakers.released(candidate.key)
                raise
            else:
                attempts.append(Attempt(candidate.name, candidate.model, milliseconds_since(started)))
                if probe:
                    breakers.answers(candidate.key)
                return begun
            tried += 1
            await asyncio.sleep(pause)

    async def _within(self, candidate: Candidate, begin: Begin, limit_s: float | None) -> Begun:
        """One call, within the time that is left and what the route grants."""
        limits = candidate.limits
        if limits is not None and limits.first_token_s is not None:
            limit_s = limits.first_token_s if limit_s is None else min(limits.first_token_s, limit_s)
        token = CONNECT_LIMIT_S.set(limits.connect_s if limits is not None else None)
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await begin(candidate)
        except TimeoutError:
            if not limit.expired():
                raise
            raise UpstreamTimeout(f"{candidate.name} began no answer within {limit_s:.3g} s") from None
        finally:
            CONNECT_LIMIT_S.reset(token)

    async def _hedged(
        self,
        asked: Candidate,
        others: list[Candidate],
        begin: Begin,
        attempts: list[Attempt],
        until: float,
        after_s: float,
    ) -> Begun:
        """Ask the next one too when the first has not begun after a while; whoever begins first answers.

        Who is asked here is taken out of `others`. Upstreams that keep conversations themselves are left
        out: an answer that nobody takes would stay in theirs.
        """
        leader = asyncio.create_task(self._with_retries(asked, begin, attempts, until))
        tasks = {leader: (asked, time.time())}
        try:
            await asyncio.wait(tasks, timeout=after_s)
            if not leader.done() and others and not _is_stateful(asked) and not _is_stateful(others[0]):
                follower = others.pop(0)
                asking = self._with_retries(follower, begin, attempts, until, is_next=True)
                tasks[asyncio.create_task(asking)] = follower, time.time()
            waiting: set[asyncio.Task[Begun]] = set(tasks)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=list(tasks).index):
                    if task.exception() is None:
                        del tasks[task]
                        return task.result()
            return leader.result()
        finally:
            await _call_off(tasks, attempts)

    def _admit(self, candidate: Candidate, attempts: list[Attempt]) -> bool:
        try:
            return self.breakers.admit(candidate.key)
        except ProviderUnavailable as error:
            attempts.append(Attempt(candidate.name, candidate.model, 0.0, error.code))
            raise

    def _pause(self, candidate: Candidate, error: GatewayError, tried: int) -> float | None:
        retries = candidate.route.retries if candidate.route is not None else None
        return self.policy.pause(error, tried, stateful=_is_stateful(candidate), retries=retries)

    def _deadline_s(self, candidate: Candidate) -> float:
        route = candidate.route
        own = route.deadline_s if route is not None else None
        return self.policy.deadline_s if own is None else own


class Hurried:
    """The events of an answer, none of which may take too long."""

    def __init__(self, name: str, stream: EventStream, limits: Limits) -> None:
        self._name = name
        self._stream = stream
        self._idle_s = limits.idle_s
        self._total_s = limits.total_s
        self._until = None if limits.total_s is None else asyncio.get_running_loop().time() + limits.total_s
        self._has_begun = False

    def __aiter__(self) -> Hurried:
        return self

    async def __anext__(self) -> Event:
        """The next event; raises UpstreamTimeout where it is late."""
        now = asyncio.get_running_loop().time()
        idle = None if self._idle_s is None or not self._has_begun else now + self._idle_s
        until = min((moment for moment in (idle, self._until) if moment is not None), default=None)
        try:
            async with asyncio.timeout_at(until) as limit:
                event = await anext(self._stream)
        except TimeoutError:
            if not limit.expired():
                raise
            late = f"{self._idle_s:g} s without a word" if until == idle else f"{self._total_s:g} s in all"
            code = "upstream_stalled" if self._has_begun else ""
            raise UpstreamTimeout(f"{self._name} took more than {late}", code=code) from None
        self._has_begun = True
        return event

    async def aclose(self) -> None:
        """End the call."""
        await self._stream.aclose()


async def _call_off(
    losers: dict[asyncio.Task[Begun], tuple[Candidate, float]], attempts: list[Attempt]
) -> None:
    """End the calls that nobody waits for any more; each with the time at which it began."""
    for task, (candidate, started) in losers.items():
        if not task.done():
            task.cancel()
            attempts.append(Attempt(candidate.name, candidate.model, milliseconds_since(started), LOST))
    await asyncio.gather(*losers, return_exceptions=True)
    for task in losers:
        if not task.cancelled() and task.exception() is None:
            await task.result().stream.aclose()


def _is_stateful(candidate: Candidate) -> bool:
    return candidate.provider.info.stateful


def _add_hint(error: GatewayError, said: str) -> None:
    error.hint = f"{error.hint}; {said}" if error.hint else said


def _wait_for_the_earliest(first: GatewayError, other: GatewayError) -> None:
    """Where all are left alone, the caller may come back as soon as one is not."""
    if isinstance(first, ProviderUnavailable) and isinstance(other, ProviderUnavailable):
        first.retry_after = min(first.retry_after or 0.0, other.retry_after or 0.0)

"""Tries candidates until one begins to answer: retries, failover, hedging, all before the first delta."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from msgspec import Struct

from modelway.errors import GatewayError, ProviderUnavailable, UpstreamProtocolError, UpstreamTimeout
from modelway.provider import CONNECT_LIMIT_S, EventStream
from modelway.routing import Breakers, Candidate, Limits, RetryPolicy
from modelway.telemetry import Attempt, milliseconds_since
from modelway.types import Delta, Event, Finish

T = TypeVar("T")

LOST = "hedge_lost"
# Events that a caller can see.
HAS_BEGUN = (*Delta, Finish)


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


class Sent(Struct):
    """The first candidate's call: what has come of it.

    `ignored`: see Begun. `made_at` is when it was made, in seconds since the epoch; 0: it is made when its
    events are waited for. Its time runs since `since`, by the breakers' clock.
    """

    stream: EventStream
    ignored: tuple[str, ...] = ()
    held: list[Event] = []
    made_at: float = 0.0
    since: float = 0.0


Begin = Callable[[Candidate], Awaitable[Begun]]
Failure = tuple[Candidate, GatewayError]
Calls = dict[asyncio.Task[Begun], tuple[Candidate, float]]


class Attempting:
    """Asks candidates. `begin` is one call of one of them, up to the first event that a caller can see."""

    def __init__(self, policy: RetryPolicy, breakers: Breakers) -> None:
        self.policy = policy
        self.breakers = breakers
        # One caller's requests for images, say, must not cut off the chats of all.
        self._others = breakers.apart()
        self._clock = breakers.clock
        # Somebody must hold on to tasks that nobody waits for.
        self._endings: set[asyncio.Task[None]] = set()

    async def first_to_answer(
        self,
        candidates: Sequence[Candidate],
        begin: Begin,
        attempts: list[Attempt],
        *,
        sent: Sent | None = None,
    ) -> Begun:
        """Who begins to answer first, in the order of the candidates; otherwise the first one's error.

        `sent` is the first call, where that is under way.
        """
        left = list(candidates)
        first: GatewayError | None = None
        until = (self._clock() if sent is None else sent.since) + self._deadline_s(left[0])
        made_at = 0.0 if sent is None else sent.made_at
        hedge_after_s = left[0].route.hedge_after_s if left[0].route is not None else None
        while True:
            if hedge_after_s is not None and first is None:
                came = await self._hedged(left, begin, attempts, until, hedge_after_s)
                if isinstance(came, Begun):
                    return came
                failed = came
            else:
                asked = left.pop(0)
                try:
                    return await self._ask(asked, begin, attempts, until, made_at)
                except GatewayError as error:
                    failed = [(asked, error)]
            made_at = 0.0
            first = failed[0][1] if first is None else first
            for candidate, failure in failed:
                if failure is not first:
                    _tell_also(first, candidate, failure)
                if not candidate.may_fail_over(failure):
                    raise first
            if left and self._clock() < until:
                continue
            if left:
                _add_hint(first, "there was no time left to ask another one")
            raise first

    async def once_it_works(
        self, key: tuple[str, str, str], call: Callable[[], Awaitable[T]], attempts: list[Attempt]
    ) -> T:
        """What a call gives that only this upstream can answer; again where that may help.

        `key` is the provider, the model and the operation.
        """
        until = self._clock() + self.policy.deadline_s
        pause = partial(self.policy.pause, stateful=False)
        timed = partial(_within, key[0], None, call)
        result = await self._with_retries(key, self._others, timed, pause, attempts, until)
        if self._others.troubled:
            self._others.succeeded(key)
        return result

    async def _ask(
        self,
        candidate: Candidate,
        begin: Begin,
        attempts: list[Attempt],
        until: float,
        made_at: float = 0.0,
    ) -> Begun:
        """Ask one candidate, as its route wants it."""
        retries = candidate.route.retries if candidate.route is not None else None
        pause = partial(self.policy.pause, stateful=_is_stateful(candidate), retries=retries)
        timed = partial(_within, candidate.name, candidate.limits, partial(begin, candidate))
        return await self._with_retries(candidate.key, self.breakers, timed, pause, attempts, until, made_at)

    async def _with_retries(
        self,
        key: tuple[str, ...],
        breakers: Breakers,
        call: Callable[[float], Awaitable[T]],
        pause_after: Callable[[GatewayError, int], float | None],
        attempts: list[Attempt],
        until: float,
        made_at: float = 0.0,
    ) -> T:
        """Call, which is told the seconds that are left; again where error, policy and time permit it."""
        name, model, tried = key[0], key[1], 0
        while True:
            # Again before each retry: others may have failed during the pause. A call that was made is in.
            probe = _admit(breakers, key, attempts) if breakers.troubled and not made_at else False
            started, made_at = made_at or time.time(), 0.0
            try:
                result = await call(until - self._clock())
            except GatewayError as error:
                attempts.append(Attempt(name, model, milliseconds_since(started), error.code))
                pause = None if probe else pause_after(error, tried)
                if pause is None or self._clock() + pause >= until:
                    breakers.failed(key, error, probe=probe)
                    raise
            except BaseException:
                if probe:
                    breakers.released(key)
                raise
            else:
                attempts.append(Attempt(name, model, milliseconds_since(started)))
                if probe:
                    breakers.answers(key)
                return result
            tried += 1
            await asyncio.sleep(pause)

    async def _hedged(
        self, left: list[Candidate], begin: Begin, attempts: list[Attempt], until: float, after_s: float
    ) -> Begun | list[Failure]:
        """Ask the next one too when the first has not begun after a while; whoever begins first answers.

        Who is asked here is taken out of `left`; where nobody answers, it is told how each has failed.
        Upstreams that keep conversations themselves are left out: an answer that nobody takes would stay in
        theirs.
        """
        asked = left.pop(0)
        calls = {asyncio.create_task(self._ask(asked, begin, attempts, until)): (asked, time.time())}
        try:
            await asyncio.wait(calls, timeout=after_s)
            waits = not any(task.done() for task in calls)
            if waits and left and not _is_stateful(asked) and not _is_stateful(left[0]):
                follower = left.pop(0)
                calls[asyncio.create_task(self._ask(follower, begin, attempts, until))] = (
                    follower,
                    time.time(),
                )
            came = await _first_of(calls)
            winner = came if isinstance(came, asyncio.Task) else None
            await self._call_off({task: call for task, call in calls.items() if task is not winner}, attempts)
        except BaseException:
            # The caller may leave while the loser is being ended: then nobody takes the winner either.
            await self._call_off(calls, attempts)
            raise
        return came.result() if isinstance(came, asyncio.Task) else came

    async def _call_off(self, losers: Calls, attempts: list[Attempt]) -> None:
        """End the calls that nobody waits for any more; each with the time at which it began.

        They end even where whoever waits for that is cancelled too.
        """
        for task, (candidate, started) in losers.items():
            if not task.done() and not task.cancelling():
                attempts.append(Attempt(candidate.name, candidate.model, milliseconds_since(started), LOST))
            task.cancel()
        endings = [asyncio.create_task(_ended(task)) for task in losers]
        for ending in endings:
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
        for ending in endings:
            await asyncio.shield(ending)

    def _deadline_s(self, candidate: Candidate) -> float:
        route = candidate.route
        own = route.deadline_s if route is not None else None
        return self.policy.deadline_s if own is None else own


async def _within(name: str, limits: Limits | None, call: Callable[[], Awaitable[T]], limit_s: float) -> T:
    """One call, within the time that is left and what the route grants."""
    if limits is not None and limits.first_token_s is not None:
        limit_s = min(limits.first_token_s, limit_s)
    token = CONNECT_LIMIT_S.set(limits.connect_s) if limits is not None else None
    try:
        async with asyncio.timeout(limit_s) as limit:
            return await call()
    except TimeoutError:
        if not limit.expired():
            raise
        raise UpstreamTimeout(f"{name} began no answer within {limit_s:.3g} s") from None
    finally:
        if token is not None:
            CONNECT_LIMIT_S.reset(token)


async def _first_of(calls: Calls) -> asyncio.Task[Begun] | list[Failure]:
    """Who begins first; where nobody does, or nobody may in the first one's place, how each has failed."""
    failed: dict[asyncio.Task[Begun], Failure] = {}
    waiting, leader = set(calls), next(iter(calls))
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in (task for task in calls if task in done):
            try:
                task.result()
            except GatewayError as error:
                failed[task] = calls[task][0], error
            else:
                return task
        if leader in failed and not calls[leader][0].may_fail_over(failed[leader][1]):
            break
    return [failed[task] for task in calls if task in failed]


async def begun(candidate: Candidate, sent: Sent) -> Begun:
    """Wait for the first event that a caller can see; what came before it is held."""
    try:
        async for event in sent.stream:
            sent.held.append(event)
            if isinstance(event, HAS_BEGUN):
                return Begun(candidate, sent.stream, sent.held, sent.ignored)
    except BaseException:
        await sent.stream.aclose()
        raise
    raise no_finish(candidate.name)


def after(sent: Sent, begin: Begin) -> Begin:
    """The first call has been made already."""
    is_new = True

    async def begin_or_go_on(candidate: Candidate) -> Begun:
        nonlocal is_new
        if not is_new:
            return await begin(candidate)
        is_new = False
        return await begun(candidate, sent)

    return begin_or_go_on


def no_finish(provider: str) -> UpstreamProtocolError:
    """The error of an answer that just ends."""
    return UpstreamProtocolError(
        f"the answer of {provider} ended without a finish", code="upstream_truncated"
    )


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


async def _ended(call: asyncio.Task[Begun]) -> None:
    """Wait for the end of a call that was cancelled, and end what may have begun all the same."""
    await asyncio.wait((call,))
    if not call.cancelled() and call.exception() is None:
        await call.result().stream.aclose()


def _admit(breakers: Breakers, key: tuple[str, ...], attempts: list[Attempt]) -> bool:
    try:
        return breakers.admit(key)
    except ProviderUnavailable as error:
        attempts.append(Attempt(key[0], key[1], 0.0, error.code))
        raise


def _is_stateful(candidate: Candidate) -> bool:
    return candidate.provider.info.stateful


def _add_hint(error: GatewayError, said: str) -> None:
    error.hint = f"{error.hint}; {said}" if error.hint else said


def _tell_also(first: GatewayError, candidate: Candidate, error: GatewayError) -> None:
    """The caller asked for the first: its error says most, the others only what they lack."""
    _add_hint(first, f"{candidate.name} could not answer instead: {error.message}")
    if isinstance(first, ProviderUnavailable) and isinstance(error, ProviderUnavailable):
        # Where all are left alone, the caller may come back as soon as one is not.
        first.retry_after = min(first.retry_after or 0.0, error.retry_after or 0.0)

"""The path of one request: resolve, recall, try the candidates, record the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

from msgspec.structs import replace

from modelway.conversations import Conversations, Ephemeral, Turn, refuse_nameless_results
from modelway.dialects.fitting import Fit
from modelway.errors import GatewayError, InternalError, InvalidRequest, NotFound, UpstreamProtocolError
from modelway.live import Live
from modelway.offering import Offering
from modelway.provider import CountsTokens, Provider, RelayReply, RelayRequest, Relays
from modelway.routing import Candidate, RetryPolicy, Router
from modelway.telemetry import Attempt, milliseconds_since
from modelway.types import Caller, ChatRequest, Completion, Delta, Event, Finish, Model

T = TypeVar("T")

_HAS_BEGUN = (*Delta, Finish)


class Closeable(Protocol):
    """Something that is given back at the end."""

    async def aclose(self) -> None:
        """Give it back."""
        ...


@runtime_checkable
class Preloadable(Protocol):
    """A provider that takes time to start."""

    async def start(self) -> None:
        """Start it; again is harmless."""
        ...


class Gateway:
    """Answers requests: the providers, the conversations and the routes between them."""

    def __init__(
        self,
        router: Router,
        conversations: Conversations,
        policy: RetryPolicy,
        resources: tuple[Closeable, ...] = (),
    ) -> None:
        self.router = router
        self.conversations = conversations
        self.offering = Offering(router.providers)
        self._policy = policy
        self._resources = resources
        self._fits: dict[str, Fit] = {}
        self.live = Live(self.answer, conversations, grace_s=conversations.reconnect_grace_s)

    @property
    def providers(self) -> dict[str, Provider]:
        """Every provider by its name."""
        return self.router.providers

    async def answer(
        self, request: ChatRequest, caller: Caller, attempts: list[Attempt] | None = None
    ) -> Answer:
        """Begin to answer: returns when the first delta is there, raises a GatewayError before that.

        The answer must be closed (`aclosing`): that ends the upstream call and the turn. `attempts` is
        the caller's own list, so that it knows what was tried when nothing answered, too.
        """
        candidates = self.router.resolve(request)
        turn = await self._open_turn(request, caller)
        attempts = [] if attempts is None else attempts
        try:
            return await self._first_to_answer(candidates, turn, attempts)
        except GatewayError as error:
            await turn.fail(error)
            raise
        except BaseException:
            turn.interrupt()
            raise

    async def relay(
        self, provider: Provider, model: str, request: RelayRequest, attempts: list[Attempt]
    ) -> RelayReply:
        """Pass on a request that is no chat; again where the error and the policy permit it.

        Nobody else answers in the provider's place: vectors of another model cannot be compared, and files
        are with one upstream only.
        """
        name = provider.info.name
        if not isinstance(provider, Relays):
            raise self._no_relay(name, request.path)
        return await self._once_it_works(name, model, partial(provider.relay, request), attempts)

    async def count_tokens(self, request: ChatRequest, attempts: list[Attempt]) -> int:
        """How many tokens a request has where it would be answered; NotFound where nobody counts them."""
        candidate = self.router.resolve(request)[0]
        if not isinstance(candidate.provider, CountsTokens):
            raise NotFound(
                f"{candidate.name} does not count tokens",
                hint="an answer tells in `usage` what it took",
                param="model",
            )
        fitted, _ = self._fit(candidate).of(request)
        asked = replace(fitted, provider=candidate.name, model=candidate.model)
        count = partial(candidate.provider.count_tokens, asked)
        return await self._once_it_works(candidate.name, candidate.model, count, attempts)

    async def _once_it_works(
        self, name: str, model: str, call: Callable[[], Awaitable[T]], attempts: list[Attempt]
    ) -> T:
        """What a call gives; again where the error and the policy permit it."""
        tried = 0
        while True:
            started = time.time()
            try:
                result = await call()
            except GatewayError as error:
                attempts.append(Attempt(name, model, milliseconds_since(started), error.code))
                pause = self._policy.pause(error, tried, stateful=False)
                if pause is None:
                    raise
            else:
                attempts.append(Attempt(name, model, milliseconds_since(started)))
                return result
            tried += 1
            await asyncio.sleep(pause)

    async def models(self, *, refresh: bool = False) -> list[Model]:
        """Every model that can be asked for, by the names that callers use."""
        return await self.offering.models(self.router.model_names(), refresh=refresh)

    async def preload(self) -> None:
        """Start what would otherwise start with the first request that needs it."""
        for provider in self.providers.values():
            if isinstance(provider, Preloadable):
                await provider.start()

    async def aclose(self) -> None:
        """Cut off the turns without a reader, close the providers, then the store that keeps the last words."""
        async with AsyncExitStack() as stack:
            # The last one in is closed first; one that fails to close does not keep the others open.
            first = (self.conversations, *self._resources)
            for resource in (*first, *self.providers.values(), self.offering, self.live):
                stack.push_async_callback(resource.aclose)

    def _no_relay(self, name: str, path: str) -> NotFound:
        able = [
            other.info.name
            for other in self.providers.values()
            if isinstance(other, Relays) and other.info.ready
        ]
        hint = (
            f"name another one in `provider`: {', '.join(able)}"
            if able
            else "`modelway providers` lists others"
        )
        return NotFound(f"{name} has no /v1/{path}, it answers chats only", hint=hint, param="provider")

    async def _open_turn(self, request: ChatRequest, caller: Caller) -> Turn | Ephemeral:
        _refuse_contradictions(request)
        if request.conversation_id or request.store:
            return await self.conversations.open_turn(caller.name, request)
        if request.after_turn:
            request = await self.conversations.after(caller.name, request)
        refuse_nameless_results(request.messages)
        return Ephemeral(request)

    async def _first_to_answer(
        self, candidates: list[Candidate], turn: Turn | Ephemeral, attempts: list[Attempt]
    ) -> Answer:
        """Retry and fail over, which both are possible only as long as no delta has come."""
        asked, *others = candidates
        try:
            return await self._with_retries(asked, turn, attempts)
        except GatewayError as error:
            if not others or not asked.may_fail_over(error):
                raise
            first = error
        for candidate in others:
            try:
                return await self._with_retries(candidate, turn, attempts)
            except GatewayError as error:
                # The caller asked for the first: its error says most, the others only what they lack.
                instead = f"{candidate.name} could not answer instead: {error.message}"
                first.hint = f"{first.hint}; {instead}" if first.hint else instead
                if not candidate.may_fail_over(error):
                    break
        raise first

    async def _with_retries(
        self, candidate: Candidate, turn: Turn | Ephemeral, attempts: list[Attempt]
    ) -> Answer:
        """Try one candidate, again where the error and the policy permit it."""
        tried = 0
        while True:
            started = time.time()
            try:
                return await self._attempt(candidate, turn, attempts)
            except GatewayError as error:
                attempts.append(
                    Attempt(candidate.name, candidate.model, milliseconds_since(started), error.code)
                )
                stateful = candidate.provider.info.stateful
                pause = self._policy.pause(error, tried, stateful=stateful)
                if pause is None:
                    raise
            tried += 1
            await asyncio.sleep(pause)

    async def _attempt(self, candidate: Candidate, turn: Turn | Ephemeral, attempts: list[Attempt]) -> Answer:
        """Call the provider and wait for the first event that a caller can see."""
        started = time.time()
        request, ignored = self._fit(candidate).of(turn.request)
        stream = candidate.provider.stream(
            replace(
                request,
                provider=candidate.name,
                model=candidate.model,
                upstream_state=turn.state_for(candidate.name),
            )
        )
        held: list[Event] = []
        try:
            async for event in stream:
                held.append(event)
                if isinstance(event, _HAS_BEGUN):
                    attempts.append(Attempt(candidate.name, candidate.model, milliseconds_since(started)))
                    return Answer(candidate, turn, stream, held, attempts, ignored)
        except BaseException:
            await stream.aclose()
            raise
        raise _no_finish(candidate.name)

    def _fit(self, candidate: Candidate) -> Fit:
        """What a provider can be told; one that is signed in to in several ways differs from time to time."""
        fit = self._fits.get(candidate.name)
        if fit is None:
            info = candidate.provider.info
            fit = Fit(
                info.name,
                dialect=info.dialect,
                params=info.params,
                supports=info.supports,
                lacks=info.lacks,
            )
            if not info.stateful:
                self._fits[candidate.name] = fit
        return fit


class Answer:
    """One answer under way. Iterate it once; `completion` is there when the end has been reached.

    `ignored` names the fields of the request that the provider could not be told.
    """

    def __init__(
        self,
        candidate: Candidate,
        turn: Turn | Ephemeral,
        stream: AsyncGenerator[Event, None],
        held: list[Event],
        attempts: list[Attempt],
        ignored: tuple[str, ...] = (),
    ) -> None:
        self.provider = candidate.name
        # Where nobody named one, the provider has found one by now.
        self.model = candidate.model or candidate.provider.info.default_model
        self.conversation_id = turn.conversation_id
        self.turn_id = turn.id
        self.created_at = turn.opened_at
        self.attempts = tuple(attempts)
        self.ignored = ignored
        self.log = turn.log
        if turn.log is not None:
            turn.answered_by(self.provider, self.model, ignored)
        self._turn = turn
        self._stream = stream
        self._held = held
        self._completion: Completion | None = None

    @property
    def completion(self) -> Completion:
        """The whole answer, after its Finish has been seen."""
        if self._completion is None:
            raise InternalError("the answer has not ended")
        return self._completion

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The events, each recorded before it is given; the Finish only when the turn is durable."""
        try:
            for event in self._held:
                yield await self._take(event)
            while self._completion is None:
                try:
                    event = await anext(self._stream)
                except StopAsyncIteration:
                    raise _no_finish(self.provider) from None
                yield await self._take(event)
        except GatewayError as error:
            await self._turn.fail(error, self.provider, self.model)
            raise
        except BaseException:
            self._turn.interrupt(self.provider, self.model)
            raise

    async def collect(self) -> Completion:
        """Wait for the whole answer."""
        async for _ in self:
            pass
        return self.completion

    async def aclose(self) -> None:
        """End the upstream call; an answer that has not come to its end is kept as interrupted."""
        self._turn.interrupt(self.provider, self.model)
        await self._stream.aclose()

    async def _take(self, event: Event) -> Event:
        self._turn.record(event)
        if isinstance(event, Finish):
            completion = await self._turn.finish(self.provider, self.model)
            self._completion = replace(
                completion, provider=self.provider, conversation_id=self.conversation_id
            )
        return event


def _refuse_contradictions(request: ChatRequest) -> None:
    if request.conversation_id and request.after_turn:
        raise InvalidRequest(
            "`previous_response_id` and a conversation cannot both be continued",
            param="previous_response_id",
            hint="send one of them",
        )
    if request.conversation_id and request.store is False:
        raise InvalidRequest(
            "a conversation keeps its turns, so `store` cannot be false",
            param="store",
            hint="leave out `store`, or continue with `previous_response_id`",
        )


def _no_finish(provider: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        f"the answer of {provider} ended without a finish", code="upstream_truncated"
    )

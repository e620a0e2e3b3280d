"""The path of one request: resolve, recall, try the candidates, record the answer."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

from msgspec.structs import replace

from modelway.accounts import (
    Accounts,
    Permit,
    Size,
    denied,
    discreet,
    may_go,
    may_use,
    name_others,
    resolved,
    size_of,
)
from modelway.answer import Answer
from modelway.attempting import Attempting, Begun, Hurried, Sent, after, begun
from modelway.continuing import Continuing
from modelway.conversations import (
    Conversations,
    Ephemeral,
    Turn,
    refuse_contradictions,
    refuse_nameless_results,
)
from modelway.counting import Counting
from modelway.dialects.fitting import Fit
from modelway.errors import (
    GatewayError,
    NotFound,
)
from modelway.live import Live, cut_off
from modelway.offering import Offering
from modelway.prices import NANOS, Prices
from modelway.provider import Provider, RelayReply, RelayRequest, Relays, Telling
from modelway.routing import Breakers, Candidate, RetryPolicy, Route, Router
from modelway.shadowing import Shadows
from modelway.straight import Straight
from modelway.telemetry import Attempt
from modelway.types import Caller, ChatRequest, Model, Usage

T = TypeVar("T")


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
        breakers: Breakers | None = None,
        prices: Prices | None = None,
    ) -> None:
        self.router = router
        self.accounts = Accounts(conversations.callers, prices or Prices())
        self.conversations = conversations
        self.offering = Offering(router.providers)
        self.breakers = breakers or Breakers()
        self._attempting = Attempting(policy, self.breakers)
        self._shadows = Shadows(self._told)
        self.counting = Counting(router, self.accounts, conversations, self._attempting, self._told)
        self._resources = resources
        self._fits: dict[str, Fit] = {}
        # A check of a protocol costs more than many a step of a request.
        self._telling = {name: one for name, one in router.providers.items() if isinstance(one, Telling)}
        self.live = Live(self.answer, self.resume, conversations, grace_s=conversations.reconnect_grace_s)

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
        candidates = resolved(self.router, request, caller)
        attempts = [] if attempts is None else attempts
        if caller.rules is None:
            return await self._answer(request, caller, candidates, attempts, None)
        permit = await self._let_in(request, caller, candidates)
        try:
            return await self._answer(request, caller, candidates, attempts, permit)
        except BaseException:
            self.accounts.end(permit, Usage())
            raise

    def straight(self, request: ChatRequest, caller: Caller, attempts: list[Attempt]) -> Straight | None:
        """Begin to answer without waiting for anything; None, and nothing has happened, where one must wait.

        Raises what answer() raises. The arguments are those of answer().
        """
        if request.after_turn:
            return None
        candidates = resolved(self.router, request, caller)
        first = candidates[0]
        provider = self._telling.get(first.name)
        if provider is None or not first.is_plain or first.key in self.breakers.troubled:
            return None
        refuse_contradictions(request)
        permit = None
        if caller.rules is not None:
            size = size_of(request)
            if not self.accounts.has_room(caller, size):
                return None
            permit = self.accounts.admit(caller, size, (one.key for one in candidates))
        straight = Straight(self, request, caller, candidates, attempts, permit)
        try:
            if not (request.conversation_id or request.store):
                refuse_nameless_results(request.messages)
                straight.ask(Ephemeral(request), provider)
            elif not self.conversations.open_soon(caller.name, request, partial(straight.opened, provider)):
                straight.take_back()
                return None
        except BaseException:
            straight.take_back()
            raise
        return straight

    def asked(
        self, asked: ChatRequest, candidate: Candidate, turn: Turn | Ephemeral
    ) -> tuple[ChatRequest, tuple[str, ...]]:
        """The request as a candidate is told it, and what is left out of it.

        With what the candidate itself has kept of the conversation.
        """
        request, ignored = self._fit(candidate).of(asked)
        state = turn.take_state(candidate.name)
        told = replace(request, provider=candidate.name, model=candidate.model, upstream_state=state)
        return told, ignored

    async def resume(self, turn: Turn, caller: Caller, attempts: list[Attempt]) -> Answer:
        """Go on with an answer whose server has died; what had come of it is kept where nobody can."""
        permit, left = None, turn.left
        by = (left.head.provider, left.head.model) if left is not None else ("", "")
        try:
            if left is not None:
                self.accounts.charged(caller, left.charged)
            candidates = resolved(self.router, turn.request, caller)
            if caller.rules is not None:
                permit = await self._let_in(turn.request, caller, candidates)
            if left is None:
                return await self.answer_turn(turn, caller, candidates, attempts, permit)
            answer = await self._rest(candidates, turn, attempts, *by)
            answer.bill = turn.bill = self.accounts.bill(
                caller, permit, *answer.answering, turn.request, left.tab
            )
            return answer
        except BaseException as error:
            if permit is not None:
                self.accounts.end(permit, Usage())
            if isinstance(error, GatewayError):
                await turn.fail(error, *by)
            else:
                turn.interrupt(*by)
            raise

    async def _let_in(self, request: ChatRequest, caller: Caller, candidates: list[Candidate]) -> Permit:
        size = size_of(request)
        await self.accounts.make_room(caller, size)
        return self.accounts.admit(caller, size, (one.key for one in candidates))

    async def _answer(
        self,
        request: ChatRequest,
        caller: Caller,
        candidates: list[Candidate],
        attempts: list[Attempt],
        permit: Permit | None,
    ) -> Answer:
        turn = await self.open_turn(request, caller)
        return await self.answer_turn(turn, caller, candidates, attempts, permit)

    async def answer_turn(
        self,
        turn: Turn | Ephemeral,
        caller: Caller,
        candidates: list[Candidate],
        attempts: list[Attempt],
        permit: Permit | None,
        sent: Sent | None = None,
    ) -> Answer:
        """The answer to an open turn; `sent` is the first candidate's call, where it was made already."""
        try:
            self._shadow(caller, candidates[0].route, turn.request)
            answer = await self._first_to_answer(candidates, turn, attempts, sent)
            answer.bill = turn.bill = self.accounts.bill(
                caller, permit, answer.provider, answer.model, turn.request
            )
            return answer
        except GatewayError as error:
            name_others(caller, candidates, error)
            await turn.fail(error)
            raise
        except BaseException:
            turn.interrupt()
            raise

    def choose(self, caller: Caller, provider: str, model: str) -> Candidate:
        """Who takes a request that is no chat; whether that is permitted is asked by admit()."""
        with discreet(self.router, caller, provider, model):
            return self.router.choose(provider, model)

    async def admit(self, caller: Caller, candidate: Candidate, size: Size) -> Permit | None:
        """Let in a request of about this size that is no chat; what it takes is told to charge().

        Where no model is named, as with batches and files, nobody knows which ones are asked: keys that are
        limited to some are refused.
        """
        if caller.rules is None:
            return None
        is_unknown = bool(caller.rules.models) and not candidate.model
        if is_unknown or not may_go(caller.rules, candidate):
            raise denied(caller, *candidate.key)
        await self.accounts.make_room(caller, size)
        return self.accounts.admit(caller, size, [candidate.key])

    def charge(
        self,
        caller: Caller,
        permit: Permit | None,
        provider: Provider,
        model: str,
        usage: Usage,
        *,
        estimated: bool = False,
    ) -> float:
        """End what admit() has let in, and charge for it; what it costs in dollars, 0 where nobody knows."""
        name = provider.info.name
        nanos = self.accounts.charge(caller, permit, name, model, usage, estimated=estimated)
        return (nanos or 0) / NANOS

    async def relay(
        self, provider: Provider, model: str, request: RelayRequest, attempts: list[Attempt]
    ) -> RelayReply:
        """Pass on a request that is no chat; again where the error and the policy permit it.

        Nobody else answers in the provider's place: vectors of another model cannot be compared, and files
        are with one upstream only.
        """
        name = provider.info.name
        if not isinstance(provider, Relays):
            raise NotFound(
                f"{name} has no /v1/{request.path}, it answers chats only",
                hint="name another one in `provider`; GET /v1/providers lists them",
                param="provider",
            )
        key = name, model, request.path
        return await self._attempting.once_it_works(key, partial(provider.relay, request), attempts)

    async def models(self, *, refresh: bool = False) -> list[Model]:
        """Every model that can be asked for, by the names that callers use."""
        return await self.offering.models(self.router.model_names(), refresh=refresh)

    async def preload(self) -> None:
        """Start what would otherwise start with the first request that needs it."""
        for provider in self.providers.values():
            if isinstance(provider, Preloadable):
                await provider.start()

    async def aclose(self) -> None:
        """Cut off the turns that nobody reads, close the providers, then the store with the last words."""
        async with AsyncExitStack() as stack:
            # The last one in is closed first; one that fails to close does not keep the others open.
            first: tuple[Closeable, ...] = (self.conversations, self.accounts, *self._resources)
            for resource in (*first, *self.providers.values(), self.offering, self._shadows, self.live):
                stack.push_async_callback(resource.aclose)

    async def open_turn(self, request: ChatRequest, caller: Caller) -> Turn | Ephemeral:
        """A turn of the conversation that the request names, or of none."""
        refuse_contradictions(request)
        if request.conversation_id or request.store:
            return await self.conversations.open_turn(caller.name, request)
        if request.after_turn:
            request = await self.conversations.after(caller.name, request)
        refuse_nameless_results(request.messages)
        return Ephemeral(request)

    def _shadow(self, caller: Caller, route: Route | None, request: ChatRequest) -> None:
        """Let the route's shadow see the request, if the caller may use it."""
        if route is None or (shadow := route.shadow) is None:
            return
        if caller.rules is None or may_use(caller.rules, shadow.name, shadow.model, route.name):
            self._shadows.send(route, request)

    async def _first_to_answer(
        self,
        candidates: list[Candidate],
        turn: Turn | Ephemeral,
        attempts: list[Attempt],
        sent: Sent | None = None,
    ) -> Answer:
        """Retry and fail over, which both are possible only as long as no delta has come."""
        begin = partial(self._begin, turn, turn.request)
        begun = await self._attempting.first_to_answer(
            candidates,
            begin if sent is None else after(sent, begin),
            attempts,
            sent=sent,
        )
        route = begun.candidate.route
        is_continued = route is not None and route.continues
        if not is_continued and not turn.survives:
            return Answer(begun, turn, attempts, self.breakers)
        go_on = Continuing(self._attempting, partial(self._begin, turn), candidates, turn, attempts)
        return Answer(go_on.ready(begun), turn, attempts, self.breakers, go_on if is_continued else None)

    async def _rest(
        self, candidates: list[Candidate], turn: Turn, attempts: list[Attempt], by: str, model: str
    ) -> Answer:
        """What an answer lacks that these had begun, from whoever can go on with it."""
        go_on = Continuing(self._attempting, partial(self._begin, turn), candidates, turn, attempts)
        begun = await go_on.resumed(by, cut_off())
        route = begun.candidate.route
        is_continued = route is not None and route.continues
        answer = Answer(begun, turn, attempts, self.breakers, go_on if is_continued else None)
        answer.follows(by, model)
        return answer

    async def _begin(self, turn: Turn | Ephemeral, asked: ChatRequest, candidate: Candidate) -> Begun:
        """Call the provider and wait for the first event that a caller can see."""
        request, ignored = self.asked(asked, candidate, turn)
        stream = candidate.provider.stream(request)
        if candidate.limits is not None:
            stream = Hurried(candidate.name, stream, candidate.limits)
        return await begun(candidate, Sent(stream, ignored, []))

    def _told(self, candidate: Candidate, request: ChatRequest) -> ChatRequest:
        """The request as a provider is told it."""
        fitted, _ = self._fit(candidate).of(request)
        return replace(fitted, provider=candidate.name, model=candidate.model)

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

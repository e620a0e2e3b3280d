"""Seeded simulations of the gateway's core: failing upstreams, impatient callers, hours in milliseconds.

Router, retries, breakers, hedging, continuation and the conversation store are the real ones; the clock and
the upstreams are not. A seed decides everything, so one that fails can be looked at again: it fails again.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from msgspec import Struct

from modelway.bench.virtual_loop import VirtualLoop
from modelway.config import CandidateLimits, ConversationSettings, RouteSettings, Settings
from modelway.conversations import Conversations
from modelway.errors import (
    GatewayError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelway.gateway import Gateway
from modelway.provider import ProviderInfo
from modelway.routing import Breakers, RetryPolicy, Router
from modelway.routing.breakers import MAX_COOL_DOWN_S
from modelway.telemetry import Attempt
from modelway.types import Caller, ChatRequest, Continued, Event, Finish, Message, Model, TextDelta

WORDS = 6
PROVIDERS = ("One", "Two", "Three")
RETRIES = 2
DEADLINE_S = 60.0
STALL_S = 90.0
_EMPTY = "empty.sqlite3"
_FAULTS = ("unreachable", "failed", "overloaded", "limited", "silence", "reset", "end")


class Broken(AssertionError):
    """A promise was not kept."""


class Failed(Exception):
    """The seed whose world failed, why, and what had happened until then."""

    def __init__(self, seed: int, error: BaseException, trace: list[str]) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        super().__init__(f"seed {seed}: {error or type(error).__name__}")
        self.seed = seed
        self.trace = trace


class Asked(Struct):
    """One request of a caller, and what became of it."""

    question: str
    conversation: str
    route: str
    patience_s: float | None
    text: str = ""
    done: bool = False
    code: str = ""
    asked_at: float | None = None
    began_at: float | None = None
    sent_at: float = 0.0
    attempts: list[Attempt] = []

    @property
    def continues(self) -> bool:
        """Whether somebody else may go on with the answer."""
        return self.route.startswith("on")


class World:
    """Everything that one seed decides, and what has happened so far."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.every = self.random.choice((2, 3, 5, 8, 13))
        self.step = self.random.randrange(self.every)
        self.questions: dict[str, Asked] = {}
        self.trace: list[str] = []
        self.breakers: Breakers | None = None
        self.active: dict[str, int] = {}
        self.probes: dict[tuple[str, str], int] = {}
        self.open_streams = 0

    def note(self, *words: object) -> None:
        """Write down what happens now."""
        now = asyncio.get_running_loop().time()
        self.trace.append(f"{now:.3f} {' '.join(map(str, words))}")

    def fault(self) -> str:
        """What goes wrong at this step: at every N-th, something does."""
        self.step += 1
        return self.random.choice(_FAULTS) if self.step % self.every == 0 else ""

    def check(self, kept: bool, promise: str) -> None:
        """Stop the simulation where a promise is not kept."""
        if not kept:
            raise Broken(promise)


class Upstream:
    """A provider that answers word by word: question, number and name, so that nothing can be mistaken.

    Given a beginning it goes on behind it. Where the world says so, it fails.
    """

    def __init__(self, name: str, world: World) -> None:
        self.info = ProviderInfo(name=name, default_model="m", supports=("system", "prefix"), params=())
        self._world = world

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer, or fail."""
        world, name = self._world, self.info.name
        users = [message.text for message in request.messages if message.role == "user"]
        asked = world.questions[users[-1]]
        begun = len(request.messages[-1].text.split()) if request.messages[-1].role == "assistant" else 0
        self._check_the_call(asked, begun, users)
        is_probe = self._enter(asked)
        try:
            world.note(name, "asked", asked.question, begun)
            for number in range(begun, WORDS):
                await asyncio.sleep(world.random.choice((0.0, 0.01, 0.2, 0.5, 2.0)))
                if fault := world.fault():
                    world.note(name, "fails", asked.question, fault)
                    if fault == "end":
                        return
                    await self._fail(fault, has_begun=number > begun)
                yield TextDelta(text=f"{asked.question}.{number}.{name} ")
                # A probe has shown what it was made for with the first word.
                is_probe = self._end_probe(is_probe=is_probe)
            yield Finish()
        finally:
            self._end_probe(is_probe=is_probe)
            world.open_streams -= 1
            world.active[asked.question] -= 1

    async def models(self) -> list[Model]:
        """Its model."""
        return [Model("m")]

    async def aclose(self) -> None:
        """Nothing is held."""

    async def _fail(self, fault: str, *, has_begun: bool) -> None:
        if fault == "silence":
            await asyncio.sleep(STALL_S)
            raise UpstreamTimeout("silent", code="upstream_stalled" if has_begun else "")
        if has_begun or fault == "reset":
            raise UpstreamProtocolError("reset", code="upstream_reset")
        pause = self._world.random.choice((0.0, 0.2, 3.0, 500.0))
        errors: dict[str, GatewayError] = {
            "unreachable": UpstreamUnreachable("nobody is there", sent=False),
            "failed": UpstreamFailed("500"),
            "overloaded": UpstreamOverloaded("503", retry_after=pause),
            "limited": UpstreamRateLimited("429", retry_after=pause),
        }
        raise errors[fault]

    def _check_the_call(self, asked: Asked, begun: int, users: Sequence[str]) -> None:
        world = self._world
        now = asyncio.get_running_loop().time()
        asked.asked_at = now if asked.asked_at is None else asked.asked_at
        is_late = asked.began_at is None and now - asked.asked_at > DEADLINE_S
        world.check(not is_late, "nobody is asked after the deadline")
        world.check(asked.began_at is None or asked.continues, "nobody is asked after the first word")
        world.check(not begun or asked.continues, "only a route that says so goes on with an answer")
        world.check(begun == len(asked.text.split()) or not begun, "nothing said is lost or said again")
        known = [
            one.question
            for one in world.questions.values()
            if one.done and one.conversation == asked.conversation
        ]
        world.check(set(known) <= set(users), "an acknowledged turn is known to the next one")

    def _enter(self, asked: Asked) -> bool:
        world = self._world
        world.open_streams += 1
        others = {one for one, count in world.active.items() if count and one != asked.question}
        same = [one for one in others if world.questions[one].conversation == asked.conversation]
        world.check(not same, "one turn of a conversation is answered at a time")
        world.active[asked.question] = world.active.get(asked.question, 0) + 1
        world.check(world.active[asked.question] <= 2, "an answer is hedged by one other at most")
        key = (self.info.name, "m")
        state = world.breakers.state(key) if world.breakers is not None else None
        if state is None or state.state == "closed":
            return False
        world.probes[key] = world.probes.get(key, 0) + 1
        world.check(state.state == "half_open", "whom the breaker leaves alone is not asked")
        world.check(world.probes[key] == 1, "there is one probe at most")
        return True

    def _end_probe(self, *, is_probe: bool) -> bool:
        if is_probe:
            self._world.probes[self.info.name, "m"] -= 1
        return False


def settings() -> Settings:
    """Routes of every kind, over the three upstreams."""
    plain = RouteSettings(candidates=PROVIDERS, deadline_s=DEADLINE_S)
    hurried = CandidateLimits(first_token_timeout_s=1.0, idle_timeout_s=1.5)
    return Settings(
        provider="One",
        routes={
            "plain": plain,
            "drawn": RouteSettings(candidates=PROVIDERS, weights=(3, 2, 1), deadline_s=DEADLINE_S),
            "hedged": RouteSettings(candidates=PROVIDERS, hedge_after_s=0.3, deadline_s=DEADLINE_S),
            "hurried": RouteSettings(
                candidates=PROVIDERS, deadline_s=DEADLINE_S, limits=dict.fromkeys(PROVIDERS, hurried)
            ),
            "on": RouteSettings(candidates=PROVIDERS, on_break="continue", deadline_s=DEADLINE_S),
            "on-hedged": RouteSettings(
                candidates=PROVIDERS, on_break="continue", hedge_after_s=0.3, deadline_s=DEADLINE_S
            ),
        },
    )


def simulate(seed: int, folder: Path, *, breakers: type[Breakers] = Breakers) -> list[str]:
    """Let one world run to its end and check every promise; what happened. Raises Failed."""
    world = World(seed)
    path = folder / f"{seed}.sqlite3"
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        if not (folder / _EMPTY).exists():
            runner.run(_make_store(folder / _EMPTY))
        shutil.copy(folder / _EMPTY, path)
        try:
            runner.run(_run(world, path, breakers))
        except Exception as error:
            raise Failed(seed, error, world.trace) from error
    for file in folder.glob(f"{path.name}*"):
        file.unlink()
    return world.trace


async def _make_store(path: Path) -> None:
    """A database without any conversation, to be copied for each seed."""
    await Conversations.open(path, ConversationSettings()).aclose()


async def _run(world: World, path: Path, breakers: type[Breakers]) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)  # noqa: S101 - tells the type checker
    chosen = settings()
    world.breakers = breakers(3, 10.0, clock=loop.time)
    # By the simulated clock no disk is slow: whether a thread writes must not depend on the machine's load.
    store = Conversations.open(path, ConversationSettings(wait_s=600), clock=loop.time)
    loop.is_awaited = lambda: store.is_writing
    gateway = Gateway(
        Router([Upstream(name, world) for name in PROVIDERS], chosen, rng=world.random),
        store,
        RetryPolicy(RETRIES, 5.0, DEADLINE_S, random=world.random),
        breakers=world.breakers,
    )
    async with aclosing(gateway):
        for number in range(world.random.randint(4, 14)):
            asked = _question(world, number, list(chosen.routes))
            world.questions[asked.question] = asked
        async with asyncio.TaskGroup() as group:
            for asked in world.questions.values():
                group.create_task(_ask(world, gateway, asked))
        world.check(world.open_streams == 0, "every upstream call has ended")
        await asyncio.sleep(MAX_COOL_DOWN_S)
        waits = [state.retry_after_s for name in PROVIDERS for state in world.breakers.states(name)]
        world.check(not any(waits), "nobody is left alone for ever")
        for conversation in {asked.conversation for asked in world.questions.values()}:
            await _check_the_store(world, gateway, conversation)


def _question(world: World, number: int, routes: list[str]) -> Asked:
    impatient = world.random.random() < 0.25
    return Asked(
        question=f"q{number}",
        conversation=f"c{world.random.randrange(3)}",
        route=world.random.choice(routes),
        patience_s=world.random.choice((0.005, 0.4, 2.2, 30.0)) if impatient else None,
        sent_at=world.random.choice((0.0, 0.0, 1.0, 15.0, 40.0)),
    )


async def _ask(world: World, gateway: Gateway, asked: Asked) -> None:
    await asyncio.sleep(asked.sent_at)
    try:
        async with asyncio.timeout(asked.patience_s):
            await _listen(world, gateway, asked)
    except TimeoutError:
        asked.code = "left"
    except GatewayError as error:
        asked.code = error.code
    world.note("caller", asked.question, asked.code or "done", len(asked.text.split()))
    if asked.asked_at is not None and not asked.text:
        took = asyncio.get_running_loop().time() - asked.asked_at
        world.check(took <= DEADLINE_S + 1e-6, "all attempts end with the deadline")
    calls = len([attempt for attempt in asked.attempts if attempt.code != "provider_unavailable"])
    most = len(PROVIDERS) * (RETRIES + 1) * (2 if asked.continues else 1)
    world.check(calls <= most, "attempts are bounded")
    _check_the_text(world, asked.text, asked, is_whole=asked.done)


async def _listen(world: World, gateway: Gateway, asked: Asked) -> None:
    loop = asyncio.get_running_loop()
    request = ChatRequest(
        messages=(Message(role="user", content=asked.question),),
        model=asked.route,
        conversation_id=asked.conversation,
        stream=True,
    )
    async with aclosing(await gateway.answer(request, Caller("local"), asked.attempts)) as answer:
        async for event in answer:
            if isinstance(event, TextDelta):
                asked.began_at = loop.time() if asked.began_at is None else asked.began_at
                asked.text += event.text
            elif isinstance(event, Continued):
                world.check(asked.continues, "only a route that says so goes on with an answer")
                world.note("continued", asked.question, event.after, event.provider)
            elif isinstance(event, Finish):
                asked.done = True


def _check_the_text(world: World, text: str, asked: Asked, *, is_whole: bool) -> None:
    words = [word.split(".") for word in text.split()]
    world.check([word[0] for word in words] == [asked.question] * len(words), "two answers are never mixed")
    numbers = [int(word[1]) for word in words]
    world.check(numbers == list(range(len(words))), "nothing said is lost or said again")
    world.check(len({word[2] for word in words}) <= 1 or asked.continues, "one upstream gives an answer")
    world.check(not is_whole or len(words) == WORDS, "an answer is whole when it says so")


async def _check_the_store(world: World, gateway: Gateway, conversation: str) -> None:
    """What was acknowledged is there, whole and once; what was not is a beginning, or nothing."""
    asked = [one for one in world.questions.values() if one.conversation == conversation]
    try:
        shown = await gateway.conversations.show("local", conversation)
    except GatewayError:
        world.check(not any(one.done for one in asked), "an acknowledged turn is in the store")
        return
    texts = [message.text for message in shown.messages]
    for one in asked:
        if one.done:
            world.check(texts.count(one.question) == 1, "an acknowledged turn is in the store, once")
            at = texts.index(one.question)
            world.check(texts[at + 1] == one.text, "what was seen is what is kept")
        elif one.question in texts and texts.index(one.question) + 1 < len(texts):
            following = texts[texts.index(one.question) + 1]
            if following not in world.questions:
                _check_the_text(world, following, one, is_whole=False)
    world.check(all(turn.status != "open" for turn in shown.turns), "no turn stays open")

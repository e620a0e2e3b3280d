"""What every provider promises, as tests that a plug-in's own tests inherit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from modelway.errors import GatewayError
from modelway.provider import Provider
from modelway.testing.stage import OpenStage, Stage
from modelway.types import ChatRequest, Delta, Event, Finish, Message, Params, collect

DIALECTS = pytest.mark.parametrize("dialect", ["openai_chat", "another"])
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def ask(*texts: str, stream: bool = True, dialect: str = "openai_chat") -> ChatRequest:
    """A request whose messages alternate between user and assistant."""
    messages = tuple(
        Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts)
    )
    return ChatRequest(messages=messages, model="model-a", stream=stream, dialect=dialect)


async def events_of(provider: Provider, request: ChatRequest) -> list[Event]:
    """The whole answer."""
    async with aclosing(provider.stream(request)) as events:
        return [event async for event in events]


class ProviderContract:
    """What holds for a provider whatever it answers. Subclass it, with a fixture `provider`."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        """The event loop of the gateway."""
        return "asyncio"

    @pytest.fixture
    def provider(self) -> Provider:
        """The provider under test."""
        raise NotImplementedError("a fixture `provider` must give the provider")

    @STREAMED
    async def test_an_answer_ends_with_its_one_finish(self, provider: Provider, stream: bool) -> None:
        """Exactly one Finish, and nothing after it."""
        kinds = [type(event) for event in await events_of(provider, ask("Hi", stream=stream))]
        assert kinds.index(Finish) == len(kinds) - 1

    async def test_an_answer_may_be_left_at_any_time(self, provider: Provider) -> None:
        """Closing the generator raises nothing, before its beginning and after it."""
        await provider.stream(ask("Hi")).aclose()
        answer = provider.stream(ask("Hi"))
        await anext(answer)
        await answer.aclose()

    async def test_it_says_what_it_is(self, provider: Provider) -> None:
        """A name that can stand before a slash, parameters that there are, and models."""
        described = provider.info
        assert described.name
        assert not set("/: ") & set(described.name)
        assert set(described.params) <= set(Params.__struct_fields__)
        assert described.ready != bool(described.missing)
        assert described.default_model or described.finds_model or await provider.models()

    async def test_closing_may_be_repeated(self, provider: Provider) -> None:
        """A second time does nothing."""
        await provider.aclose()
        await provider.aclose()


class UpstreamContract(ProviderContract):
    """What holds for a provider with an upstream. Subclass it, with a fixture `open_stage`.

    A stage puts the provider before an upstream that can be told what to say: see Stage and, for one that
    speaks OpenAI's chat completions, FakeStage. Nothing is waited for longer than `wait_s`.
    """

    wait_s = 5.0

    @pytest.fixture
    def open_stage(self) -> OpenStage:
        """Opens a stage each time that it is called."""
        raise NotImplementedError("a fixture `open_stage` must give what opens a stage")

    @pytest.fixture
    async def stage(self, open_stage: OpenStage) -> AsyncIterator[Stage]:
        """A stage that is closed after the test."""
        async with open_stage() as made:
            yield made

    @pytest.fixture
    def provider(self, stage: Stage) -> Provider:
        """The provider on the stage, whose upstream says "Hello"."""
        stage.say("Hello")
        return stage.provider

    @STREAMED
    @DIALECTS
    async def test_the_text_arrives_and_one_finish_comes_last(
        self, stage: Stage, stream: bool, dialect: str
    ) -> None:
        """All text in its order, then exactly one Finish."""
        stage.say("Hello", ", ", "wörld", " 👋")
        events = await events_of(stage.provider, ask("Hi", stream=stream, dialect=dialect))
        assert [type(event) for event in events].count(Finish) == 1
        assert isinstance(events[-1], Finish)
        assert events[-1].reason == "stop"
        assert collect(events).text == "Hello, wörld 👋"

    async def test_a_whole_answer_equals_a_streamed_one(self, stage: Stage) -> None:
        """Without a stream the answer is the same."""
        collected = []
        for stream in (True, False):
            stage.say("Hello", ", world")
            events = await events_of(stage.provider, ask("Hi", stream=stream, dialect="another"))
            # Tokens are left out: some upstreams count them in one form only.
            collected.append(collect(events).choices)
        assert collected[0] == collected[1]

    async def test_the_history_is_passed_on_in_its_order(self, stage: Stage) -> None:
        """The upstream hears all messages."""
        stage.say("Good")
        await events_of(stage.provider, ask("one", "two", "three"))
        assert stage.heard() == [[("user", "one"), ("assistant", "two"), ("user", "three")]]

    @STREAMED
    async def test_a_failure_is_an_error_of_ours_before_the_first_event(
        self, stage: Stage, stream: bool
    ) -> None:
        """A failing upstream raises a GatewayError, in time for the next candidate."""
        stage.fail()
        async with aclosing(stage.provider.stream(ask("Hi", stream=stream))) as events:
            with pytest.raises(GatewayError):
                await anext(events)

    async def test_text_is_given_while_the_upstream_still_writes(self, stage: Stage) -> None:
        """Pieces are not held back."""
        gate = asyncio.Event()
        stage.say("first", gate, "second")
        async with aclosing(stage.provider.stream(ask("Hi"))) as events:
            async for event in events:
                if isinstance(event, Delta) and getattr(event, "text", "") == "first":
                    break
            assert not gate.is_set()
            gate.set()
            assert isinstance([event async for event in events][-1], Finish)

    @STREAMED
    async def test_closing_the_generator_ends_the_upstreams_work(self, stage: Stage, stream: bool) -> None:
        """Nobody pays for an answer that nobody reads."""
        stage.say("first", asyncio.Event())
        async with aclosing(stage.provider.stream(ask("Hi", stream=stream))) as answer:
            first = asyncio.ensure_future(anext(answer))
            await self._heard(stage, 1, first)
            if stream:
                await first
            else:
                first.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await first
        async with asyncio.timeout(self.wait_s):
            await stage.hung_up()

    async def test_two_answers_at_once_do_not_mix(self, stage: Stage) -> None:
        """One provider answers many at once."""
        gates = [asyncio.Event(), asyncio.Event()]
        stage.say("a1", gates[0], "a2")
        stage.say("b1", gates[1], "b2")
        first = asyncio.create_task(events_of(stage.provider, ask("A")))
        await self._heard(stage, 1, first)
        second = asyncio.create_task(events_of(stage.provider, ask("B")))
        await self._heard(stage, 2, first, second)
        gates[1].set()
        assert collect(await second).text == "b1b2"
        gates[0].set()
        assert collect(await first).text == "a1a2"

    async def test_nothing_of_a_conversation_stays_behind(self, stage: Stage) -> None:
        """The next caller is told nothing of the last."""
        stage.say("one")
        await events_of(stage.provider, ask("secret"))
        stage.say("two")
        await events_of(stage.provider, ask("fresh"))
        assert stage.heard()[1] == [("user", "fresh")]

    async def test_it_describes_itself(self, stage: Stage) -> None:
        """What people and programs read about it is there."""
        described = stage.provider.info
        assert described.name
        assert not set("/: ") & set(described.name)
        assert described.label
        assert described.url.startswith(("https://", "http://"))
        assert described.default_model or described.finds_model
        assert set(described.params) <= set(Params.__struct_fields__)
        assert described.ready
        assert not described.missing
        assert await stage.provider.models()

    async def test_closing_may_be_repeated_and_leaves_nothing_open(self, open_stage: OpenStage) -> None:
        """No connection outlives the provider."""
        async with open_stage() as stage:
            stage.say("Hello")
            await events_of(stage.provider, ask("Hi"))
            await stage.provider.aclose()
            await stage.provider.aclose()
        async with asyncio.timeout(self.wait_s):
            await stage.nothing_is_open()

    async def _heard(self, stage: Stage, times: int, *asked: asyncio.Future[Any]) -> None:
        """Wait until the upstream has been asked so many times."""
        try:
            async with asyncio.timeout(self.wait_s):
                while len(stage.heard()) < times:
                    await asyncio.sleep(0)
        except TimeoutError:
            for one in asked:
                one.cancel()
            await asyncio.wait(asked)
            pytest.fail(f"the provider has not called its upstream within {self.wait_s:g} s")

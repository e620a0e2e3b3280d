"""The contract of every provider. A new one joins by an entry in STAGES.

A stage puts a provider before an upstream that can be told what to say: see `Stage`.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from msgspec.structs import replace

from modelway.config import LocalSettings, ProviderSettings, UpstreamSettings
from modelway.errors import GatewayError
from modelway.provider import Provider, ProviderInfo
from modelway.providers.anthropic import Anthropic
from modelway.providers.copilot import Copilot
from modelway.providers.gemini import Gemini
from modelway.providers.http import HTTPClient
from modelway.providers.local import Local
from modelway.providers.lockchat import Lockchat
from modelway.providers.ollama import Ollama
from modelway.providers.openai_compatible import OpenAICompatible, build_provider, load_presets
from modelway.types import ChatRequest, Delta, Event, Finish, Message, Params, collect
from tests import fake_anthropic
from tests.conftest_local import find_model
from tests.fake_anthropic import FakeAnthropic
from tests.fake_gemini import KEY, FakeGemini
from tests.fake_m365 import FakeM365
from tests.fake_ollama import FakeOllama
from tests.fake_upstream import FakeUpstream

pytestmark = pytest.mark.anyio


class Stage(Protocol):
    """A provider and the upstream behind it."""

    @property
    def provider(self) -> Provider:
        """The provider under test."""
        ...

    def say(self, *pieces: str | asyncio.Event) -> None:
        """Let the next answer be these pieces; an asyncio.Event among them is waited for."""
        ...

    def fail(self) -> None:
        """Let the next answer be a failure."""
        ...

    def heard(self) -> list[list[tuple[str, str]]]:
        """Role and text of the messages of each request so far."""
        ...

    async def hung_up(self) -> None:
        """Wait until the provider gave up a call under way."""
        ...

    async def nothing_is_open(self) -> None:
        """Wait until the upstream has no connection left."""
        ...


class OpenAICompatibleStage:
    """One preset before the fake upstream."""

    def __init__(self, upstream: FakeUpstream, provider: Provider) -> None:
        self.provider = provider
        self._upstream = upstream

    def say(self, *pieces: str | asyncio.Event) -> None:
        self._upstream.reply(*pieces)

    def fail(self) -> None:
        self._upstream.fail(500, "out of order")

    def heard(self) -> list[list[tuple[str, str]]]:
        return [
            [(message["role"], message["content"]) for message in request.json["messages"]]
            for request in self._upstream.requests
            if request.body
        ]

    async def hung_up(self) -> None:
        await self._upstream.hung_up.wait()

    async def nothing_is_open(self) -> None:
        while self._upstream.connections:
            await asyncio.sleep(0)


def preset_stage(name: str) -> Callable[[], AbstractAsyncContextManager[Stage]]:
    """A stage for a preset."""

    @asynccontextmanager
    async def stage() -> AsyncIterator[Stage]:
        async with FakeUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
            settings = ProviderSettings(base_url=upstream.url, default_model="model-a")
            preset = load_presets()[name]
            provider = build_provider(name, preset, settings, http, lambda env, file: "key")
            yield OpenAICompatibleStage(upstream, provider)

    return stage


@asynccontextmanager
async def local_stage() -> AsyncIterator[Stage]:
    """The embedded model: its real child runs, and the fake upstream answers in its place."""
    settings = LocalSettings(model="model-a", context_length=256, parallel=1)
    async with FakeUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:

        def answering(_base_url: str, key: str) -> Provider:
            return OpenAICompatible(ProviderInfo(name="Local"), upstream.url, http=http, key=lambda: key)

        async with aclosing(Local(settings, find_model, answering)) as local:
            await local.start()
            yield OpenAICompatibleStage(upstream, local)


@asynccontextmanager
async def lockchat_stage() -> AsyncIterator[Stage]:
    """Lockchat, at an address that the user has set."""
    async with FakeUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        settings = ProviderSettings(base_url=upstream.url.removesuffix("/v1"))
        yield OpenAICompatibleStage(upstream, Lockchat(settings, http=http, key=lambda: "key"))


class GeminiStage(OpenAICompatibleStage):
    """Gemini calls the assistant a model, and messages contents."""

    def heard(self) -> list[list[tuple[str, str]]]:
        assert isinstance(self._upstream, FakeGemini)
        roles = {"user": "user", "model": "assistant"}
        return [
            [(roles[content["role"]], content["parts"][0]["text"]) for content in asked["contents"]]
            for asked in self._upstream.asked
        ]


@asynccontextmanager
async def gemini_stage() -> AsyncIterator[Stage]:
    """Gemini, with a key."""
    async with FakeGemini() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        settings = ProviderSettings(base_url=upstream.base)
        yield GeminiStage(upstream, Gemini(settings, http=http, key_lookup=lambda env, file: KEY))


@asynccontextmanager
async def ollama_stage() -> AsyncIterator[Stage]:
    """Ollama, with a default model of the user's."""
    async with FakeOllama() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        settings = ProviderSettings(base_url=upstream.root, default_model="model-a")
        yield OpenAICompatibleStage(upstream, Ollama(settings, http=http, key_lookup=lambda env, file: ""))


@asynccontextmanager
async def anthropic_stage() -> AsyncIterator[Stage]:
    """Anthropic, with a key."""
    async with FakeAnthropic() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        settings = ProviderSettings(base_url=upstream.root)
        provider = Anthropic(settings, http=http, key_lookup=lambda env, file: fake_anthropic.KEY)
        yield OpenAICompatibleStage(upstream, provider)


class CopilotOfAnyModel(Copilot):
    """Copilot has one model, and the contract asks for another."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        return super().stream(replace(request, model=self.info.default_model))


class CopilotStage(OpenAICompatibleStage):
    """Copilot keeps the history itself: what it was told of it stands beside the message."""

    def heard(self) -> list[list[tuple[str, str]]]:
        assert isinstance(self._upstream, FakeM365)
        return [
            [_speaker_and_text(item["text"]) for item in turn.body.get("additionalContext", [])]
            + [("user", turn.body["message"]["text"])]
            for turn in self._upstream.turns
        ]


def _speaker_and_text(line: str) -> tuple[str, str]:
    speaker, _, text = line.partition(": ")
    return speaker.lower(), text


@asynccontextmanager
async def copilot_stage() -> AsyncIterator[Stage]:
    """Copilot, with somebody signed in."""
    with tempfile.TemporaryDirectory() as folder:
        async with FakeM365() as upstream:
            sign_ins = upstream.signed_in(Path(folder))
            http = HTTPClient(UpstreamSettings())
            async with aclosing(
                CopilotOfAnyModel(upstream.settings(), http=http, sign_ins=sign_ins)
            ) as copilot:
                yield CopilotStage(upstream, copilot)


# One of each kind: as in the book; another header for the key; without stream_options; without a key.
STAGES = {name: preset_stage(name) for name in ("OpenAI", "Azure", "Mistral", "LMStudio")}
STAGES["Local"] = local_stage
STAGES["Lockchat"] = lockchat_stage
STAGES["Copilot"] = copilot_stage
STAGES["Anthropic"] = anthropic_stage
STAGES["Ollama"] = ollama_stage
STAGES["Gemini"] = gemini_stage


@pytest.fixture(params=STAGES)
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with STAGES[request.param]() as made:
        yield made


DIALECTS = pytest.mark.parametrize("dialect", ["openai_chat", "another"])
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def ask(*texts: str, stream: bool = True, dialect: str = "openai_chat") -> ChatRequest:
    """A request whose messages alternate between user and assistant."""
    messages = tuple(
        Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts)
    )
    return ChatRequest(messages=messages, model="model-a", stream=stream, dialect=dialect)


async def events_of(provider: Provider, request: ChatRequest) -> list[Event]:
    async with aclosing(provider.stream(request)) as events:
        return [event async for event in events]


@STREAMED
@DIALECTS
async def test_the_text_arrives_and_one_finish_comes_last(stage: Stage, stream: bool, dialect: str) -> None:
    stage.say("Hello", ", ", "wörld", " 👋")
    events = await events_of(stage.provider, ask("Hi", stream=stream, dialect=dialect))
    assert [type(event) for event in events].count(Finish) == 1
    assert isinstance(events[-1], Finish)
    assert events[-1].reason == "stop"
    assert collect(events).text == "Hello, wörld 👋"


async def test_a_whole_answer_equals_a_streamed_one(stage: Stage) -> None:
    collected = []
    for stream in (True, False):
        stage.say("Hello", ", world")
        events = await events_of(stage.provider, ask("Hi", stream=stream, dialect="another"))
        # Tokens are left out: some upstreams count them in one form only.
        collected.append(collect(events).choices)
    assert collected[0] == collected[1]


async def test_the_history_is_passed_on_in_its_order(stage: Stage) -> None:
    stage.say("Good")
    await events_of(stage.provider, ask("one", "two", "three"))
    assert stage.heard() == [[("user", "one"), ("assistant", "two"), ("user", "three")]]


@STREAMED
async def test_a_failure_is_an_error_of_ours_before_the_first_event(stage: Stage, stream: bool) -> None:
    stage.fail()
    async with aclosing(stage.provider.stream(ask("Hi", stream=stream))) as events:
        with pytest.raises(GatewayError):
            await anext(events)


async def test_text_is_given_while_the_upstream_still_writes(stage: Stage) -> None:
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
async def test_closing_the_generator_ends_the_upstreams_work(stage: Stage, stream: bool) -> None:
    stage.say("first", asyncio.Event())
    answer = stage.provider.stream(ask("Hi", stream=stream))
    first = asyncio.ensure_future(anext(answer))
    while not stage.heard():
        await asyncio.sleep(0)
    if stream:
        await first
    else:
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    await answer.aclose()
    async with asyncio.timeout(1):
        await stage.hung_up()


async def test_two_answers_at_once_do_not_mix(stage: Stage) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    stage.say("a1", gates[0], "a2")
    stage.say("b1", gates[1], "b2")
    first = asyncio.create_task(events_of(stage.provider, ask("A")))
    while len(stage.heard()) < 1:
        await asyncio.sleep(0)
    second = asyncio.create_task(events_of(stage.provider, ask("B")))
    while len(stage.heard()) < 2:
        await asyncio.sleep(0)
    gates[1].set()
    assert collect(await second).text == "b1b2"
    gates[0].set()
    assert collect(await first).text == "a1a2"


async def test_nothing_of_a_conversation_stays_behind(stage: Stage) -> None:
    stage.say("one")
    await events_of(stage.provider, ask("secret"))
    stage.say("two")
    await events_of(stage.provider, ask("fresh"))
    assert stage.heard()[1] == [("user", "fresh")]


async def test_it_describes_itself(stage: Stage) -> None:
    described = stage.provider.info
    assert described.name
    assert not set("/: ") & set(described.name)
    assert described.label
    assert described.url.startswith(("https://", "http://"))
    assert described.default_model
    assert set(described.params) <= set(Params.__struct_fields__)
    assert described.ready
    assert not described.missing
    assert await stage.provider.models()


@pytest.mark.parametrize("name", STAGES)
async def test_closing_may_be_repeated_and_leaves_nothing_open(name: str) -> None:
    async with STAGES[name]() as stage:
        stage.say("Hello")
        await events_of(stage.provider, ask("Hi"))
        await stage.provider.aclose()
        await stage.provider.aclose()
    async with asyncio.timeout(1):
        await stage.nothing_is_open()

"""The contract of every provider. A new one joins by an entry in STAGES.

A stage puts a provider before an upstream that can be told what to say: see modelway.testing.Stage.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from modelway.config import LocalSettings, ProviderSettings, UpstreamSettings, VertexSettings
from modelway.provider import Provider, ProviderInfo
from modelway.providers.anthropic import Anthropic
from modelway.providers.bedrock import Bedrock
from modelway.providers.copilot import Copilot
from modelway.providers.copilot.microsoft import MicrosoftDoor
from modelway.providers.copilot.profiles import PROFILES
from modelway.providers.gemini import Gemini
from modelway.providers.http import HTTPClient
from modelway.providers.local import Local
from modelway.providers.lockchat import Lockchat
from modelway.providers.ollama import Ollama
from modelway.providers.openai_compatible import OpenAICompatible, build_provider, load_presets
from modelway.providers.vertex import Vertex
from modelway.testing import FakeStage, FakeUpstream, OpenStage, Stage, UpstreamContract
from modelway.types import ChatRequest, Event
from tests import fake_anthropic, fake_bedrock
from tests.canary import key
from tests.conftest_local import find_model
from tests.fake_anthropic import FakeAnthropic
from tests.fake_bedrock import FakeBedrock
from tests.fake_gemini import KEY, FakeGemini, FakeVertex, service_account
from tests.fake_m365 import FakeM365
from tests.fake_ollama import FakeOllama


def preset_stage(name: str) -> Callable[[], AbstractAsyncContextManager[Stage]]:
    """A stage for a preset."""

    @asynccontextmanager
    async def stage() -> AsyncIterator[Stage]:
        async with FakeUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
            settings = ProviderSettings(base_url=upstream.url, default_model="model-a")
            preset = load_presets()[name]
            provider = build_provider(name, preset, settings, http, lambda env, file: key())
            yield FakeStage(upstream, provider)

    return stage


@asynccontextmanager
async def local_stage() -> AsyncIterator[Stage]:
    """The embedded model: its real child runs, and the fake upstream answers in its place."""
    settings = LocalSettings(model="model-a", context_length=256, parallel=1)
    async with FakeUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:

        def answering(_base_url: str, own: str) -> Provider:
            return OpenAICompatible(ProviderInfo(name="Local"), upstream.url, http=http, key=lambda: own)

        async with aclosing(Local(settings, find_model, answering)) as local:
            await local.start()
            yield FakeStage(upstream, local)


@asynccontextmanager
async def lockchat_stage() -> AsyncIterator[Stage]:
    """Lockchat, at an address that the user has set."""
    async with FakeUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        settings = ProviderSettings(base_url=upstream.url.removesuffix("/v1"))
        yield FakeStage(upstream, Lockchat(settings, http=http, key=key))


class GeminiStage(FakeStage):
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
async def vertex_stage() -> AsyncIterator[Stage]:
    """Gemini on Vertex AI, with a service account."""
    async with FakeVertex() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        account = service_account(upstream.token_address)
        settings = ProviderSettings(base_url=upstream.base, api_key_file="account.json")
        place = VertexSettings(project="atlas")
        async with aclosing(
            Vertex(settings, place, http=http, key_lookup=lambda env, file: account)
        ) as vertex:
            yield GeminiStage(upstream, vertex)


@asynccontextmanager
async def ollama_stage() -> AsyncIterator[Stage]:
    """Ollama, behind a proxy that wants a key."""
    async with FakeOllama() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        settings = ProviderSettings(base_url=upstream.root)
        yield FakeStage(upstream, Ollama(settings, http=http, key_lookup=lambda env, file: key()))


@asynccontextmanager
async def anthropic_stage() -> AsyncIterator[Stage]:
    """Anthropic, with a key."""
    async with FakeAnthropic() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        settings = ProviderSettings(base_url=upstream.root)
        provider = Anthropic(settings, http=http, key_lookup=lambda env, file: fake_anthropic.KEY)
        yield FakeStage(upstream, provider)


class BedrockStage(FakeStage):
    """Bedrock's messages are made of blocks without a type."""

    def heard(self) -> list[list[tuple[str, str]]]:
        assert isinstance(self._upstream, FakeBedrock)
        return [
            [(turn["role"], turn["content"][0]["text"]) for turn in asked["messages"]]
            for asked in self._upstream.asked
        ]


@asynccontextmanager
async def bedrock_stage() -> AsyncIterator[Stage]:
    """Bedrock, with a key of its own and a default model of the user's."""
    async with FakeBedrock() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        settings = ProviderSettings(base_url=upstream.root, default_model="model-a")
        yield BedrockStage(
            upstream, Bedrock(settings, http=http, key_lookup=lambda env, file: fake_bedrock.KEY)
        )


class CopilotOfAnyModel(Copilot):
    """Copilot has one model, and the contract asks for another."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        return super().stream(replace(request, model=self.info.default_model))


class CopilotStage(FakeStage):
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
            settings, http = upstream.settings(), HTTPClient(UpstreamSettings())
            doors = [MicrosoftDoor(PROFILES["workiq"], settings, http=http, sign_ins=sign_ins)]
            async with aclosing(CopilotOfAnyModel(settings, doors, http=http)) as copilot:
                yield CopilotStage(upstream, copilot)


# One of each kind: as in the book; another header for the key; without stream_options; without a key.
STAGES = {name: preset_stage(name) for name in ("OpenAI", "Azure", "Mistral", "LMStudio")}
STAGES["Local"] = local_stage
STAGES["Lockchat"] = lockchat_stage
STAGES["Copilot"] = copilot_stage
STAGES["Anthropic"] = anthropic_stage
STAGES["Bedrock"] = bedrock_stage
STAGES["Ollama"] = ollama_stage
STAGES["Gemini"] = gemini_stage
STAGES["Vertex"] = vertex_stage


def marked(name: str) -> pytest.ParameterSet:
    """A stage as a parameter; some need an engine or an SDK that only requirements/dev.txt installs."""
    return pytest.param(name, marks=[pytest.mark.slow] if name in ("Local", "Bedrock") else [])


class TestEveryProvider(UpstreamContract):
    """Each of them before an upstream of its kind."""

    @pytest.fixture(params=map(marked, STAGES))
    def open_stage(self, request: pytest.FixtureRequest) -> OpenStage:
        return STAGES[request.param]

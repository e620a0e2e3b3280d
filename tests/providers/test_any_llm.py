"""The provider that goes through any-llm: with OpenAI's SDK in its place, and with any-llm if it is here."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import openai
import pytest

from modelway.config import ProviderSettings
from modelway.errors import (
    GatewayError,
    InvalidRequest,
    ProviderNotConfigured,
    SignInRequired,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamUnreachable,
)
from modelway.providers.any_llm import AnyLLM, Connect, Sdk, connect
from modelway.testing import FakeStage, FakeUpstream, OpenStage, UpstreamContract
from modelway.testing.fake_upstream import closed_port
from modelway.types import ChatRequest, Message, Params, ToolCall, collect

pytestmark = pytest.mark.anyio


class OpenAISdk:
    """OpenAI's SDK with any-llm's method: chunks and completions are of the same classes."""

    def __init__(self, key: str, base_url: str) -> None:
        self.client = openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0)

    async def acompletion(self, **fields: Any) -> Any:
        return await self.client.chat.completions.create(**fields)


def connect_openai(kind: str, key: str, base_url: str) -> tuple[Sdk, type[Exception]]:
    return OpenAISdk(key, base_url), openai.OpenAIError


HERE = importlib.util.find_spec("any_llm") is not None
WAYS = [
    pytest.param(connect_openai, id="stand-in"),
    pytest.param(
        connect, id="any-llm", marks=pytest.mark.skipif(not HERE, reason="any-llm is not installed")
    ),
]


@asynccontextmanager
async def provider_of(upstream_url: str, way: Connect, **settings: Any) -> AsyncIterator[AnyLLM]:
    own = ProviderSettings(
        any_llm="openai", base_url=upstream_url, default_model="model-a", api_key_env="KEY", **settings
    )
    async with aclosing(
        AnyLLM("Mine", own, key_lookup=lambda env, file: "key", timeout_s=5, connect=way)
    ) as provider:
        yield provider


class TestAnyLLM(UpstreamContract):
    """What holds for every provider."""

    @pytest.fixture(params=WAYS)
    def open_stage(self, request: pytest.FixtureRequest) -> OpenStage:
        @asynccontextmanager
        async def opened() -> AsyncIterator[FakeStage]:
            async with FakeUpstream() as upstream, provider_of(upstream.url, request.param) as provider:
                yield FakeStage(upstream, provider)

        return opened


def ask(*, stream: bool, **params: Any) -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="user", content="Hi"),), model="m", stream=stream, params=Params(**params)
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [True, False])
async def test_calls_reasoning_and_parameters_pass(way: Connect, stream: bool) -> None:
    async with FakeUpstream() as upstream, provider_of(upstream.url, way) as provider:
        upstream.reply("so", calls=[ToolCall(id="c", name="look", arguments='{"a":1}')])
        async with aclosing(provider.stream(ask(stream=stream, temperature=0.5, stop=("x",)))) as events:
            completion = collect([event async for event in events])
    [received] = upstream.requests
    assert (received.json["temperature"], received.json["stop"]) == (0.5, ["x"])
    assert received.headers["authorization"] == "Bearer key"
    assert completion.message.tool_calls == (ToolCall(id="c", name="look", arguments='{"a":1}'),)
    assert completion.finish_reason == "tool_calls"
    assert stream or (completion.usage and completion.usage.input_tokens == 7)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InvalidRequest), (401, UpstreamRefusedCredential), (429, UpstreamRateLimited)],
)
async def test_errors_are_ours(way: Connect, status: int, error: type[GatewayError]) -> None:
    async with FakeUpstream() as upstream, provider_of(upstream.url, way) as provider:
        upstream.fail(status, "not with key")
        async with aclosing(provider.stream(ask(stream=True))) as events:
            with pytest.raises(error) as caught:
                await anext(events)
    assert "with key" not in caught.value.message


@pytest.mark.parametrize("way", WAYS)
async def test_an_upstream_that_is_not_there_is_unreachable(way: Connect) -> None:
    async with (
        provider_of(f"http://127.0.0.1:{closed_port()}/v1", way) as provider,
        aclosing(provider.stream(ask(stream=True))) as events,
    ):
        with pytest.raises(UpstreamUnreachable):
            await anext(events)


@pytest.mark.skipif(HERE, reason="any-llm is installed")
async def test_without_any_llm_it_says_how_to_get_it() -> None:
    async with provider_of("", connect) as provider, aclosing(provider.stream(ask(stream=True))) as events:
        with pytest.raises(ProviderNotConfigured, match=r"modelway\[any-llm\]"):
            await anext(events)


async def test_a_key_that_is_demanded_must_be_there() -> None:
    own = ProviderSettings(any_llm="openai", needs_auth=True)
    provider = AnyLLM("Mine", own, key_lookup=lambda env, file: "", timeout_s=5)
    async with aclosing(provider.stream(ask(stream=True))) as events:
        with pytest.raises(SignInRequired, match="api_key_env"):
            await anext(events)

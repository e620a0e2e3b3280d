"""Frameworks for agents as clients: pydantic-ai in three formats, instructor in its ways to get an object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import instructor
import openai
import pydantic_ai
import pytest
from pydantic import BaseModel
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from modelway.testing.fake_upstream import FakeUpstream
from tests.clients.conftest import Server
from tests.e2e.obliging import oblige
from tests.e2e.test_relay import relaying

pytestmark = pytest.mark.anyio


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        oblige(fake)
        yield fake


@pytest.fixture
async def address(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[str]:
    async with relaying(upstream, tmp_path) as caller:
        yield caller.address


class Joke(BaseModel):
    setup: str
    punchline: str


class City(BaseModel):
    name: str
    is_large: bool


def pydantic_models(address: str) -> dict[str, Any]:
    chats = OpenAIProvider(base_url=f"{address}/v1", api_key="none")
    messages = AnthropicProvider(base_url=address, api_key="none")
    return {
        "chats": OpenAIChatModel("Fake/m", provider=chats),
        "responses": OpenAIResponsesModel("Fake/m", provider=chats),
        "messages": AnthropicModel("Fake/m", provider=messages),
    }


@pytest.mark.shows("pydantic-ai", "fake", "chat", "tools")
@pytest.mark.parametrize("format", ["chats", "responses", "messages"])
async def test_an_agent_of_pydantic_ai_calls_a_tool_and_goes_on(
    address: str, upstream: FakeUpstream, format: str
) -> None:
    model = pydantic_models(address)[format]
    looked: list[str] = []

    def look(at: str) -> str:
        """Look at something."""
        looked.append(at)
        return "it is blue"

    agent = pydantic_ai.Agent(model, instructions="Be brief", tools=[look])
    first = await agent.run("What colour?")
    assert "it is blue" in first.output
    assert looked == ["你好, こんにちは, blue"]
    assert first.usage.output_tokens > 0
    async with agent.run_stream("And now?", message_history=first.all_messages()) as streamed:
        assert "it is blue" in await streamed.get_output()
    roles = [message["role"] for message in upstream.requests[-1].json["messages"]]
    assert roles.count("tool") == 2
    assert upstream.requests[-1].json["messages"][0]["content"] == "Be brief"


@pytest.mark.shows("pydantic-ai", "fake", "objects")
@pytest.mark.parametrize("format", ["chats", "responses", "messages"])
@pytest.mark.parametrize("way", ["ToolOutput", "NativeOutput", "PromptedOutput"])
async def test_an_agent_of_pydantic_ai_gives_an_object(address: str, format: str, way: str) -> None:
    model = pydantic_models(address)[format]
    if way != "ToolOutput" and format == "messages":
        pytest.skip("it asks Claude so only where it knows the model")
    agent = pydantic_ai.Agent(model, output_type=getattr(pydantic_ai, way)(Joke))
    joke = (await agent.run("Tell a joke")).output
    assert isinstance(joke, Joke)
    assert joke.punchline


@pytest.mark.shows("instructor", "fake", "objects", "tools")
@pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA", "PARALLEL_TOOLS", "RESPONSES_TOOLS"])
async def test_instructor_gets_its_object(address: str, mode: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as plain:
        client = instructor.from_openai(plain, mode=instructor.Mode[mode])
        wanted: Any = Iterable[Joke] if mode == "PARALLEL_TOOLS" else Joke
        joke = await client.chat.completions.create(
            model="Fake/m",
            response_model=wanted,
            max_retries=0,
            messages=[{"role": "user", "content": "Tell a joke"}],
        )
    for one in joke if mode == "PARALLEL_TOOLS" else [joke]:
        assert one.punchline


@pytest.mark.shows("instructor", "embedded", "objects", "tools")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA", "RESPONSES_TOOLS"])
async def test_the_embedded_model_gives_instructor_its_object(embedded: Server, mode: str) -> None:
    async with openai.AsyncOpenAI(base_url=embedded.v1, api_key="none") as plain:
        city = await instructor.from_openai(plain, mode=instructor.Mode[mode]).chat.completions.create(
            model=embedded.model,
            response_model=City,
            max_retries=0,
            max_tokens=64,
            messages=[{"role": "user", "content": "Which is the capital of France?"}],
        )
    assert city.name
    assert isinstance(city.is_large, bool)

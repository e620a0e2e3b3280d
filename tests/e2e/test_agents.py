"""Frameworks for agents as clients: pydantic-ai in three formats, instructor in its ways to get an object.

Each runs where it is installed, which nothing of ours does. Of anthropic, pydantic-ai needs one below 2.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from modelway.testing.fake_upstream import FakeUpstream
from tests.conftest_local import find_model
from tests.e2e.obliging import oblige
from tests.e2e.running import Running
from tests.e2e.test_relay import relaying

# How these close what they open is their own.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("default")]


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        oblige(fake)
        yield fake


@pytest.fixture
async def address(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[str]:
    async with relaying(upstream, tmp_path) as caller:
        yield caller.address


def pydantic_models(address: str) -> dict[str, Any]:
    models = {
        vendor: pytest.importorskip(f"pydantic_ai.models.{vendor}") for vendor in ("openai", "anthropic")
    }
    providers = {vendor: pytest.importorskip(f"pydantic_ai.providers.{vendor}") for vendor in models}
    openai = providers["openai"].OpenAIProvider(base_url=f"{address}/v1", api_key="none")
    anthropic = providers["anthropic"].AnthropicProvider(base_url=address, api_key="none")
    return {
        "chats": models["openai"].OpenAIChatModel("Fake/m", provider=openai),
        "responses": models["openai"].OpenAIResponsesModel("Fake/m", provider=openai),
        "messages": models["anthropic"].AnthropicModel("Fake/m", provider=anthropic),
    }


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

    agent = pytest.importorskip("pydantic_ai").Agent(model, instructions="Be brief", tools=[look])
    first = await agent.run("What colour?")
    assert "it is blue" in first.output
    assert looked == ["你好, こんにちは, blue"]
    assert first.usage.output_tokens > 0
    async with agent.run_stream("And now?", message_history=first.all_messages()) as streamed:
        assert "it is blue" in await streamed.get_output()
    roles = [message["role"] for message in upstream.requests[-1].json["messages"]]
    assert roles.count("tool") == 2
    assert upstream.requests[-1].json["messages"][0]["content"] == "Be brief"


@pytest.mark.parametrize("format", ["chats", "responses", "messages"])
@pytest.mark.parametrize("way", ["ToolOutput", "NativeOutput", "PromptedOutput"])
async def test_an_agent_of_pydantic_ai_gives_an_object(address: str, format: str, way: str) -> None:
    model = pydantic_models(address)[format]
    from pydantic import BaseModel

    pydantic_ai = pytest.importorskip("pydantic_ai")

    class Joke(BaseModel):
        setup: str
        punchline: str

    if way != "ToolOutput" and format == "messages":
        pytest.skip("it asks Claude so only where it knows the model")
    agent = pydantic_ai.Agent(model, output_type=getattr(pydantic_ai, way)(Joke))
    joke = (await agent.run("Tell a joke")).output
    assert isinstance(joke, Joke)
    assert joke.punchline


@pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA", "PARALLEL_TOOLS", "RESPONSES_TOOLS"])
async def test_instructor_gets_its_object(address: str, mode: str) -> None:
    instructor = pytest.importorskip("instructor")
    import openai
    from pydantic import BaseModel

    class Joke(BaseModel):
        setup: str
        punchline: str

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


async def test_the_embedded_model_gives_instructor_its_object(tmp_path: Path) -> None:
    instructor = pytest.importorskip("instructor")
    # Not imported here: another test shows that the engine stays in its child process.
    if find_spec("xllamacpp") is None:
        pytest.skip("the engine is not installed")
    import openai
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        is_large: bool

    config = f'[local]\nmodel = "{find_model()}"\n'
    with Running(tmp_path, config=config) as running:
        async with openai.AsyncOpenAI(base_url=f"{running.address}/v1", api_key="none") as plain:
            for mode in ("TOOLS", "JSON_SCHEMA"):
                client = instructor.from_openai(plain, mode=instructor.Mode[mode])
                city = await client.chat.completions.create(
                    model="Local",
                    response_model=City,
                    max_retries=0,
                    max_tokens=64,
                    messages=[{"role": "user", "content": "Which is the capital of France?"}],
                )
                assert city.name
                assert isinstance(city.is_large, bool)

"""Clients in Python call a tool and go on, with the embedded model if they can, and with a fake upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool as langchain_tool
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent, capabilities
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.conftest import Server
from tests.clients.sdks import (
    ASKED,
    Trip,
    anthropic_messages,
    get_weather,
    ollama_chats,
    openai_chats,
    openai_responses,
    openai_socket,
)

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


async def langchain(model: Any, streamed: bool, *, choice: str = "") -> Trip:
    """Over any of its chat models; without a choice the model decides to call."""
    look = langchain_tool(get_weather)

    async def ask(asking: Any) -> Any:
        if not streamed:
            return await asking.ainvoke(messages)
        chunks = [chunk async for chunk in asking.astream(messages)]
        return sum(chunks[1:], start=chunks[0])

    messages: list[Any] = [HumanMessage(ASKED)]
    messages.append(await ask(model.bind_tools([look], **({"tool_choice": choice} if choice else {}))))
    [call] = messages[-1].tool_calls
    result = await look.ainvoke(call)
    assert isinstance(result, ToolMessage)
    messages.append(result)
    return Trip(call["args"], (await ask(model.bind_tools([look]))).text)


async def langchain_openai(server: Server, streamed: bool, *, responses: bool = False) -> Trip:
    model: Any = ChatOpenAI(
        model=server.model,
        base_url=server.v1,
        api_key="none",
        temperature=0,
        max_tokens=64,
        use_responses_api=responses,
    )
    return await langchain(model, streamed, choice="required")


async def langchain_responses(server: Server, streamed: bool) -> Trip:
    return await langchain_openai(server, streamed, responses=True)


async def langchain_anthropic(server: Server, streamed: bool) -> Trip:
    model: Any = ChatAnthropic(
        model=server.model, base_url=server.address, api_key="none", temperature=0, max_tokens=64
    )
    return await langchain(model, streamed, choice="any")


async def langchain_ollama(server: Server, streamed: bool) -> Trip:
    return await langchain(ChatOllama(model=server.model, base_url=server.address, temperature=0), streamed)


class _FirstACall(capabilities.AbstractCapability[None]):  # type: ignore[misc]
    """Demands a call in the first request of a run, and none afterwards."""

    def get_model_settings(self) -> Any:
        return lambda run: {"tool_choice": "required" if run.run_step == 1 else "none"}


async def pydantic_ai(model: Any, streamed: bool) -> Trip:
    called: list[dict[str, Any]] = []

    def get_weather_noted(city: Literal["Paris", "Rome"]) -> str:
        """The weather in a city."""
        called.append({"city": city})
        return get_weather(city)

    settings: Any = {"temperature": 0, "max_tokens": 64}
    agent: Any = Agent(
        model, tools=[get_weather_noted], capabilities=[_FirstACall()], model_settings=settings
    )
    if streamed:
        async with agent.run_stream(ASKED) as run:
            text = await run.get_output()
    else:
        text = (await agent.run(ASKED)).output
    [arguments] = called
    return Trip(arguments, text)


async def pydantic_ai_chats(server: Server, streamed: bool) -> Trip:
    provider = OpenAIProvider(base_url=server.v1, api_key="none")
    return await pydantic_ai(OpenAIChatModel(server.model, provider=provider), streamed)


async def pydantic_ai_responses(server: Server, streamed: bool) -> Trip:
    provider = OpenAIProvider(base_url=server.v1, api_key="none")
    return await pydantic_ai(OpenAIResponsesModel(server.model, provider=provider), streamed)


async def pydantic_ai_messages(server: Server, streamed: bool) -> Trip:
    provider = AnthropicProvider(base_url=server.address, api_key="none")
    return await pydantic_ai(AnthropicModel(server.model, provider=provider), streamed)


CLIENTS: dict[str, list[Callable[[Server, bool], Awaitable[Trip]]]] = {
    "openai": [openai_chats, openai_responses, openai_socket],
    "anthropic": [anthropic_messages],
    "ollama": [ollama_chats],
    "langchain": [langchain_openai, langchain_responses, langchain_anthropic, langchain_ollama],
    "pydantic-ai": [pydantic_ai_chats, pydantic_ai_responses, pydantic_ai_messages],
}
CASES = [
    pytest.param(
        ask, against, id=f"{ask.__name__}-{against}", marks=pytest.mark.shows(client, against, "tools")
    )
    for client, ways in CLIENTS.items()
    for ask in ways
    for against in ("embedded", "fake")
    if against == "fake" or "ollama" not in ask.__name__
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("ask", "server"), CASES, indirect=["server"])
async def test_a_tool_is_called_and_its_result_is_told(
    ask: Callable[[Server, bool], Awaitable[Trip]], server: Server, streamed: bool
) -> None:
    arguments, text = await ask(server, streamed)
    assert arguments in ({"city": "Paris"}, {"city": "Rome"})
    # The model knows it from the tool alone.
    assert "23" in text

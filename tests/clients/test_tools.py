"""Clients in Python call a tool and go on, with the embedded model where they can, and with a fake upstream.

A model of 135 million parameters writes a good call where it must, and seldom begins one by itself. So the
first request demands a call. Ollama's format cannot demand one, which leaves the fake upstream.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

import anthropic
import ollama
import openai
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

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

ASKED = "What is the weather in Paris?"
FUNCTION: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TOOL: Any = {"type": "function", "function": {**FUNCTION, "strict": True}}


def get_weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather in a city."""
    return f"{city}: sunny, 23 degrees."


class Trip(NamedTuple):
    """What the tool was called with, and what the model said when it knew the result."""

    arguments: dict[str, Any]
    text: str


async def openai_chats(server: Server, streamed: bool) -> Trip:
    messages: list[Any] = [{"role": "user", "content": ASKED}]

    async def ask(**fields: Any) -> Any:
        asked = {"model": server.model, "messages": messages, "temperature": 0, "max_tokens": 64, **fields}
        if not streamed:
            return (await client.chat.completions.create(**asked)).choices[0].message
        async with client.chat.completions.stream(**asked) as stream:
            return (await stream.get_final_completion()).choices[0].message

    async with openai.AsyncOpenAI(base_url=server.v1, api_key="none", max_retries=0) as client:
        first = await ask(tools=[TOOL], tool_choice="required")
        [call] = first.tool_calls
        arguments = json.loads(call.function.arguments)
        said = first.model_dump(include={"role", "content", "tool_calls"})
        messages += [said, {"role": "tool", "tool_call_id": call.id, "content": get_weather(**arguments)}]
        second = await ask(tools=[TOOL], tool_choice="none")
    return Trip(arguments, second.content)


async def openai_responses(server: Server, streamed: bool) -> Trip:
    async def ask(**fields: Any) -> Any:
        asked = {"model": server.model, "temperature": 0, "max_output_tokens": 64, **fields}
        if not streamed:
            return await client.responses.create(**asked)
        async with client.responses.stream(**asked) as stream:
            return await stream.get_final_response()

    tools = [{"type": "function", "strict": True, **FUNCTION}]
    async with openai.AsyncOpenAI(base_url=server.v1, api_key="none", max_retries=0) as client:
        first = await ask(input=ASKED, tools=tools, tool_choice="required")
        [call] = [item for item in first.output if item.type == "function_call"]
        arguments = json.loads(call.arguments)
        result = {"type": "function_call_output", "call_id": call.call_id, "output": get_weather(**arguments)}
        second = await ask(input=[result], previous_response_id=first.id, tools=tools, tool_choice="none")
    return Trip(arguments, second.output_text)


async def openai_socket(server: Server, streamed: bool) -> Trip:
    """Over one WebSocket, with a response that is kept nowhere else."""
    tools = [{"type": "function", "strict": True, **FUNCTION}]

    async def ask(connection: Any, **fields: Any) -> Any:
        asked = {"model": server.model, "temperature": 0, "max_output_tokens": 64, "store": streamed}
        await connection.response.create(**asked, **fields)
        event = await connection.recv()
        while event.type != "response.completed":
            assert event.type != "error", event
            event = await connection.recv()
        return event.response

    async with (
        openai.AsyncOpenAI(base_url=server.v1, api_key="none") as client,
        client.responses.connect() as connection,
    ):
        first = await ask(connection, input=ASKED, tools=tools, tool_choice="required")
        [call] = [item for item in first.output if item.type == "function_call"]
        arguments = json.loads(call.arguments)
        result = {"type": "function_call_output", "call_id": call.call_id, "output": get_weather(**arguments)}
        second = await ask(connection, input=[result], previous_response_id=first.id)
    return Trip(arguments, second.output[0].content[0].text)


async def anthropic_messages(server: Server, streamed: bool) -> Trip:
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    tool = {**FUNCTION, "input_schema": FUNCTION["parameters"]}
    del tool["parameters"]

    async def ask(choice: str) -> Any:
        asked: Any = {"model": server.model, "messages": messages, "max_tokens": 64, "tools": [tool]}
        asked |= {"tool_choice": {"type": choice}, "extra_body": {"temperature": 0}}
        if not streamed:
            return await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            return await stream.get_final_message()

    async with anthropic.AsyncAnthropic(base_url=server.address, api_key="none", max_retries=0) as client:
        first = await ask("any")
        [call] = [block for block in first.content if block.type == "tool_use"]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": get_weather(**call.input)}
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        second = await ask("none")
    return Trip(call.input, second.content[0].text)


async def ollama_chats(server: Server, streamed: bool) -> Trip:
    messages: list[Any] = [{"role": "user", "content": ASKED}]

    async def ask() -> Any:
        if not streamed:
            return (await client.chat(server.model, messages, tools=[TOOL])).message
        stream = await client.chat(server.model, messages, tools=[TOOL], stream=True)
        lines = [line.message async for line in stream]
        text = "".join(line.content or "" for line in lines)
        calls = [call for line in lines for call in line.tool_calls or ()]
        return ollama.Message(role="assistant", content=text, tool_calls=calls)

    async with ollama.AsyncClient(host=server.address) as client:
        first = await ask()
        [call] = first.tool_calls
        arguments = dict(call.function.arguments)
        messages += [first, {"role": "tool", "tool_name": "get_weather", "content": get_weather(**arguments)}]
        second = await ask()
    return Trip(arguments, second.content)


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

"""A tool round trip with each official SDK of Python, as a program would make it.

A model of 135 million parameters writes a good call where it must, and seldom begins one by itself. So the
first request demands a call. Ollama's format cannot demand one.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

import anthropic
import ollama
import openai

from tests.clients.conftest import Server

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

"""OpenAI's official SDK as the client, unchanged."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from modelway.auth import Auth, hash_key
from modelway.errors import UpstreamRateLimited
from modelway.gateway import Gateway
from modelway.types import Finish, TextDelta, ToolCallDelta, Usage
from tests.scripted import Scripted, Step, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
HI: list[Any] = [{"role": "user", "content": "hi"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL: list[Step] = [
    ToolCallDelta(id="call_1", name="weather", arguments='{"city":'),
    ToolCallDelta(arguments='"Paris"}'),
    Finish(reasons=("tool_calls",), usage=Usage(1, 1)),
]


@asynccontextmanager
async def sdk(
    gateway: Gateway, auth: Auth | None = None, **options: Any
) -> AsyncIterator[openai.AsyncOpenAI]:
    key = options.pop("api_key", "sk-fake")
    async with (
        serving(gateway, auth) as address,
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=key, **options) as client,
    ):
        yield client


async def test_two_turns_with_extra_body(tmp_path: Path) -> None:
    local = Scripted("Local", says("I am fine"), says("It", " is German"))
    extra = {"provider": "Local", "conversation_id": "c"}
    async with sdk(gateway_of([Scripted("Other"), local], tmp_path)) as client:
        first = await client.chat.completions.create(
            model="", messages=[{"role": "user", "content": "i am Heiner"}], extra_body=extra
        )
        stream = await client.chat.completions.create(
            model="", messages=[{"role": "user", "content": "my name?"}], extra_body=extra, stream=True
        )
        pieces = [chunk.choices[0].delta.content async for chunk in stream]
    assert first.choices[0].message.content == "I am fine"
    assert first.model_extra is not None
    assert first.model_extra["conversation_id"] == "c"
    assert "".join(piece or "" for piece in pieces) == "It is German"
    assert [message.text for message in local.requests[1].messages] == [
        "i am Heiner",
        "I am fine",
        "my name?",
    ]


async def test_a_client_that_sends_the_whole_history_again_is_recognised(tmp_path: Path) -> None:
    local = Scripted("Local", says("one"), says("two"))
    extra = {"conversation_id": "c"}
    async with sdk(gateway_of([local], tmp_path)) as client:
        messages: list[Any] = [{"role": "system", "content": "brief"}, *HI]
        for question in ("second", ""):
            answer = await client.chat.completions.create(model="Local", messages=messages, extra_body=extra)
            messages.append({"role": "assistant", "content": answer.choices[0].message.content})
            messages.append({"role": "user", "content": question})
    assert [message.text for message in local.requests[1].messages] == ["brief", "hi", "one", "second"]
    assert local.requests[1].new_from == 3


async def test_tools_streamed_and_not(tmp_path: Path) -> None:
    local = Scripted("Local", CALL, CALL, says("sunny"))
    async with sdk(gateway_of([local], tmp_path)) as client:
        whole = await client.chat.completions.create(model="", messages=HI, tools=TOOLS)
        assert whole.choices[0].finish_reason == "tool_calls"
        (call,) = whole.choices[0].message.tool_calls or []
        async with client.chat.completions.stream(model="Local", messages=HI, tools=TOOLS) as stream:
            final = await stream.get_final_completion()
        (streamed,) = final.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Paris"}')
        assert streamed.function.arguments == call.function.arguments
        messages: list[Any] = [
            *HI,
            {"role": "assistant", "tool_calls": [call.model_dump()]},
            {"role": "tool", "tool_call_id": call.id, "content": "sun"},
        ]
        answer = await client.chat.completions.create(model="", messages=messages)
    assert answer.choices[0].message.content == "sunny"
    given = local.requests[2].messages
    assert given[1].tool_calls[0].id == given[2].tool_call_id == "call_1"
    assert local.requests[0].params.tools is not None
    assert local.requests[0].params.tools[0].name == "weather"


async def test_response_format_is_passed_on_and_parsed(tmp_path: Path) -> None:
    class Person(BaseModel):
        name: str

    local = Scripted("Local", says('{"name": "Heiner"}'))
    async with sdk(gateway_of([local], tmp_path)) as client:
        answer = await client.chat.completions.parse(model="Local", messages=HI, response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="Heiner")
    wanted = local.requests[0].params.response_format
    assert wanted is not None
    assert (wanted.kind, wanted.json_schema["required"]) == ("json_schema", ["name"])


async def test_errors_are_the_sdk_s_own(tmp_path: Path) -> None:
    gateway = gateway_of([Scripted("Local")], tmp_path)
    async with sdk(gateway, Auth({"a": hash_key("sk-fake")})) as client:
        create = client.chat.completions.create
        with pytest.raises(openai.NotFoundError) as missing:
            await create(model="no-such-model", messages=HI)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as wrong:
            await create(model="", messages=[])
        assert wrong.value.param == "messages"
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="sk-wrong").chat.completions.create(model="", messages=HI)


async def test_the_sdk_does_not_multiply_our_retries(tmp_path: Path) -> None:
    limited = Scripted("Limited", [UpstreamRateLimited("slow down", retry_after=60)])
    async with sdk(gateway_of([limited], tmp_path), max_retries=3) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="", messages=HI)
    assert len(limited.requests) == 1


async def test_an_error_in_the_stream_is_raised(tmp_path: Path) -> None:
    broken = Scripted("Broken", [TextDelta(text="half")])
    async with sdk(gateway_of([broken], tmp_path)) as client:
        stream = await client.chat.completions.create(model="", messages=HI, stream=True)
        with pytest.raises(openai.APIError, match="without a finish"):
            async for _ in stream:
                pass


async def test_models_and_one_model(tmp_path: Path) -> None:
    async with sdk(gateway_of([Scripted("Local")], tmp_path)) as client:
        names = [model.id async for model in client.models.list()]
        assert names == ["local-1", "Local/local-1"]
        assert (await client.models.retrieve("Local/local-1")).owned_by == "Local"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nothing")

"""Anthropic's official SDK as the client, unchanged: any provider, and the same conversations."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest

from modelway.auth import Auth, hash_key
from modelway.errors import UpstreamOverloaded
from modelway.gateway import Gateway
from modelway.types import Finish, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from tests.e2e.test_chat_completions import asking, calling
from tests.scripted import Scripted, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio


def asks(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


HI = asks("hi")


@asynccontextmanager
async def sdk(
    gateway: Gateway, auth: Auth | None = None, api_key: str = "sk-fake"
) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with (
        serving(gateway, auth) as address,
        anthropic.AsyncAnthropic(base_url=address, api_key=api_key, max_retries=0) as client,
    ):
        yield client


async def test_a_conversation_begun_in_this_format_goes_on_in_openai_s(tmp_path: Path) -> None:
    local = Scripted("Local", says("I am fine"), says("It", " is German"), says("yes"))
    extra = {"conversation_id": "c"}
    async with calling(gateway_of([local], tmp_path)) as caller:
        async with anthropic.AsyncAnthropic(base_url=caller.address, api_key="sk-fake") as client:
            first = await client.messages.create(
                model="",
                max_tokens=9,
                messages=[{"role": "user", "content": "i am Heiner"}],
                extra_body=extra,
            )
            async with client.messages.stream(
                model="", max_tokens=9, messages=asks("my name?"), extra_body=extra
            ) as stream:
                pieces = [piece async for piece in stream.text_stream]
                second = await stream.get_final_message()
        await caller.chunks(asking("and?", conversation_id="c"))
    assert (first.content[0].text, first.stop_reason) == ("I am fine", "end_turn")
    assert first.id.startswith("msg_")
    assert pieces == ["It", " is German"]
    assert (second.usage.input_tokens, second.usage.output_tokens) == (1, 2)
    assert local.requests[0].params.max_tokens == 9
    assert [(message.role, message.text) for message in local.requests[2].messages] == [
        ("user", "i am Heiner"),
        ("assistant", "I am fine"),
        ("user", "my name?"),
        ("assistant", "It is German"),
        ("user", "and?"),
    ]


async def test_thoughts_and_calls_arrive_as_blocks(tmp_path: Path) -> None:
    call = ToolCallDelta(id="call_1", name="weather", arguments='{"city":"Paris"}')
    finish = Finish(reasons=("tool_calls",), usage=Usage(1, 1))
    local = Scripted(
        "Local", [ReasoningDelta(text="hm"), TextDelta(text="I look"), call, finish], says("18 °C")
    )
    tool: Any = {"name": "weather", "input_schema": {"type": "object"}}
    async with sdk(gateway_of([local], tmp_path)) as client:
        async with client.messages.stream(model="", max_tokens=9, messages=HI, tools=[tool]) as stream:
            message = await stream.get_final_message()
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert message.stop_reason == "tool_use"
        result: Any = {"type": "tool_result", "tool_use_id": "call_1", "content": "18"}
        said: Any = {"role": "assistant", "content": message.content}
        await client.messages.create(
            model="",
            max_tokens=9,
            messages=[*HI, said, {"role": "user", "content": [result]}],
            tools=[tool],
        )
    given = local.requests[1].messages
    assert (given[-1].role, given[-1].text, given[-1].tool_call_id) == ("tool", "18", "call_1")
    assert given[-2].tool_calls[0].name == "weather"


async def test_errors_are_the_sdk_s_own_classes(tmp_path: Path) -> None:
    local = Scripted("Local", [UpstreamOverloaded("too many")])
    auth = Auth({"ann": hash_key("mw-ann")})
    async with sdk(gateway_of([local], tmp_path), auth, "mw-ann") as client:
        with pytest.raises(anthropic.BadRequestError, match="messages"):
            await client.messages.create(model="", max_tokens=9, messages=[])
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(model="nobody/none", max_tokens=9, messages=HI)
        with pytest.raises(anthropic.InternalServerError) as overloaded:
            await client.messages.create(model="", max_tokens=9, messages=HI)
        assert overloaded.value.body["error"]["type"] == "overloaded_error"
        with pytest.raises(anthropic.AuthenticationError):
            await client.with_options(api_key="mw-eve").messages.create(model="", max_tokens=9, messages=HI)


async def test_an_error_in_the_middle_is_an_event(tmp_path: Path) -> None:
    local = Scripted("Local", [TextDelta(text="half"), UpstreamOverloaded("too many")])
    async with sdk(gateway_of([local], tmp_path)) as client:
        with pytest.raises(anthropic.APIStatusError, match="too many"):
            async with client.messages.stream(model="", max_tokens=9, messages=HI) as stream:
                await stream.get_final_message()

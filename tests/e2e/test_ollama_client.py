"""Ollama's official client, unchanged: any provider, and the same conversations."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import ollama
import pytest

from modelway.config import UpstreamSettings
from modelway.errors import UpstreamOverloaded
from modelway.gateway import Gateway
from modelway.providers.http import HTTPClient
from modelway.types import Finish, TextDelta, ToolCallDelta, Usage
from tests.scripted import Scripted, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
HI: list[Any] = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def talking(gateway: Gateway) -> AsyncIterator[ollama.AsyncClient]:
    async with serving(gateway) as address, ollama.AsyncClient(host=address) as client:
        yield client


async def test_a_chat_is_answered_streamed_and_whole(tmp_path: Path) -> None:
    local = Scripted("Local", says("Hel", "lo"))
    async with talking(gateway_of([local], tmp_path)) as client:
        whole = await client.chat(model="Local", messages=HI, options={"temperature": 0.5, "num_predict": 7})
        stream = await client.chat(model="Local", messages=HI, stream=True)
        lines = [line async for line in stream]
    assert (whole.message.content, whole.done_reason, whole.eval_count) == ("Hello", "stop", 2)
    assert [line.message.content for line in lines] == ["Hel", "lo", ""]
    assert [line.done for line in lines] == [False, False, True]
    assert (local.requests[0].params.temperature, local.requests[0].params.max_tokens) == (0.5, 7)


async def test_a_prompt_is_answered_streamed_and_whole(tmp_path: Path) -> None:
    local = Scripted("Local", says("Hel", "lo"))
    async with talking(gateway_of([local], tmp_path)) as client:
        whole = await client.generate(model="Local", prompt="hi", system="be short")
        stream = await client.generate(model="Local", prompt="hi", stream=True)
        pieces = [line.response async for line in stream]
    assert whole.response == "Hello"
    assert pieces == ["Hel", "lo", ""]
    assert [message.role for message in local.requests[0].messages] == ["system", "user"]


async def test_a_tool_is_called(tmp_path: Path) -> None:
    call = ToolCallDelta(id="call_1", name="weather", arguments='{"city":"Paris"}')
    local = Scripted("Local", [call, Finish(reasons=("tool_calls",), usage=Usage(1, 1))])
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    async with talking(gateway_of([local], tmp_path)) as client:
        answer = await client.chat(model="Local", messages=HI, tools=[tool])
    assert answer.message.tool_calls is not None
    assert answer.message.tool_calls[0].function.arguments == {"city": "Paris"}


async def test_a_conversation_with_calls_is_recognised_although_its_ids_are_lost(tmp_path: Path) -> None:
    call = ToolCallDelta(id="call_abc", name="weather", arguments='{"city": "Paris"}')
    local = Scripted(
        "Local", [call, Finish(reasons=("tool_calls",), usage=Usage(1, 1))], says("18 °C"), says("bye")
    )
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    async with talking(gateway_of([local], tmp_path)) as client:
        client._client.headers["x-modelway-conversation-id"] = "c"
        asked = await client.chat(model="Local", messages=HI, tools=[tool])
        result = {"role": "tool", "tool_name": "weather", "content": "18"}
        again = await client.chat(model="Local", messages=[*HI, asked.message, result], tools=[tool])
        await client.chat(model="Local", messages=[*HI, asked.message, result, again.message, *HI])
    for number, roles in ((1, "user assistant tool"), (2, "user assistant tool assistant user")):
        messages = local.requests[number].messages
        assert [message.role for message in messages] == roles.split()
        assert messages[2].tool_call_id == "call_abc"


async def test_a_result_alone_answers_the_call_of_its_function(tmp_path: Path) -> None:
    call = ToolCallDelta(id="call_abc", name="weather", arguments="{}")
    local = Scripted("Local", [call, Finish(reasons=("tool_calls",))], says("18 °C"))
    result = [{"role": "tool", "tool_name": "weather", "content": "18"}]
    async with talking(gateway_of([local], tmp_path)) as client:
        with pytest.raises(ollama.ResponseError, match="answers no call"):
            await client.chat(model="Local", messages=result)
        client._client.headers["x-modelway-conversation-id"] = "c"
        await client.chat(model="Local", messages=HI)
        assert (await client.chat(model="Local", messages=result)).message.content == "18 °C"
    assert local.requests[1].messages[-1].tool_call_id == "call_abc"


async def test_models_are_listed_and_shown(tmp_path: Path) -> None:
    local = Scripted("Local", supports=("tools", "images", "reasoning"))
    async with talking(gateway_of([local], tmp_path)) as client:
        listed = await client.list()
        shown = await client.show("Local/local-1")
        assert "Local/local-1" in [model.model for model in listed.models]
        assert shown.capabilities == ["completion", "tools", "vision", "thinking"]
        with pytest.raises(ollama.ResponseError) as unknown:
            await client.show("nobody/none")
    assert unknown.value.status_code == 404


async def test_errors_are_told_before_and_in_the_stream(tmp_path: Path) -> None:
    local = Scripted(
        "Local", [TextDelta(text="half"), UpstreamOverloaded("too many")], [UpstreamOverloaded("too many")]
    )
    async with talking(gateway_of([local], tmp_path)) as client:
        with pytest.raises(ollama.ResponseError, match="too many"):
            async for _ in await client.chat(model="Local", messages=HI, stream=True):
                pass
        with pytest.raises(ollama.ResponseError, match="too many") as refused:
            await client.chat(model="Local", messages=HI)
    assert refused.value.status_code == 503


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b'{"model":"\xff"}', 400), (b"[]", 400), (b" " * 70_000, 413)]
)
async def test_a_bad_question_for_a_model_is_refused(tmp_path: Path, body: bytes, status: int) -> None:
    async with (
        serving(gateway_of([Scripted("Local")], tmp_path)) as address,
        aclosing(HTTPClient(UpstreamSettings())) as http,
    ):
        headers = {"content-type": "application/json"}
        response = await http.request("POST", f"{address}/api/show", headers=headers, body=body)
        async with aclosing(response):
            await response.body()
    assert response.status == status

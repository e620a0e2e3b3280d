"""The official SDKs on a route whose first upstream breaks off and whose second goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from modelway.config import RouteSettings, ServerSettings, Settings
from modelway.errors import UpstreamProtocolError
from modelway.types import Finish, TextDelta, Usage
from tests.scripted import Scripted, Step
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
WHOLE = "The quick brown fox"


@asynccontextmanager
async def breaking(folder: Path) -> AsyncIterator[str]:
    """The address of a server with the route "best"."""
    cut = UpstreamProtocolError("One cut the answer off", code="upstream_reset")
    first: list[Step] = [TextDelta(text="The "), TextDelta(text="quick "), cut]
    rest: list[Step] = [TextDelta(text="brown "), TextDelta(text="fox"), Finish(usage=Usage(5, 6))]
    route = RouteSettings(candidates=("One", "Two"), on_break="continue")
    settings = Settings(provider="One", routes={"best": route})
    async with AsyncExitStack() as stack:
        gateway = gateway_of([Scripted("One", first), Scripted("Two", rest)], folder, settings)
        yield await stack.enter_async_context(serving(gateway))


async def test_openai_s_sdk_reads_one_answer(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    async with (
        breaking(tmp_path) as address,
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0) as client,
    ):
        question = [{"role": "user", "content": "hi"}]
        async with client.chat.completions.stream(model="best", messages=question) as stream:
            completion = await stream.get_final_completion()
        message = completion.choices[0].message
        assert (message.role, message.content, completion.choices[0].finish_reason) == (
            "assistant",
            WHOLE,
            "stop",
        )
        async with client.responses.stream(model="best", input="hi") as stream:
            response = await stream.get_final_response()
        assert response.output_text == WHOLE


async def test_anthropic_s_sdk_reads_one_answer(tmp_path: Path) -> None:
    anthropic = pytest.importorskip("anthropic")
    async with (
        breaking(tmp_path) as address,
        anthropic.AsyncAnthropic(base_url=address, api_key="x", max_retries=0) as client,
    ):
        question = [{"role": "user", "content": "hi"}]
        async with client.messages.stream(model="best", max_tokens=99, messages=question) as stream:
            message = await stream.get_final_message()
    assert [block.text for block in message.content] == [WHOLE]
    assert message.stop_reason == "end_turn"


async def test_ollama_s_client_reads_one_answer(tmp_path: Path) -> None:
    ollama = pytest.importorskip("ollama")
    async with breaking(tmp_path) as address:
        client = ollama.AsyncClient(address)
        question = [{"role": "user", "content": "hi"}]
        pieces = [piece async for piece in await client.chat("best", question, stream=True)]
        await asyncio.shield(client._client.aclose())
    assert "".join(piece.message.content or "" for piece in pieces) == WHOLE
    assert pieces[-1].done


async def test_a_silence_in_a_numbered_stream_does_not_break_openai_s_sdk(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    gate = asyncio.Event()
    slow = Scripted("One", [TextDelta(text="so "), gate, TextDelta(text="late"), Finish()])
    gateway = gateway_of([slow], tmp_path)
    async with (
        serving(gateway, settings=ServerSettings(port=0, keep_alive_s=0.05)) as address,
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0) as client,
    ):
        question = [{"role": "user", "content": "hi"}]
        pieces = await client.chat.completions.create(
            model="One", messages=question, stream=True, extra_body={"conversation_id": "c"}
        )
        text = ""
        async for piece in pieces:
            text += piece.choices[0].delta.content or ""
            if text == "so ":
                asyncio.get_running_loop().call_later(0.2, gate.set)
    assert text == "so late"

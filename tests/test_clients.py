"""The Python client, in process and over HTTP: the same interface, the same errors."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import modelway
from modelway.client import AsyncClient
from modelway.errors import InvalidRequest, SignInRequired, UpstreamTimeout
from modelway.types import Finish, Message, TextDelta, ToolCallDelta, Usage
from tests.scripted import Scripted, Step, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
Open = Callable[..., Any]


@asynccontextmanager
async def in_process(folder: Path, *providers: Scripted) -> AsyncIterator[AsyncClient]:
    gateway = gateway_of(providers, folder)
    async with AsyncClient(gateway=gateway) as client:
        yield client


@asynccontextmanager
async def over_http(folder: Path, *providers: Scripted) -> AsyncIterator[AsyncClient]:
    async with serving(gateway_of(providers, folder)) as address, AsyncClient(address) as client:
        yield client


@pytest.fixture(params=[in_process, over_http], ids=lambda way: str(way.__name__))
def connect(request: pytest.FixtureRequest) -> Open:
    found: Open = request.param
    return found


async def test_a_conversation_yields_pieces_and_then_the_completion(connect: Open, tmp_path: Path) -> None:
    local = Scripted("Local", says("I am ", "fine"), says("It is German"))
    async with connect(tmp_path, local) as client:
        conversation = client.conversation("c", provider="local")
        reply = conversation.send("i am Heiner")
        assert "".join([piece async for piece in reply]) == "I am fine"
        assert (reply.provider, reply.model, reply.conversation_id) == ("Local", "local-1", "c")
        assert reply.completion.text == "I am fine"
        assert reply.completion.usage == Usage(1, 2)
        completion = await conversation.send("my name?")
    assert completion.text == "It is German"
    assert len(local.requests[1].messages) == 3


async def test_what_is_asked_reaches_the_provider(connect: Open, tmp_path: Path) -> None:
    local = Scripted("Local")
    async with connect(tmp_path, local) as client:
        await client.chat("hi", system="brief", temperature=0.5, max_tokens=9, stream=False, user="u")
        await client.chat([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        await client.chat(Message(role="user", content="typed"))
    first, second, third = local.requests
    assert [message.role for message in first.messages] == ["system", "user"]
    assert (first.params.temperature, first.params.max_tokens, first.extra) == (0.5, 9, {"user": "u"})
    assert [message.text for message in second.messages] == ["a", "b"]
    assert third.messages[0].text == "typed"


async def test_what_the_provider_could_not_be_told_is_known(connect: Open, tmp_path: Path) -> None:
    local = Scripted("Local", params=("temperature",), supports=("system",))
    async with connect(tmp_path, local) as client:
        reply = client.chat("hi", temperature=0.5, seed=1, max_tokens=9)
        assert [piece async for piece in reply] == ["hello"]
        assert reply.ignored == ("max_tokens", "seed")
        plain = client.chat("hi")
        await plain
        assert plain.ignored == ()
        with pytest.raises(InvalidRequest) as refused:
            await client.chat("hi", n=2)
    assert (refused.value.param, refused.value.code) == ("n", "unsupported_parameter")


async def test_events_are_typed(connect: Open, tmp_path: Path) -> None:
    script: list[Step] = [ToolCallDelta(id="1", name="f", arguments="{}"), Finish(reasons=("tool_calls",))]
    async with connect(tmp_path, Scripted("Local", script)) as client:
        reply = client.chat("hi")
        events = [event async for event in reply.events()]
    assert isinstance(events[-1], Finish)
    assert reply.completion.message.tool_calls[0].name == "f"


async def test_errors_are_the_same_typed_exceptions(connect: Open, tmp_path: Path) -> None:
    copilot = Scripted("Copilot", [SignInRequired("nobody has signed in")])
    broken = Scripted(
        "Broken", [TextDelta(text="half"), UpstreamTimeout("it stalled", code="upstream_stalled")]
    )
    async with connect(tmp_path, copilot, broken) as client:
        with pytest.raises(SignInRequired, match="nobody has signed in"):
            await client.chat("hi")
        with pytest.raises(InvalidRequest):
            await client.chat([])
        with pytest.raises(InvalidRequest) as wrong:
            await client.chat("hi", temperature="hot")
        assert wrong.value.param == "temperature"
        with pytest.raises(UpstreamTimeout) as stalled:
            await client.chat("hi", provider="Broken")
        assert stalled.value.code == "upstream_stalled"


async def test_closing_a_reply_stops_the_upstream(connect: Open, tmp_path: Path) -> None:
    slow = Scripted("Slow", [TextDelta(text="a"), asyncio.Event()])
    async with connect(tmp_path, slow) as client:
        async with client.chat("hi") as reply, aclosing(aiter(reply)) as pieces:
            assert await anext(pieces) == "a"
        async with asyncio.timeout(1):
            while not slow.closed:
                await asyncio.sleep(0.01)


async def test_providers_and_models_are_listed(connect: Open, tmp_path: Path) -> None:
    local = Scripted("Local", params=("temperature",))
    async with connect(tmp_path, local) as client:
        assert await client.providers() == [replace(local.info, models=("local-1",))]
        assert [model.id for model in await client.models()] == ["local-1", "Local/local-1"]


async def test_a_reply_is_read_only_once(connect: Open, tmp_path: Path) -> None:
    async with connect(tmp_path, Scripted("Local")) as client:
        reply = client.chat("hi")
        with pytest.raises(InvalidRequest, match="not begun"):
            _ = reply.provider
        await reply
        with pytest.raises(InvalidRequest, match="only once"):
            await reply


async def test_the_synchronous_client_does_the_same(tmp_path: Path) -> None:
    def use(address: str) -> tuple[str, str, str]:
        with modelway.Client(address) as client:
            conversation = client.conversation(provider="Local")
            reply = conversation.send("i am Heiner")
            text = "".join(reply)
            return text, reply.provider, conversation.send("more").collect().text

    local = Scripted("Local", says("I am ", "fine"), says("yes"))
    async with serving(gateway_of([local], tmp_path)) as address:
        assert await asyncio.to_thread(use, address) == ("I am fine", "Local", "yes")
    assert len(local.requests[1].messages) == 3


async def test_a_reply_that_another_thread_closes_ends(tmp_path: Path) -> None:
    def use(address: str) -> list[str]:
        with modelway.Client(address) as client:
            reply = client.chat("hi", provider="Slow")
            pieces: list[str] = []
            for piece in reply:
                pieces.append(piece)
                threading.Thread(target=reply.close).start()
            return pieces

    slow = Scripted("Slow", [TextDelta(text="one"), asyncio.Event()])
    async with serving(gateway_of([slow], tmp_path)) as address:
        assert await asyncio.to_thread(use, address) == ["one"]
        async with asyncio.timeout(1):
            while not slow.closed:
                await asyncio.sleep(0.01)

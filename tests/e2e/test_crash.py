"""A server that is killed in the middle of things has lost nothing that it had acknowledged."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.config import UpstreamSettings
from modelway.providers.http import HTTPClient
from modelway.testing.fake_upstream import FakeUpstream
from tests.e2e.running import Running
from tests.e2e.test_chat_completions import Caller

pytestmark = pytest.mark.anyio


@pytest.fixture
def server(upstream: FakeUpstream, tmp_path: Path) -> Iterator[Running]:
    config = f"""
        provider = "Recorder"
        [providers.Recorder]
        base_url = "{upstream.url}"
        default_model = "recorded"
    """
    with Running(tmp_path, config=config) as running:
        yield running


def asking(text: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": text}],
        "conversation_id": "heiner",
        "stream": True,
    }


def given(upstream: FakeUpstream, request: int) -> list[tuple[str, str]]:
    messages = upstream.requests[request].json["messages"]
    return [(message["role"], message["content"]) for message in messages]


@pytest.mark.check(1)
async def test_the_second_question_knows_the_first_after_a_kill(
    server: Running, upstream: FakeUpstream
) -> None:
    upstream.reply("I am fine, ", "Heiner")
    upstream.reply("It is a German name")
    async with aclosing(HTTPClient(UpstreamSettings())) as http:
        assert "[DONE]" in await Caller(server.address, http).chunks(asking("Hello, i am Heiner"))
        server.kill()
        server.start()
        answer = await Caller(server.address, http).chunks(asking("Tell me somethings about my name"))
    assert answer[0]["choices"][0]["delta"]["content"] == "It is a German name"
    assert given(upstream, 1) == [
        ("user", "Hello, i am Heiner"),
        ("assistant", "I am fine, Heiner"),
        ("user", "Tell me somethings about my name"),
    ]


@pytest.mark.check(1)
async def test_an_answer_that_a_kill_cuts_off_is_kept_as_far_as_it_was_checkpointed(
    server: Running, upstream: FakeUpstream
) -> None:
    never = asyncio.Event()
    upstream.reply("It begins ", "well", never, " and never ends")
    upstream.reply("Where were we?")
    async with aclosing(HTTPClient(UpstreamSettings())) as http:
        caller = Caller(server.address, http)
        response = await caller.post(asking("Tell me"))
        async with aclosing(response):
            stream = b""
            while b"well" not in stream:
                stream += await response.read()
            await until_checkpointed(caller, "It begins well")
            server.kill()
        server.start()
        caller = Caller(server.address, http)
        answer = await caller.chunks(asking("Go on"))
        _, shown = await caller.get("/v1/conversations/heiner")
    assert "[DONE]" in answer
    assert [turn["status"] for turn in shown["turns"]] == ["interrupted", "done"]
    assert given(upstream, 1) == [
        ("user", "Tell me"),
        ("assistant", "It begins well"),
        ("user", "Go on"),
    ]


async def until_checkpointed(caller: Caller, text: str) -> None:
    async with asyncio.timeout(5):
        while text not in json.dumps((await caller.get("/v1/conversations/heiner"))[1]):
            await asyncio.sleep(0.02)


async def test_a_server_that_is_asked_to_end_finishes_its_answers_and_exits_with_0(
    server: Running, upstream: FakeUpstream
) -> None:
    go_on = asyncio.Event()
    upstream.reply("first", go_on, " last")
    async with aclosing(HTTPClient(UpstreamSettings())) as http:
        response = await Caller(server.address, http).post(asking("Tell me"))
        async with aclosing(response):
            stream = await response.read()
            ending = asyncio.create_task(asyncio.to_thread(server.stop))
            go_on.set()
            stream += await response.body()
        assert b" last" in stream
        assert stream.endswith(b"data: [DONE]\n\n")
        assert await ending == 0


async def test_a_second_server_on_the_same_port_says_so(server: Running, tmp_path: Path) -> None:
    port = server.address.rpartition(":")[2]
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(AssertionError, match=f"port {port} is in use"):
        Running(other, "--port", port).start()


@pytest.mark.slow
async def test_a_model_that_cannot_be_loaded_at_the_start_is_told_without_a_traceback(tmp_path: Path) -> None:
    running = Running(tmp_path, "--preload", environ={"MODELWAY_LOCAL__MODEL": "/nowhere/model.gguf"})
    with pytest.raises(AssertionError, match=r"no model file /nowhere/model\.gguf") as raised:
        running.start()
    assert "Traceback" not in str(raised.value)

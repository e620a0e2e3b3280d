"""What goes wrong in the middle of an answer: bugs of providers, and a server that goes down."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from modelway.config import UpstreamSettings
from modelway.provider import ProviderInfo
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import OpenAICompatible
from modelway.testing.fake_upstream import FakeUpstream, text_event
from modelway.types import ChatRequest, Event, Finish, TextDelta
from tests.e2e.running import Running
from tests.e2e.test_wire import BODY, get, post, wire
from tests.polling import until
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
STREAM = BODY[:-1] + b',"stream":true,"conversation_id":"c"}'


def provider_at(url: str, http: HTTPClient) -> OpenAICompatible:
    return OpenAICompatible(ProviderInfo(name="Up", default_model="m"), url, http=http, key=lambda: "")


class Stubborn(Scripted):
    """Does not end when it is told to."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        try:
            yield TextDelta(text="a")
            yield Finish()
            yield TextDelta(text="late")
            yield Finish()
        finally:
            yield TextDelta(text="never")


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_a_provider_that_ignores_its_end_does_not_harm_the_connection(
    tmp_path: Path, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(gateway_of([Stubborn("Stubborn")], tmp_path)) as address,
        wire(address, post(body=body)) as connection,
    ):
        assert (await connection.reply())[0] == 200
        connection.writer.write(get(b"/healthz"))
        assert (await connection.reply())[0] == 200
    assert "ignored GeneratorExit" in caplog.text
    assert "Exception in ASGI" not in caplog.text


class Cancelled(Scripted):
    """Waits for something that is called off."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        if request.stream:
            yield TextDelta(text="a")
        start: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        start.cancel()
        await start


async def test_a_provider_that_is_cancelled_by_itself_is_a_bug_with_a_reply(tmp_path: Path) -> None:
    async with serving(gateway_of([Cancelled("Local")], tmp_path)) as address:
        async with wire(address, post()) as connection:
            assert await connection.error() == (500, "internal_error")
        async with wire(address, post(body=STREAM)) as connection:
            status, _, stream = await connection.reply()
            last = json.loads(stream.split(b"\n\n")[-2].rpartition(b"data: ")[2])
            assert (status, last["error"]["code"]) == (200, "internal_error")


@pytest.mark.parametrize("index", [-1, -5, 10**12])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_with_a_choice_out_of_bounds_is_malformed(
    tmp_path: Path, index: int, stream: bool
) -> None:
    said = {"content": "x"}
    choice = {"index": index, "delta": said, "message": said, "finish_reason": "stop"}
    answer = json.dumps({"choices": [choice]}).encode()
    async with FakeUpstream() as upstream:
        if stream:
            upstream.stream(b"data: " + answer + b"\n\n")
        else:
            upstream.reply_with(answer, kind="application/json")
        async with (
            aclosing(HTTPClient(UpstreamSettings())) as http,
            serving(gateway_of([provider_at(upstream.url, http)], tmp_path)) as address,
            wire(address, post(body=STREAM if stream else BODY)) as connection,
        ):
            assert await connection.error() == (502, "upstream_malformed")


@pytest.mark.check(2)
async def test_the_server_ends_answers_with_an_error_when_its_grace_time_is_over(tmp_path: Path) -> None:
    async with FakeUpstream() as upstream:
        upstream.stall("half")
        config = f"""
            provider = "Up"
            [server]
            shutdown_grace_s = 1
            [providers.Up]
            base_url = "{upstream.url}"
            default_model = "m"
        """
        server = Running(tmp_path, config=config)
        await asyncio.to_thread(server.start)
        async with (
            wire(server.address, post(body=STREAM)) as streaming,
            wire(server.address, post()) as silent,
        ):
            await until(lambda: len(upstream.requests) >= 2)
            stopping = asyncio.create_task(asyncio.to_thread(server.stop))
            status, _, stream = await streaming.reply()
            last = json.loads(stream.split(b"\n\n")[-2].rpartition(b"data: ")[2])
            assert (status, last["error"]["code"]) == (200, "shutting_down")
            assert await silent.error() == (503, "shutting_down")
            assert await stopping == 0
        assert not [line for line in server.log if "Traceback" in line]
        await asyncio.to_thread(server.start)
        try:
            async with wire(server.address, get(b"/v1/conversations/c")) as connection:
                shown = json.loads((await connection.reply())[2])
        finally:
            await asyncio.to_thread(server.kill)
    assert [turn["status"] for turn in shown["turns"]] == ["interrupted"]
    assert [message["content"] for message in shown["messages"]] == ["hi", "half"]


async def takes_nothing_new(address: str) -> bool:
    """Whether a new request is declined; the server still listens, so that it can say why."""
    async with wire(address, get(b"/v1/models")) as connection:
        status, headers, body = await connection.reply()
    if status == 200:
        return False
    assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
    return bool(json.loads(body)["error"]["code"] == "shutting_down")


@pytest.mark.check(2)
async def test_a_second_interrupt_ends_the_server_although_a_client_does_not_read(tmp_path: Path) -> None:
    async with FakeUpstream() as upstream:
        upstream.stream(*[text_event("x" * 100_000)] * 200)
        config = f"""
            provider = "Up"
            [server]
            shutdown_grace_s = 60
            [providers.Up]
            base_url = "{upstream.url}"
            default_model = "m"
        """
        server = Running(tmp_path, config=config)
        await asyncio.to_thread(server.start)
        async with wire(server.address, post(body=STREAM)):
            await asyncio.wait_for(upstream.choked.wait(), 30)
            os.kill(server.pid, signal.SIGINT)
            async with asyncio.timeout(30):
                while not await takes_nothing_new(server.address):
                    await asyncio.sleep(0.01)
            os.kill(server.pid, signal.SIGINT)
            assert await asyncio.wait_for(asyncio.to_thread(server.stop), 30) == 0
        assert not [line for line in server.log if "Traceback" in line]

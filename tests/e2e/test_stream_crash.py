"""Servers that share a database: one goes on where the other stopped, and says where it was killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.config import UpstreamSettings
from modelway.errors import UpstreamError
from modelway.providers.http import HTTPClient, Response
from modelway.testing.fake_upstream import FakeUpstream
from tests.e2e.running import Running, two_running
from tests.e2e.test_streams import CHAT, beginning, last_id, whole

pytestmark = pytest.mark.anyio
KEYED = {"idempotency-key": "k"}


@pytest.fixture
def servers(upstream: FakeUpstream, tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    with two_running(tmp_path, upstream.url, "checkpoint_s = 0.05") as both:
        yield both


class Client:
    """A client of one of the servers."""

    def __init__(self, server: Running, http: HTTPClient) -> None:
        self._server = server
        self._http = http

    async def post(self, path: str, body: dict[str, Any], **headers: str) -> Response:
        said = {
            "content-type": "application/json",
            **{name.replace("_", "-"): one for name, one in headers.items()},
        }
        return await self._http.request(
            "POST", self._server.address + path, headers=said, body=json.dumps(body).encode()
        )

    async def chat(self, last: str = "") -> Response:
        asked = {"messages": [{"role": "user", "content": "hi"}], "conversation_id": "c", "stream": True}
        return await self.post(CHAT, asked, **KEYED, **({"last-event-id": last} if last else {}))

    async def fetch(self, path: str) -> Response:
        return await self._http.request("GET", self._server.address + path, headers={})

    async def get(self, path: str) -> Any:
        async with aclosing(await self.fetch(path)) as response:
            return json.loads(await response.body())


@pytest.fixture
async def clients(servers: tuple[Running, Running]) -> AsyncIterator[tuple[Client, Client]]:
    async with aclosing(HTTPClient(UpstreamSettings())) as http:
        yield Client(servers[0], http), Client(servers[1], http)


async def until_stored(client: Client, text: str) -> None:
    async with asyncio.timeout(5):
        while text not in json.dumps(await client.get("/v1/conversations/c")):
            await asyncio.sleep(0.02)


@pytest.mark.check(6)
async def test_the_other_server_gives_the_rest_while_the_first_one_answers(
    clients: tuple[Client, Client], upstream: FakeUpstream
) -> None:
    go_on = asyncio.Event()
    upstream.reply("one ", "two ", go_on, "three ", "four")
    here, there = clients
    begun = await beginning(await here.chat(), 2)
    rest = asyncio.create_task(body(there.chat(last_id(begun))))
    await until_stored(there, "one two ")
    go_on.set()
    again = await body(here.chat())
    assert begun + await rest == again
    assert again.endswith(b"data: [DONE]\n\n")
    assert len(upstream.requests) == 1


@pytest.mark.check(2)
async def test_what_was_acknowledged_and_then_the_end_of_its_server(
    servers: tuple[Running, Running], clients: tuple[Client, Client], upstream: FakeUpstream
) -> None:
    upstream.reply("one ", "two ", asyncio.Event())
    here, there = clients
    response = await here.chat()
    async with aclosing(response):
        begun = b""
        while b"two " not in begun:
            begun += await response.read()
        following = asyncio.create_task(body(there.chat(last_id(begun))))
        await until_stored(there, "one two ")
        servers[0].kill()
        rest = await following
    told = await body(there.chat())
    assert told == begun + rest
    assert b'"code":"turn_interrupted"' in rest
    shown = await there.get("/v1/conversations/c")
    assert [turn["status"] for turn in shown["turns"]] == ["interrupted"]
    assert shown["messages"][-1]["content"] == "one two "
    servers[0].start()
    assert await body(Client(servers[0], here._http).chat()) == told
    assert len(upstream.requests) == 1


async def test_a_key_is_free_where_its_server_was_killed_before_the_first_word(
    servers: tuple[Running, Running], clients: tuple[Client, Client], upstream: FakeUpstream
) -> None:
    upstream.reply(asyncio.Event())
    here, there = clients
    asked = {"messages": [{"role": "user", "content": "hi"}]}
    waiting = asyncio.create_task(body(here.post(CHAT, asked, **KEYED)))
    async with asyncio.timeout(5):
        while not upstream.requests:
            await asyncio.sleep(0.02)
    servers[0].kill()
    with pytest.raises(UpstreamError):
        await waiting
    servers[0].start()
    upstream.reply("at once")
    async with asyncio.timeout(5):
        told = await body(there.post(CHAT, asked, **KEYED))
        assert await body(Client(servers[0], here._http).post(CHAT, asked, **KEYED)) == told
    assert b"at once" in told
    assert len(upstream.requests) == 2


async def test_a_relayed_stream_of_a_killed_server_is_told_as_far_as_it_came(
    servers: tuple[Running, Running], clients: tuple[Client, Client], upstream: FakeUpstream
) -> None:
    upstream.stream(b'data: {"n":1}\n\n', b'data: {"n":2}\n\n', asyncio.Event())
    here, there = clients
    path, asked = "/v1/completions", {"model": "m", "prompt": "hi", "stream": True}
    async with aclosing(await here.post(path, asked, **KEYED)) as response:
        begun = b""
        while b'"n":2' not in begun:
            begun += await response.read()
        following = asyncio.create_task(there.post(path, asked, **KEYED))
        async with aclosing(await following) as other:
            assert await other.read() == begun
            servers[0].kill()
            rest = await other.body()
    assert b'"code":"turn_interrupted"' in rest
    servers[0].start()
    for client in (there, Client(servers[0], here._http)):
        assert await body(client.post(path, asked, **KEYED)) == begun + rest
    assert len(upstream.requests) == 1


async def test_a_response_in_the_background_does_not_run_for_ever(
    servers: tuple[Running, Running], clients: tuple[Client, Client], upstream: FakeUpstream
) -> None:
    upstream.reply("half", asyncio.Event())
    here, there = clients
    asked = {"input": "hi", "background": True}
    async with aclosing(await here.post("/v1/responses", asked)) as response:
        told = json.loads(await response.body())
    async with asyncio.timeout(5):
        while (await there.get(f"/v1/responses/{told['id']}"))["status"] != "in_progress":
            await asyncio.sleep(0.02)
    servers[0].kill()
    left = await there.get(f"/v1/responses/{told['id']}")
    assert (told["status"], left["status"]) == ("queued", "incomplete")
    assert left["output"][0]["content"][0]["text"] == "half"
    servers[0].start()
    assert await here.get(f"/v1/responses/{told['id']}") == left
    for server in (here, there):
        stream = await body(server.fetch(f"/v1/responses/{told['id']}?stream=true"))
        events = [json.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: ")]
        assert [event["type"] for event in events[-2:]] == ["response.incomplete", "error"]
        assert events[-2]["response"] == left


async def test_a_server_that_is_asked_to_end_finishes_what_is_in_the_background(
    servers: tuple[Running, Running], clients: tuple[Client, Client], upstream: FakeUpstream
) -> None:
    go_on = asyncio.Event()
    upstream.reply("half ", go_on, "done")
    here, there = clients
    async with aclosing(await here.post("/v1/responses", {"input": "hi", "background": True})) as response:
        told = json.loads(await response.body())
    ending = asyncio.create_task(asyncio.to_thread(servers[0].stop))
    async with asyncio.timeout(5):
        while (await there.get(f"/v1/responses/{told['id']}"))["status"] != "in_progress":
            await asyncio.sleep(0.02)
    go_on.set()
    assert await ending == 0
    left = await there.get(f"/v1/responses/{told['id']}")
    assert (left["status"], left["output"][0]["content"][0]["text"]) == ("completed", "half done")


async def body(asked: Any) -> bytes:
    return await whole(await asked)

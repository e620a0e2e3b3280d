"""Answers that outlive their server: another one, or the same one again, goes on with them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from modelway.continuing import INSTRUCTION
from modelway.errors import UpstreamError
from modelway.providers.http import HTTPClient, Response
from modelway.testing.fake_upstream import FakeUpstream
from tests.e2e.running import Running, two_running
from tests.e2e.test_stream_crash import Client
from tests.e2e.test_streams import CHAT, last_id, whole

pytestmark = pytest.mark.anyio
KEYED = {"idempotency-key": "k"}
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}], "conversation_id": "c"},
    "/v1/responses": {"input": "hi", "conversation": "c"},
    "/v1/messages": {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 99,
        "conversation_id": "c",
    },
}


@pytest.fixture
def servers(upstream: FakeUpstream, tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    with two_running(tmp_path, upstream.url, 'on_crash = "continue"') as both:
        yield both


async def asked(client: Client, path: str, **headers: str) -> Response:
    return await client.post(path, {**ASKED[path], "stream": True}, **headers)


async def crashed(server: Running, response: Response, text: bytes) -> bytes:
    """What a client has got when its server is killed: up to the end of an event, and as much as has come."""
    begun = b""
    async with aclosing(response):
        while text not in begun:
            begun += await response.read()
        server.kill()
    return begun[: begun.rfind(b"\n\n") + 2]


async def body(asked: Awaitable[Response]) -> bytes:
    return await whole(await asked)


def said(stream: bytes) -> str:
    """The text of a stream, in any of the formats."""
    text = ""
    for line in stream.split(b"\n"):
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        delta = event["choices"][0]["delta"] if event.get("choices") else event.get("delta")
        if isinstance(delta, dict):
            text += delta.get("text") or delta.get("content") or ""
        elif event.get("type") == "response.output_text.delta":
            text += delta
    return text


@pytest.mark.check(2)
@pytest.mark.parametrize("path", list(ASKED))
async def test_nothing_is_lost_or_said_twice_wherever_in_a_stream_the_kill_falls(
    servers: tuple[Running, Running], http: HTTPClient, upstream: FakeUpstream, path: str
) -> None:
    words = [f"w{number} " for number in range(300)]
    upstream.reply(*words, asyncio.Event())
    upstream.reply("END")
    here, there = Client(servers[0], http), Client(servers[1], http)
    async with aclosing(await asked(here, path, **KEYED)) as response:
        got = b""
        while words[random.randrange(200)].encode() not in got:
            got += await response.read()
        servers[0].kill()
        with suppress(UpstreamError):
            while piece := await response.read():
                got += piece
    begun = got[: got.rfind(b"\n\n") + 2]
    rest = await body(asked(there, path, last_event_id=last_id(begun), **KEYED))
    told = said(begun + rest)
    assert told.endswith("END")
    assert "".join(words).startswith(told.removesuffix("END"))
    assert await body(asked(there, path, **KEYED)) == begun + rest


@pytest.mark.parametrize("path", list(ASKED))
async def test_the_other_server_goes_on_with_the_answer(
    servers: tuple[Running, Running], http: HTTPClient, upstream: FakeUpstream, path: str
) -> None:
    upstream.reply("one ", "two ", asyncio.Event())
    upstream.reply("three ", "four")
    here, there = Client(servers[0], http), Client(servers[1], http)
    begun = await crashed(servers[0], await asked(here, path, **KEYED), b"two ")
    rest = await body(asked(there, path, last_event_id=last_id(begun), **KEYED))
    assert said(begun) == "one two "
    assert said(rest) == "three four"
    assert b'"turn_interrupted"' in rest
    assert b'"error"' not in rest.replace(b'"error":null', b"")
    assert await body(asked(there, path, **KEYED)) == begun + rest
    shown = await there.get("/v1/conversations/c")
    assert [(turn["status"], turn["provider"]) for turn in shown["turns"]] == [("done", "Recorder+Recorder")]
    assert [message["content"] for message in shown["messages"]] == ["hi", "one two three four"]
    [first, second] = [request.json["messages"] for request in upstream.requests]
    assert second[: len(first)] == first
    assert [one["content"] for one in second[len(first) :]] == ["one two ", INSTRUCTION]
    servers[0].start()
    for client in (there, Client(servers[0], http)):
        assert await body(asked(client, path, **KEYED)) == begun + rest
        assert await body(client.fetch("/v1/conversations/c/stream")) == begun + rest


async def test_a_reader_elsewhere_notices_and_the_answer_goes_on(
    servers: tuple[Running, Running], http: HTTPClient, upstream: FakeUpstream
) -> None:
    upstream.reply("one ", "two ", asyncio.Event())
    upstream.reply("three")
    here, there = Client(servers[0], http), Client(servers[1], http)
    response = await asked(here, CHAT)
    following = asyncio.create_task(body(there.fetch("/v1/conversations/c/stream")))
    begun = await crashed(servers[0], response, b"two ")
    async with asyncio.timeout(10):
        told = await following
    assert told.startswith(begun)
    assert said(told) == "one two three"
    assert told.endswith(b"data: [DONE]\n\n")


async def test_a_server_that_comes_again_goes_on_itself(
    servers: tuple[Running, Running], http: HTTPClient, upstream: FakeUpstream
) -> None:
    servers[1].kill()
    upstream.reply("one ", "two ", asyncio.Event())
    upstream.reply("three")
    begun = await crashed(servers[0], await asked(Client(servers[0], http), "/v1/responses"), b"two ")
    servers[0].start()
    again = Client(servers[0], http)
    shown = await again.get("/v1/conversations/c")
    assert [turn["status"] for turn in shown["turns"]] == ["open"]
    rest = await body(again.fetch(f"/v1/conversations/c/stream?starting_after={last_id(begun)}"))
    assert said(begun + rest) == "one two three"
    assert b"event: response.completed" in rest


async def test_only_one_server_goes_on(
    servers: tuple[Running, Running], http: HTTPClient, upstream: FakeUpstream
) -> None:
    upstream.reply("one ", asyncio.Event())
    upstream.reply("two")
    here, there = Client(servers[0], http), Client(servers[1], http)
    await crashed(servers[0], await asked(here, CHAT, **KEYED), b"one ")
    servers[0].start()
    clients = [there, Client(servers[0], http)] * 4
    told = await asyncio.gather(*(body(asked(client, CHAT, **KEYED)) for client in clients))
    assert len(set(told)) == 1
    assert said(told[0]) == "one two"
    assert len(upstream.requests) == 2


async def test_a_response_in_the_background_comes_to_its_end(
    servers: tuple[Running, Running], http: HTTPClient, upstream: FakeUpstream
) -> None:
    upstream.reply("one ", asyncio.Event())
    upstream.reply("two")
    here, there = Client(servers[0], http), Client(servers[1], http)
    async with aclosing(await here.post("/v1/responses", {"input": "hi", "background": True})) as response:
        told = json.loads(await response.body())
    async with asyncio.timeout(5):
        while (await there.get(f"/v1/responses/{told['id']}"))["status"] != "in_progress":
            await asyncio.sleep(0.02)
    servers[0].kill()
    async with asyncio.timeout(5):
        while (left := await there.get(f"/v1/responses/{told['id']}"))["status"] != "completed":
            assert left["status"] == "in_progress"
            await asyncio.sleep(0.02)
    assert left["output"][0]["content"][0]["text"] == "one two"


async def test_one_of_which_nothing_had_come_is_asked_again(
    servers: tuple[Running, Running], http: HTTPClient, upstream: FakeUpstream
) -> None:
    upstream.reply(asyncio.Event())
    upstream.reply("at last")
    here, there = Client(servers[0], http), Client(servers[1], http)
    async with aclosing(await here.post("/v1/responses", {"input": "hi", "background": True})) as response:
        told = json.loads(await response.body())
    async with asyncio.timeout(5):
        while not upstream.requests:
            await asyncio.sleep(0.02)
    servers[0].kill()
    async with asyncio.timeout(5):
        while (left := await there.get(f"/v1/responses/{told['id']}"))["status"] != "completed":
            assert left["status"] in ("queued", "in_progress")
            await asyncio.sleep(0.02)
    assert left["output"][0]["content"][0]["text"] == "at last"


async def test_nobody_can_go_on_and_the_client_is_told_why(
    servers: tuple[Running, Running], http: HTTPClient, upstream: FakeUpstream
) -> None:
    upstream.reply("one ", asyncio.Event())
    upstream.fail(400, "no more")
    here, there = Client(servers[0], http), Client(servers[1], http)
    begun = await crashed(servers[0], await asked(here, CHAT, **KEYED), b"one ")
    rest = await body(asked(there, CHAT, last_event_id=last_id(begun), **KEYED))
    assert b'"code":"turn_interrupted"' in rest
    assert b"nobody goes on with it" in rest
    assert await body(asked(there, CHAT, **KEYED)) == begun + rest
    shown = await there.get("/v1/conversations/c")
    assert [turn["status"] for turn in shown["turns"]] == ["interrupted"]
    assert shown["messages"][-1]["content"] == "one "


async def test_the_next_turn_does_not_wait_for_it(
    servers: tuple[Running, Running], http: HTTPClient, upstream: FakeUpstream
) -> None:
    upstream.reply("one ", asyncio.Event())
    upstream.reply("another")
    here, there = Client(servers[0], http), Client(servers[1], http)
    begun = await crashed(servers[0], await asked(here, CHAT, **KEYED), b"one ")
    assert said(await body(asked(there, CHAT))) == "another"
    rest = await body(asked(there, CHAT, last_event_id=last_id(begun), **KEYED))
    assert b'"code":"turn_interrupted"' in rest
    shown = await there.get("/v1/conversations/c")
    assert [turn["status"] for turn in shown["turns"]] == ["interrupted", "done"]

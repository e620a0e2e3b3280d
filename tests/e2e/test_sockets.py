"""Responses over a WebSocket: the cases of the Open Responses compliance suite, and what else may happen.

Source: openresponses.org, version 2026-04-24.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from modelway.auth import Auth, hash_key
from modelway.config import ServerSettings
from modelway.errors import UpstreamOverloaded
from modelway.server.exchange import Receive, Scope, Send
from modelway.server.sockets import Socket
from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import TextDelta, ToolCall
from tests.e2e.test_relay import relaying
from tests.scripted import Scripted, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


@asynccontextmanager
async def connected(address: str, **headers: str) -> AsyncIterator[ClientConnection]:
    url = f"{address.replace('http', 'ws')}/v1/responses"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        yield socket


async def turn(socket: ClientConnection, **fields: Any) -> list[Any]:
    """The events of one response, to the one that ends it."""
    await socket.send(json.dumps({"type": "response.create", "store": False, **fields}))
    return await events(socket)


async def events(socket: ClientConnection) -> list[Any]:
    seen = [json.loads(await socket.recv())]
    while seen[-1]["type"] not in ENDS:
        seen.append(json.loads(await socket.recv()))
    return seen


def said(upstream: FakeUpstream) -> list[tuple[str, Any]]:
    """What the upstream was told last."""
    return [(message["role"], message["content"]) for message in upstream.requests[-1].json["messages"]]


async def test_a_response_is_told_in_events(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply("Hel", "lo")
    async with relaying(upstream, tmp_path) as caller, connected(caller.address) as socket:
        seen = await turn(socket, model="Fake/m", input="hi")
        async with httpx.AsyncClient() as client:
            body = {"model": "Fake/m", "input": "hi", "store": False, "stream": True}
            streamed = (await client.post(f"{caller.address}/v1/responses", json=body)).text
    over_http = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    assert [event["type"] for event in seen] == [event["type"] for event in over_http]
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"


async def test_responses_follow_one_after_the_other(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply("first")
    upstream.reply("second")
    key = {"idempotency-key": "k"}
    async with relaying(upstream, tmp_path) as caller, connected(caller.address, **key) as socket:
        for text in ("1", "2"):
            asked = {"type": "response.create", "store": False, "model": "Fake/m", "input": text}
            await socket.send(json.dumps(asked))
        ends = [(await events(socket))[-1]["response"] for _ in range(2)]
    assert [end["output"][0]["content"][0]["text"] for end in ends] == ["first", "second"]
    assert said(upstream) == [("user", "2")]


async def test_a_response_that_is_not_kept_is_followed_on_its_connection(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.reply(calls=[ToolCall("call_1", "look", "{}")])
    upstream.reply("blue")
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}]
    async with relaying(upstream, tmp_path) as caller, connected(caller.address) as socket:
        first = (await turn(socket, model="Fake/m", input="Look", tools=tools))[-1]["response"]
        result = {"type": "function_call_output", "call_id": "call_1", "output": "it is blue"}
        again = await turn(
            socket, model="Fake/m", input=[result], tools=tools, previous_response_id=first["id"]
        )
        second = again[-1]["response"]
        third = await turn(socket, model="Fake/m", input="So?", previous_response_id=second["id"])
        async with httpx.AsyncClient() as client:
            kept = await client.get(f"{caller.address}/v1/responses/{first['id']}")
    assert {event["response"]["previous_response_id"] for event in again if "response" in event} == {
        first["id"]
    }
    assert third[-1]["response"]["previous_response_id"] == second["id"]
    assert said(upstream) == [
        ("user", "Look"),
        ("assistant", None),
        ("tool", "it is blue"),
        ("assistant", "blue"),
        ("user", "So?"),
    ]
    assert kept.status_code == 404


async def test_what_comes_before_a_question_may_be_sent_ahead(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply("ok")
    async with relaying(upstream, tmp_path) as caller, connected(caller.address) as socket:
        warm = await turn(socket, model="Fake/m", input="The plan is blue", generate=False, store=True)
        assert not upstream.requests
        id = warm[-1]["response"]["id"]
        seen = await turn(socket, model="Fake/m", input="What is it?", generate=True, previous_response_id=id)
        [wrong] = await turn(socket, model="Fake/m", input="hi", generate="no")
        [empty] = await turn(socket, model="Fake/m", generate=False)
    assert [event["type"] for event in warm] == ["response.created", "response.completed"]
    assert warm[-1]["response"]["output"] == []
    assert seen[-1]["response"]["previous_response_id"] == id
    assert said(upstream) == [("user", "The plan is blue"), ("user", "What is it?")]
    assert (wrong["error"]["param"], empty["error"]["param"]) == ("generate", "input")


async def test_a_response_that_is_kept_is_followed_from_any_connection(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.reply("ok")
    async with relaying(upstream, tmp_path) as caller:
        async with connected(caller.address) as socket:
            first = (await turn(socket, model="Fake/m", input="I am Heiner", store=True))[-1]["response"]
        async with connected(caller.address) as socket:
            await turn(socket, model="Fake/m", input="Who?", store=True, previous_response_id=first["id"])
    assert said(upstream) == [("user", "I am Heiner"), ("assistant", "ok"), ("user", "Who?")]


async def test_what_was_not_kept_is_not_found_on_another_connection(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.reply("ok")
    async with relaying(upstream, tmp_path) as caller:
        async with connected(caller.address) as socket:
            first = (await turn(socket, model="Fake/m", input="copper"))[-1]["response"]
        async with connected(caller.address) as socket:
            [error] = await turn(socket, model="Fake/m", input="go on", previous_response_id=first["id"])
            recovered = await turn(socket, model="Fake/m", input="once more")
    assert (error["type"], error["error"]["code"]) == ("error", "previous_response_not_found")
    assert 400 <= error["status"] < 500
    assert recovered[-1]["type"] == "response.completed"
    assert len(upstream.requests) == 2


async def test_a_response_that_never_was_is_not_found(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with relaying(upstream, tmp_path) as caller, connected(caller.address) as socket:
        for id in ("resp_openresponses_missing_1", "resp_00", "else"):
            [error] = await turn(socket, model="Fake/m", input="hi", previous_response_id=id)
            assert error["error"]["code"] == "previous_response_not_found"
            assert error["error"]["param"] == "previous_response_id"


async def test_a_response_that_could_not_be_followed_is_forgotten(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.reply("ok")
    async with relaying(upstream, tmp_path) as caller, connected(caller.address) as socket:
        first = (await turn(socket, model="Fake/m", input="ember"))[-1]["response"]
        stranger = {"type": "function_call_output", "call_id": "call_missing", "output": "?"}
        [failed] = await turn(socket, model="Fake/m", input=[stranger], previous_response_id=first["id"])
        [again] = await turn(socket, model="Fake/m", input="stale", previous_response_id=first["id"])
    assert (failed["status"], failed["error"]["param"]) == (400, "input")
    assert again["error"]["code"] == "previous_response_not_found"
    assert len(upstream.requests) == 1


async def test_a_conversation_that_was_compacted_goes_on(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply("The word is slate.")
    upstream.reply("compacted")
    input = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Remember slate."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "OK."}]},
    ]
    async with relaying(upstream, tmp_path) as caller, connected(caller.address) as socket:
        async with httpx.AsyncClient() as client:
            body = {"model": "Fake/m", "input": input}
            compacted = (await client.post(f"{caller.address}/v1/responses/compact", json=body)).json()
        go_on = {"type": "message", "role": "user", "content": "Continue."}
        seen = await turn(socket, model="Fake/m", input=[*compacted["output"], go_on], tools=[])
    assert seen[-1]["type"] == "response.completed"
    assert said(upstream) == [
        ("user", "Remember slate."),
        ("user", "What was said before, summed up:\nThe word is slate."),
        ("user", "Continue."),
    ]


async def test_a_response_that_fails_on_its_way_ends_once(tmp_path: Path) -> None:
    local = Scripted("Local", [TextDelta(text="half"), UpstreamOverloaded("too many")], says("ok"))
    async with serving(gateway_of([local], tmp_path)) as address, connected(address) as socket:
        failed = await turn(socket, input="1")
        following = await turn(socket, input="2")
    assert failed[-1]["type"] == "response.failed"
    assert "too many" in failed[-1]["response"]["error"]["message"]
    assert following[0]["type"] == "response.created"
    assert following[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"type": "response.in_progress", "response": {"id": "resp_1"}}, "upstream_truncated"),
        ({"type": "error", "error": {"code": "overloaded", "message": "too many"}}, "overloaded"),
    ],
)
async def test_a_reply_that_only_breaks_off_ends_too(event: dict[str, Any], code: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: " + json.dumps(event).encode() + b"\n\n"})

    sent: list[Any] = []
    asked = [{"type": "websocket.receive", "text": '{"type": "response.create", "input": "hi"}'}]
    is_told = asyncio.Event()

    async def receive() -> Any:
        if asked:
            return asked.pop()
        await is_told.wait()
        return {"type": "websocket.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if "error" in message.get("text", ""):
            is_told.set()

    scope: Any = {"type": "websocket", "path": "/v1/responses", "headers": []}
    await Socket(app, scope, receive, send).run()
    end = json.loads(sent[-1]["text"])
    assert (end["type"], end["error"]["code"]) == ("error", code)
    assert end["status"] >= 500


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("{", None),
        ("[]", None),
        ('{"type": "response.cancel"}', "type"),
        ('{"type": "response.create", "input": "hi", "background": true}', "background"),
        ('{"type": "response.create", "model": "", "input": 3}', "input"),
        ('{"type": "response.create", "model": "nobody/none", "input": "hi"}', "model"),
    ],
)
async def test_what_cannot_be_done_is_an_error_and_the_connection_stays(
    tmp_path: Path, message: str, param: str | None
) -> None:
    gateway = gateway_of([Scripted("Local", says("ok"))], tmp_path)
    async with serving(gateway) as address, connected(address) as socket:
        await socket.send(message)
        [error] = await events(socket)
        assert (await turn(socket, input="hi"))[-1]["type"] == "response.completed"
    assert error["status"] in (400, 404)
    assert error["error"]["message"]
    assert error["error"]["param"] == param


async def test_a_client_that_leaves_ends_the_call_upstream(upstream: FakeUpstream, tmp_path: Path) -> None:
    never = asyncio.Event()
    upstream.reply("Hel", never, "lo")
    async with relaying(upstream, tmp_path) as caller:
        async with connected(caller.address) as socket:
            await socket.send(json.dumps({"type": "response.create", "model": "Fake/m", "input": "hi"}))
            while json.loads(await socket.recv())["type"] != "response.output_text.delta":
                pass
        async with asyncio.timeout(10):
            await upstream.hung_up.wait()


async def test_whoever_has_no_key_or_comes_from_elsewhere_is_refused_over_http(tmp_path: Path) -> None:
    gateway = gateway_of([Scripted("Local", says("ok"))], tmp_path)
    async with serving(gateway, Auth({"ann": hash_key("mw-ann")})) as address:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer mw-eve"}, 401),
            ({"authorization": "Bearer mw-ann", "origin": "https://evil.example"}, 403),
        ):
            with pytest.raises(InvalidStatus) as refused:
                async with connected(address, **headers):
                    pass
            assert refused.value.response.status_code == status
            assert json.loads(refused.value.response.body or b"")["error"]["message"]
        async with connected(address, authorization="Bearer mw-ann") as socket:
            assert (await turn(socket, input="hi"))[-1]["type"] == "response.completed"


async def test_a_request_that_merely_offers_a_socket_is_answered(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.reply("Hello")
    offer = {"connection": "upgrade", "upgrade": "websocket"}
    async with relaying(upstream, tmp_path) as caller, httpx.AsyncClient(headers=offer) as client:
        body = {"model": "Fake/m", "input": "hi"}
        reply = await client.post(f"{caller.address}/v1/responses", json=body)
        nonsense = await client.get(f"{caller.address}/v1/responses")
    assert reply.json()["output"][0]["content"][0]["text"] == "Hello"
    assert nonsense.status_code == 400


async def test_other_addresses_have_no_sockets(tmp_path: Path) -> None:
    gateway = gateway_of([Scripted("Local")], tmp_path)
    async with serving(gateway) as address:
        with pytest.raises(InvalidStatus):
            async with connect(f"{address.replace('http', 'ws')}/v1/models", proxy=None):
                pass


async def test_a_message_that_is_too_large_ends_the_connection(tmp_path: Path) -> None:
    gateway = gateway_of([Scripted("Local")], tmp_path)
    settings = ServerSettings(port=0, max_body_bytes=10_000)
    async with serving(gateway, settings=settings) as address, connected(address) as socket:
        await socket.send(json.dumps({"type": "response.create", "input": "x" * 20_000}))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_a_server_that_ends_lets_the_response_end_first(upstream: FakeUpstream, tmp_path: Path) -> None:
    go = asyncio.Event()
    upstream.reply("Hel", go, "lo")
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(relaying(upstream, tmp_path))
        async with connected(caller.address) as busy, connected(caller.address) as idle:
            await busy.send(json.dumps({"type": "response.create", "model": "Fake/m", "input": "hi"}))
            while json.loads(await busy.recv())["type"] != "response.output_text.delta":
                pass
            ending = asyncio.create_task(stack.pop_all().aclose())
            with pytest.raises(ConnectionClosed) as first:
                await idle.recv()
            go.set()
            assert (await events(busy))[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"
            with pytest.raises(ConnectionClosed) as last:
                await busy.recv()
            await ending
    assert [closed.value.rcvd and closed.value.rcvd.code for closed in (first, last)] == [1001, 1001]

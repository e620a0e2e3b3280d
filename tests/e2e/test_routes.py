"""Routes over HTTP: what is told of them, and who was asked."""

import asyncio
import json
import logging
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.client import AsyncClient
from modelway.config import CandidateLimits, RouteSettings, Settings, UpstreamSettings
from modelway.errors import UpstreamFailed, UpstreamProtocolError
from modelway.providers.http import HTTPClient
from modelway.types import Event, TextDelta
from tests.e2e.test_chat_completions import Caller, asking, calling
from tests.polling import until
from tests.scripted import Scripted, says
from tests.serving import gateway_of, serving

DOWN = UpstreamFailed("500", retry_after=60)


def settings(**fields: Any) -> Settings:
    fields = {"candidates": ("One", "Two"), **fields}
    return Settings(provider="One", routes={"best": RouteSettings(**fields)})


async def metrics_of(caller: Caller) -> str:
    async with (
        aclosing(HTTPClient(UpstreamSettings())) as http,
        aclosing(await http.request("GET", f"{caller.address}/metrics", headers={})) as response,
    ):
        return (await response.body()).decode()


@pytest.mark.anyio
async def test_every_reply_tells_who_was_asked(tmp_path: Path) -> None:
    one, two = Scripted("One", [DOWN]), Scripted("Two", says("hi"), says("hi"), [DOWN])
    async with calling(gateway_of([one, two], tmp_path, settings())) as caller:
        for stream in (False, True):
            response = await caller.post(asking(model="best", stream=stream))
            async with aclosing(response):
                await response.body()
            [first, second] = [
                part.split(";") for part in response.headers["x-modelway-attempts"].split(", ")
            ]
            assert (first[:2], second[:2]) == (["One", "upstream_error"], ["Two", "ok"])
            assert float(second[2]) >= 0
        response = await caller.post(asking(model="best"))
        async with aclosing(response):
            await response.body()
        assert response.status == 502
        assert response.headers["x-modelway-attempts"].count("upstream_error") == 2
        unasked = await caller.post({"messages": []})
        async with aclosing(unasked):
            await unasked.body()
        assert "x-modelway-attempts" not in unasked.headers


@pytest.mark.anyio
async def test_the_health_of_providers_is_told(tmp_path: Path) -> None:
    one, two = Scripted("One", [DOWN]), Scripted("Two")
    async with calling(gateway_of([one, two], tmp_path, settings())) as caller:
        _, told = await caller.get("/v1/providers/One")
        assert told["health"] == "ok"
        assert "breakers" not in told
        for _ in range(5):
            await caller.error(asking(provider="One"))
        assert 'modelway_models_left_alone{provider="One"} 1\n' in await metrics_of(caller)
        status, told = await caller.get("/v1/providers/One")
        [breaker] = told["breakers"]
        assert (status, told["health"]) == (200, "unavailable")
        assert (breaker["model"], breaker["state"], breaker["failures"]) == ("one-1", "open", 5)
        assert 50 < breaker["retry_after_s"] <= 60
        response = await caller.post(asking(provider="One"))
        async with aclosing(response):
            error = json.loads(await response.body())["error"]
        assert (response.status, error["code"]) == (503, "provider_unavailable")
        assert 50 < int(response.headers["retry-after"]) <= 60
        assert "x-should-retry" not in response.headers
        _, listed = await caller.get("/v1/providers")
        assert {one["name"]: one["health"] for one in listed["data"]} == {"One": "unavailable", "Two": "ok"}


@pytest.mark.anyio
async def test_a_route_is_explained(tmp_path: Path) -> None:
    one, two = Scripted("One", [DOWN]), Scripted("Two")
    three = Scripted("Three", ready=False, missing="set THREE_KEY", needs_auth=True)
    chosen = settings(
        candidates=("One", "Two/x", "Three"),
        weights=(2.0, 1.0, 1.0),
        limits={"Two/x": CandidateLimits(idle_timeout_s=3)},
        on_break="continue",
        shadow="Two/y",
        shadow_share=0.5,
    )
    async with calling(gateway_of([one, two, three], tmp_path, chosen)) as caller:
        _, told = await caller.get("/v1/routes/best")
        assert (told["shadow"], told["shadow_share"]) == ("Two/y", 0.5)
        assert [one["verdict"] for one in told["candidates"]] == ["first", "next", "skipped"]
        assert [one["share"] for one in told["candidates"]] == [0.5, 0.25, 0.25]
        assert told["candidates"][1]["limits"]["idle_s"] == 3
        assert told["candidates"][2]["why"] == "set THREE_KEY"
        assert (told["is_route"], told["weighted"], told["on_break"]) == (True, True, "continue")
        for _ in range(5):
            await caller.error(asking(provider="One"))
        _, listed = await caller.get("/v1/routes")
        [again] = listed["data"]
        assert [one["verdict"] for one in again["candidates"]] == ["skipped", "first", "skipped"]
        assert "5 times in a row" in again["candidates"][0]["why"]
        _, other = await caller.get("/v1/routes/Two/y")
        assert (other["is_route"], other["candidates"][0]["model"]) == (False, "y")
        status, error = await caller.get("/v1/routes/nobody")
        assert (status, error["error"]["code"]) == (404, "model_not_found")


@pytest.mark.anyio
async def test_a_shadow_sees_the_question_and_nobody_its_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "modelway.shadow")
    gate = asyncio.Event()
    one, two = Scripted("One", says("real")), Scripted("Two", [gate, *says("sha", "dow")])
    chosen = settings(candidates=("One",), shadow="Two")
    async with aclosing(gateway_of([one, two], tmp_path, chosen)) as gateway, calling(gateway) as caller:
        body = asking(model="best", conversation_id="c")
        response = await caller.post(body)
        async with aclosing(response):
            answer = json.loads(await response.body())
        assert answer["choices"][0]["message"]["content"] == "real"
        gate.set()
        await until(lambda: caplog.records)
        _, shown = await caller.get("/v1/conversations/c")
    assert [message["content"] for message in shown["messages"]] == ["hi", "real"]
    record = json.loads(caplog.messages[0])
    assert (record["route"], record["provider"], record["characters"]) == ("best", "Two", 6)
    assert "shadow" not in caplog.messages[0].replace("modelway.shadow", "")
    [asked] = two.requests
    assert (asked.dialect, asked.conversation_id, asked.turn_id) == ("openai_chat", "", "")
    assert [message.text for message in asked.messages] == ["hi"]


@pytest.mark.anyio
@pytest.mark.parametrize("failure", [DOWN, ValueError("a bug")], ids=["upstream", "bug"])
async def test_a_shadow_that_fails_harms_nobody(
    tmp_path: Path, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Scripted):
        async def stream(self, request: Any) -> Any:
            nothing: tuple[Event, ...] = ()
            for event in nothing:
                yield event
            raise failure

    caplog.set_level(logging.INFO, "modelway.shadow")
    chosen = settings(candidates=("One",), shadow="Two")
    async with calling(
        gateway_of([Scripted("One", says("real")), Broken("Two")], tmp_path, chosen)
    ) as caller:
        response = await caller.post(asking(model="best"))
        async with aclosing(response):
            assert response.status == 200
            await response.body()
        await until(lambda: caplog.records)


@pytest.mark.anyio
async def test_a_shadow_under_way_ends_with_the_gateway_and_has_its_share(tmp_path: Path) -> None:
    one, two = Scripted("One", says("real")), Scripted("Two", [asyncio.Event()])
    chosen = settings(candidates=("One",), shadow="Two", shadow_share=1e-9)
    async with calling(gateway_of([one, two], tmp_path, chosen)) as caller:
        for _ in range(5):
            await caller.chunks(asking(model="best"))
    assert two.requests == []
    chosen = settings(candidates=("One",), shadow="Two")
    async with calling(gateway_of([one, two], tmp_path, chosen)) as caller:
        for _ in range(20):
            await caller.chunks(asking(model="best"))
        assert len(two.requests) == 16
    assert two.closed == 16


@pytest.mark.anyio
async def test_an_error_inside_a_stream_reaches_the_python_client_with_its_words(tmp_path: Path) -> None:
    cut = UpstreamProtocolError("One cut the answer off", code="upstream_reset")
    one = Scripted("One", [TextDelta(text="half"), cut])
    async with serving(gateway_of([one], tmp_path)) as address, AsyncClient(address) as client:
        reply = client.chat("hi")
        with pytest.raises(UpstreamProtocolError, match="One cut the answer off") as caught:
            await reply
    assert caught.value.code == "upstream_reset"
    assert reply.trail.startswith("One;ok;")

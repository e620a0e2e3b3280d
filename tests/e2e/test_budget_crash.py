"""What was spent before a server was killed is spent."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.config import ConversationSettings, UpstreamSettings
from modelway.conversations import Conversations
from modelway.prices import NANOS
from modelway.providers.http import HTTPClient
from modelway.testing.fake_upstream import USAGE, FakeUpstream
from modelway.types import Rules
from tests.e2e.running import Running
from tests.e2e.test_chat_completions import Caller
from tests.e2e.test_keys import ask

pytestmark = pytest.mark.anyio

# Ten dollars for a million tokens.
TOKEN = 10_000
SPENT = (USAGE.input_tokens + USAGE.output_tokens) * TOKEN


def running(folder: Path, upstream: FakeUpstream, on_crash: str = "interrupt") -> Running:
    config = f"""
        provider = "Recorder"
        [conversations]
        on_crash = "{on_crash}"
        [providers.Recorder]
        base_url = "{upstream.url}"
        default_model = "recorded"
        [prices."Recorder/*"]
        input = 10.0
        output = 10.0
    """
    return Running(folder, config=config)


async def key_of(folder: Path, rules: Rules) -> str:
    store = Conversations.open(folder / "conversations.sqlite3", ConversationSettings())
    secret, _ = await store.callers.create("alice", rules)
    await store.aclose()
    return secret


def asking(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Tell me"}], "conversation_id": "talk", **fields}


async def test_an_acknowledged_answer_is_charged_though_the_server_is_killed_at_once(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    key = await key_of(tmp_path, Rules(daily_budget=3 * SPENT))
    upstream.reply("hello")
    with running(tmp_path, upstream) as server:
        for count in range(1, 4):
            assert (await ask(server.address, "POST", "/v1/chat/completions", key, asking())).status == 200
            server.kill()
            server.start()
            usage = (await ask(server.address, "GET", "/v1/usage", key)).json
            assert usage["cost"] == pytest.approx(count * SPENT / NANOS)
            assert usage["data"][0]["estimated"] == 0
        refused = await ask(server.address, "POST", "/v1/chat/completions", key, asking())
    assert refused.json["error"]["code"] == "insufficient_quota"
    assert len(upstream.requests) == 3


async def test_the_part_of_an_answer_that_a_kill_cut_off_is_charged(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    key = await key_of(tmp_path, Rules())
    upstream.reply("x" * 400, asyncio.Event(), "never")
    with running(tmp_path, upstream) as server:
        async with aclosing(HTTPClient(UpstreamSettings())) as http:
            caller = Caller(server.address, http)
            response = await caller.post(asking(stream=True), authorization=f"Bearer {key}")
            async with aclosing(response):
                await until_checkpointed(caller, key)
                server.kill()
        server.start()
        (line,) = (await ask(server.address, "GET", "/v1/usage", key)).json["data"]
        (turn,) = (await ask(server.address, "GET", "/v1/conversations/talk", key)).json["turns"]
    assert (line["estimated"], line["output_tokens"], line["input_tokens"]) == (1, 100, 6)
    assert line["cost"] == turn["cost"] == 106 * TOKEN / NANOS
    assert (turn["status"], turn["provider"], turn["model"]) == ("interrupted", "Recorder", "recorded")


async def cut_off(server: Running, caller: Caller, key: str) -> None:
    """Kill a server in the middle of an answer, and start it again."""
    response = await caller.post(asking(stream=True), authorization=f"Bearer {key}")
    async with aclosing(response):
        await until_checkpointed(caller, key)
        server.kill()
    server.start()


@pytest.mark.parametrize("crashes", [1, 2])
async def test_each_part_of_an_answer_that_is_gone_on_with_is_charged_once(
    tmp_path: Path, upstream: FakeUpstream, crashes: int
) -> None:
    key = await key_of(tmp_path, Rules())
    upstream.reply("x" * 400, asyncio.Event())
    if crashes == 2:
        upstream.reply("y" * 40, asyncio.Event())
    upstream.reply("the end")
    with running(tmp_path, upstream, "continue") as server:
        async with aclosing(HTTPClient(UpstreamSettings())) as http:
            caller = Caller(server.address, http)
            await cut_off(server, caller, key)
            path, own = "/v1/conversations/talk/stream", {"authorization": f"Bearer {key}"}
            if crashes == 2:
                async with aclosing(
                    await http.request("GET", server.address + path, headers=own)
                ) as response:
                    told = b""
                    while b"y" * 40 not in told:
                        told += await response.read()
                    server.kill()
                server.start()
            assert b"the end" in (await ask(server.address, "GET", path, key)).body
        usage = (await ask(server.address, "GET", "/v1/usage", key)).json
        (turn,) = (await ask(server.address, "GET", "/v1/conversations/talk", key)).json["turns"]
    parts = [106, 10 + 6][:crashes]
    assert turn["status"] == "done"
    assert usage["cost"] == pytest.approx((sum(parts) * TOKEN + SPENT) / NANOS)
    assert turn["cost"] == pytest.approx(usage["cost"])
    assert [line["requests"] for line in usage["data"]] == [crashes + 1]


async def test_nobody_goes_on_with_an_answer_whose_caller_has_spent_all(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    key = await key_of(tmp_path, Rules(daily_budget=100 * TOKEN))
    upstream.reply("x" * 400, asyncio.Event())
    with running(tmp_path, upstream, "continue") as server:
        async with aclosing(HTTPClient(UpstreamSettings())) as http:
            await cut_off(server, Caller(server.address, http), key)
        told = (await ask(server.address, "GET", "/v1/conversations/talk/stream", key)).body
        (turn,) = (await ask(server.address, "GET", "/v1/conversations/talk", key)).json["turns"]
    assert b'"code":"insufficient_quota"' in told
    assert (turn["status"], turn["cost"]) == ("interrupted", 106 * TOKEN / NANOS)
    assert len(upstream.requests) == 1


async def test_nobody_goes_on_with_an_answer_by_what_its_caller_may_not_ask(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    key = await key_of(tmp_path, Rules())
    upstream.reply("x" * 400, asyncio.Event())
    with running(tmp_path, upstream, "continue") as server:
        async with aclosing(HTTPClient(UpstreamSettings())) as http:
            caller = Caller(server.address, http)
            response = await caller.post(asking(stream=True), authorization=f"Bearer {key}")
            async with aclosing(response):
                await until_checkpointed(caller, key)
                server.kill()
        store = Conversations.open(
            tmp_path / "conversations.sqlite3", ConversationSettings(on_crash="continue")
        )
        await store.callers.change("alice", Rules(providers=("Local",)), expires_at=None)
        await store.aclose()
        server.start()
        told = (await ask(server.address, "GET", "/v1/conversations/talk/stream", key)).body
    assert b'"code":"permission_denied"' in told
    assert len(upstream.requests) == 1


async def until_checkpointed(caller: Caller, key: str) -> None:
    async with asyncio.timeout(5):
        while "xxx" not in json.dumps(
            (await caller.get("/v1/conversations/talk", authorization=f"Bearer {key}"))[1]
        ):
            await asyncio.sleep(0.02)

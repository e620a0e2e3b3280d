"""What was spent before a server was killed is spent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
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


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake


def running(folder: Path, upstream: FakeUpstream) -> Running:
    config = f"""
        provider = "Recorder"
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


async def until_checkpointed(caller: Caller, key: str) -> None:
    async with asyncio.timeout(5):
        while "xxx" not in json.dumps(
            (await caller.get("/v1/conversations/talk", authorization=f"Bearer {key}"))[1]
        ):
            await asyncio.sleep(0.02)

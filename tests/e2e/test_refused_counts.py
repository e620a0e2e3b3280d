"""A chat that is refused where no task has been begun for it is counted once, and is running no more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from modelway.prices import NANOS
from modelway.types import Rules
from tests.conversations.talk import asking
from tests.e2e.test_relay_charges import stage
from tests.polling import until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
RULES = Rules(requests_per_minute=1000, streams=2, daily_budget=NANOS)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"messages": HI, "conversation_id": "no id"}, 400),
        ({"messages": HI, "conversation_id": "x" * 129}, 400),
        ({"messages": [{"role": "tool", "tool_call_id": "", "content": "x"}]}, 400),
        ({"messages": HI, "conversation_id": "c", "store": False}, 200),
    ],
    ids=["name", "length", "result", "kept"],
)
async def test_a_refused_chat_is_counted_once_and_over(
    tmp_path: Path, fields: dict[str, Any], status: int
) -> None:
    async with stage(tmp_path, RULES) as at:
        at.upstream.reply("hello")
        # From the first one on the server has its share of the limits, and asks nobody.
        assert (await at.post(CHAT, messages=HI)).status == 200
        for _ in range(3):
            assert (await at.post(CHAT, **fields)).status == status
        assert [(await at.post(CHAT, messages=HI)).status for _ in range(2)] == [200, 200]
        account = at.gateway.accounts._accounts["a"]
        assert (account.running, account.reserved) == (0, 0)
        assert account._requests.total <= 6


async def test_a_chat_that_waits_for_another_is_counted_once(tmp_path: Path) -> None:
    async with stage(tmp_path, RULES) as at:
        at.upstream.reply("hello")
        assert (await at.post(CHAT, messages=HI)).status == 200
        accounts = at.gateway.accounts._accounts
        turn = await at.gateway.conversations.open_turn("a", asking("c", "first"))
        waiting = asyncio.create_task(at.post(CHAT, messages=HI, conversation_id="c"))
        await until(lambda: accounts["a"].running)
        await turn.finish("Fake", "m")
        assert (await waiting).status == 200
        assert (accounts["a"].running, accounts["a"]._requests.total) == (0, 2)

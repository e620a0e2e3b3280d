"""Conversations that are summed up: what stays, what stands for the rest, and how that is gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import Finish, TextDelta, Usage
from tests.e2e.test_relay import relaying
from tests.scripted import Scripted, Step, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

LAUNCH: list[Any] = [
    {
        "type": "message",
        "role": "user",
        "content": "We agreed to launch on Tuesday and notify support first.",
    },
    {"type": "message", "role": "assistant", "content": "Understood. The launch is Tuesday."},
]


async def post(address: str, path: str, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(address + path, json=body)


async def get(address: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(address)


async def test_the_model_sums_up_and_the_user_s_own_words_stay(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.reply("Launch on Tuesday, ", "support first.")
    async with relaying(upstream, tmp_path) as caller:
        reply = await post(
            caller.address,
            "/v1/responses/compact",
            model="Fake/m",
            input=LAUNCH,
            instructions="You are a planner",
            prompt_cache_key="openresponses-compact-test",
        )
    assert reply.status_code == 200, reply.text
    compacted = reply.json()
    message, item = compacted["output"]
    assert compacted["object"] == "response.compaction"
    assert compacted["usage"]["total_tokens"] == 10
    assert (message["role"], message["content"][0]["text"]) == ("user", LAUNCH[0]["content"])
    assert item["type"] == "compaction"
    assert "Tuesday" not in item["encrypted_content"]
    assert reply.headers["x-modelway-model"] == "m"
    sent = upstream.requests[0].json["messages"]
    assert [one["role"] for one in sent] == ["system", "user", "assistant", "user"]
    assert sent[0]["content"] == "You are a planner"
    assert sent[-1]["content"].startswith("Sum up")


async def test_what_a_response_followed_is_summed_up_too(tmp_path: Path) -> None:
    local = Scripted("Local", says("ok"), says("Heiner"), says("You are Heiner"))
    async with serving(gateway_of([local], tmp_path)) as address:
        first = (await post(address, "/v1/responses", input="I am Heiner")).json()
        compacted = await post(address, "/v1/responses/compact", model="", previous_response_id=first["id"])
        input = [*compacted.json()["output"], {"role": "user", "content": "Who am I?"}]
        again = await post(address, "/v1/responses", input=input)
        items = await get(f"{address}/v1/responses/{again.json()['id']}/input_items")
    assert [message.text for message in local.requests[1].messages][:2] == ["I am Heiner", "ok"]
    assert [message.text for message in local.requests[2].messages] == [
        "What was said before, summed up:\nHeiner",
        "Who am I?",
    ]
    assert items.status_code == 200


async def test_a_summary_is_summed_up_again(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply("one")
    upstream.reply("one and two")
    async with relaying(upstream, tmp_path) as caller:
        path = "/v1/responses/compact"
        first = (await post(caller.address, path, model="Fake/m", input="1")).json()["output"]
        second = (await post(caller.address, path, model="Fake/m", input=[*first, LAUNCH[1]])).json()[
            "output"
        ]
    assert [item["type"] for item in second] == ["message", "compaction"]
    assert "summed up:\none" in upstream.requests[1].json["messages"][1]["content"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": LAUNCH}, "model"),
        ({"model": "Fake/m"}, "input"),
        ({"model": "Fake/m", "input": 3}, "input"),
        ({"model": "Fake/m", "input": LAUNCH, "tools": []}, "tools"),
        ({"model": "Fake/m", "input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"model": "nobody/none", "input": LAUNCH}, "model"),
        ({"model": "Fake/m", "input": LAUNCH, "previous_response_id": "x"}, "previous_response_id"),
    ],
)
async def test_what_cannot_be_summed_up_is_refused_by_its_name(
    upstream: FakeUpstream, tmp_path: Path, body: dict[str, Any], param: str
) -> None:
    async with relaying(upstream, tmp_path) as caller:
        reply = await post(caller.address, "/v1/responses/compact", **body)
    assert reply.status_code in (400, 404)
    assert reply.json()["error"]["param"] == param
    assert not upstream.requests


@pytest.mark.parametrize("content", ["gAAAA", "mw1_", "mw1_!", "mw1_AAAA", "é"])
async def test_a_summary_of_somebody_else_is_refused(
    upstream: FakeUpstream, tmp_path: Path, content: str
) -> None:
    async with relaying(upstream, tmp_path) as caller:
        item = {"type": "compaction", "id": "cmp_1", "encrypted_content": content}
        reply = await post(caller.address, "/v1/responses", model="Fake/m", input=[item])
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "input[0].encrypted_content"


async def test_a_summary_that_was_cut_off_says_so_and_an_empty_one_is_an_error(tmp_path: Path) -> None:
    cut: list[Step] = [TextDelta(text="Launch on"), Finish(reasons=("length",), usage=Usage(1, 1))]
    local = Scripted("Local", cut, [Finish(usage=Usage(1, 0))], says("ok"))
    async with serving(gateway_of([local], tmp_path)) as address:
        path = "/v1/responses/compact"
        first = (await post(address, path, model="", input=LAUNCH)).json()["output"]
        empty = await post(address, path, model="", input=LAUNCH)
        await post(address, "/v1/responses", input=[first[-1], LAUNCH[0]])
    assert empty.status_code == 502
    assert "cut off" in local.requests[-1].messages[0].text

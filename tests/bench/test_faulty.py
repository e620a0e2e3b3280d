"""The upstream that fails on demand: how it is told, and what it remembers."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from modelway.bench.faults import FAULTS, TEXT
from modelway.bench.faulty import MAX_HEARD, FaultyUpstream
from modelway.config import UpstreamSettings
from modelway.errors import UpstreamUnreachable
from modelway.providers.http import HTTPClient

pytestmark = pytest.mark.anyio


@pytest.fixture
async def upstream() -> AsyncIterator[FaultyUpstream]:
    async with FaultyUpstream() as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[HTTPClient]:
    async with aclosing(HTTPClient(UpstreamSettings())) as made:
        yield made


async def post(http: HTTPClient, base_url: str, **headers: str) -> tuple[int, Any]:
    sent = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    response = await http.request("POST", f"{base_url}/chat/completions", headers=sent, body=b"{}")
    async with aclosing(response):
        return response.status, json.loads(await response.body())


async def get(http: HTTPClient, url: str) -> Any:
    async with aclosing(await http.request("GET", url, headers={})) as response:
        return json.loads(await response.body())


async def test_without_a_fault_it_answers(upstream: FaultyUpstream, http: HTTPClient) -> None:
    status, answer = await post(http, upstream.url())
    assert (status, answer["choices"][0]["message"]["content"]) == (200, TEXT)
    assert (await get(http, upstream.url("status:500") + "/models"))["data"][0]["id"] == "faulty"


async def test_faults_follow_each_other_and_the_last_one_stays(
    upstream: FaultyUpstream, http: HTTPClient
) -> None:
    url = upstream.url("status:503+status:529+ok")
    assert [(await post(http, url))[0] for _ in range(4)] == [503, 529, 200, 200]
    upstream.forget()
    assert (await post(http, url))[0] == 503
    assert [one.fault for one in upstream.heard] == ["status:503"]


async def test_a_header_goes_before_the_address(upstream: FaultyUpstream, http: HTTPClient) -> None:
    assert (await post(http, upstream.url(), x_fault="status:418"))[0] == 418


async def test_an_unknown_fault_is_told(upstream: FaultyUpstream, http: HTTPClient) -> None:
    status, answer = await post(http, upstream.url("explode"))
    assert status == 404
    assert all(name in answer["error"]["message"] for name in FAULTS)


async def test_what_came_is_told_without_the_keys(upstream: FaultyUpstream, http: HTTPClient) -> None:
    await post(http, upstream.url(), authorization="Bearer sk-0123456789", x_own="1")
    [heard] = await get(http, f"http://127.0.0.1:{upstream.port}/heard")
    assert (heard["fault"], heard["key"], heard["headers"]["x-own"]) == ("ok", "…6789", "1")
    assert "0123456789" not in json.dumps(heard)
    assert upstream.heard_by("ok")[0].key == "sk-0123456789"


async def test_it_forgets_what_is_long_past(upstream: FaultyUpstream) -> None:
    assert upstream.heard.maxlen == MAX_HEARD


async def test_nobody_listens_at_the_other_address(upstream: FaultyUpstream, http: HTTPClient) -> None:
    with pytest.raises(UpstreamUnreachable):
        await post(http, upstream.refused_url)

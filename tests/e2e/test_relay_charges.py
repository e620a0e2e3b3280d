"""What callers pay for replies that are passed on: as upstreams tell it, else as much as came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from modelway.auth import Auth
from modelway.config import PriceSettings, ProviderSettings, Settings, UpstreamSettings
from modelway.gateway import Gateway
from modelway.prices import NANOS, Prices
from modelway.provider import Provider
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import build_provider
from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import Rules
from tests.e2e.test_keys import Reply, ask
from tests.polling import until
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
PIECE = b'data: {"choices":[{"text":"%b"}]}\n\n' % (b"y" * 20)
ASKED = {"provider": "Fake", "model": "m"}


class Stage(Struct):
    """A server before a fake upstream, and the key of a caller with rules."""

    address: str
    gateway: Gateway
    key: str
    upstream: FakeUpstream
    http: HTTPClient

    async def post(self, path: str, **fields: Any) -> Reply:
        return await ask(self.address, "POST", path, self.key, {**ASKED, **fields})

    async def spent(self) -> dict[str, Any]:
        """The only line of the caller's spending, as soon as it is there."""
        while True:
            reply = await ask(self.address, "GET", "/v1/usage", self.key)
            if lines := reply.json["data"]:
                (line,) = lines
                return dict(line)


@asynccontextmanager
async def stage(folder: Path, rules: Rules, *others: Provider) -> AsyncIterator[Stage]:
    async with FakeUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        own = ProviderSettings(base_url=upstream.url, supports=("completions",), default_model="m")
        fake = build_provider("Fake", None, own, http, lambda env, file: "upstream-key")
        gateway = gateway_of([fake, *others], folder, Settings(provider="Fake"))
        gateway.accounts.prices = Prices({"*": PriceSettings(input=10.0, output=10.0)})
        key = (await gateway.conversations.callers.create("a", rules))[0]
        async with serving(gateway, Auth({})) as address:
            yield Stage(address, gateway, key, upstream, http)


@pytest.mark.parametrize(
    ("reply", "kind", "written"),
    [
        (PIECE * 10 + b"data: [DONE]\n\n", "text/event-stream", 50),
        (b'{"choices": [{"text": "%b"}]}' % (b"y" * 80), "application/json", 20),
        (b'{"data": [{"embedding": [0.1, 0.2]}]}', "application/json", 0),
    ],
    ids=["events", "whole", "vectors"],
)
async def test_a_reply_that_tells_no_tokens_is_charged_by_its_text(
    tmp_path: Path, reply: bytes, kind: str, written: int
) -> None:
    async with stage(tmp_path, Rules(daily_budget=NANOS)) as at:
        at.upstream.reply_with(reply, kind=kind)
        assert (await at.post("/v1/completions", prompt="x" * 40)).status == 200
        line = await at.spent()
    assert (line["input_tokens"], line["output_tokens"], line["estimated"]) == (10, written, 1)
    assert line["cost"] > 0


async def test_usage_anywhere_in_a_reply_is_believed(tmp_path: Path) -> None:
    told = b'{"usage":{"prompt_tokens":7,"completion_tokens":2},"data":"%b"}' % (b"z" * 20_000)
    async with stage(tmp_path, Rules(daily_budget=NANOS)) as at:
        at.upstream.reply_with(told, kind="application/json")
        await at.post("/v1/completions", prompt="x" * 40)
        line = await at.spent()
    assert (line["input_tokens"], line["output_tokens"], line["estimated"]) == (7, 2, 0)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b'{"usage":{"prompt_tokens":-1000000,"completion_tokens":2}}', "application/json"),
        (b'{"usage":{"total_tokens":-1000000}}', "application/json"),
        (b'{"usage":{"prompt_tokens":1,"completion_tokens":100000000000000000000}}', "application/json"),
        (b'The caller has written "usage": {"prompt_tokens": 1} here.', "text/plain"),
        (b'The caller has written "usage": {"prompt_tokens": -9000000} here.', "application/octet-stream"),
    ],
    ids=["negative", "total", "huge", "text", "file"],
)
async def test_usage_that_cannot_be_is_not_believed(tmp_path: Path, reply: bytes, kind: str) -> None:
    async with stage(tmp_path, Rules(daily_budget=NANOS)) as at:
        at.upstream.reply_with(reply, kind=kind)
        assert (await at.post("/v1/completions", prompt="x" * 40)).status == 200
        line = await at.spent()
        assert (line["input_tokens"], line["estimated"]) == (10, 1)
        assert line["cost"] > 0
        # Whoever fetches a file that it has written itself gets nothing back for it.
        await ask(at.address, "GET", "/v1/files/f/content?provider=Fake", at.key)
        await until(lambda: not at.gateway.accounts._unwritten)
        assert (await at.spent())["cost"] == line["cost"]


@pytest.mark.parametrize("tokens", [-1_000_000, 10**25], ids=["negative", "huge"])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed"])
async def test_vectors_are_charged_by_their_texts_where_the_count_cannot_be(
    tmp_path: Path, tokens: int, path: str
) -> None:
    async with stage(tmp_path, Rules(daily_budget=NANOS)) as at:
        vectors = b'{"data":[{"index":0,"embedding":[0.5]}],"usage":{"prompt_tokens":%d}}' % tokens
        at.upstream.reply_with(vectors, kind="application/json")
        assert (await at.post(path, input="x" * 40)).status == 200
        line = await at.spent()
    assert (line["input_tokens"], line["estimated"]) == (10, 1)


@pytest.mark.parametrize("come", [0, 3])
async def test_whoever_hangs_up_pays_for_what_came(tmp_path: Path, come: int) -> None:
    never = asyncio.Event()
    async with stage(tmp_path, Rules(daily_budget=NANOS)) as at:
        at.upstream.stream(*[PIECE] * come, never)
        body = json.dumps({**ASKED, "prompt": "x" * 40, "stream": True}).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {at.key}"}
        reply = await at.http.request("POST", at.address + "/v1/completions", headers=headers, body=body)
        async with aclosing(reply):
            seen = b""
            while len(seen) < come * len(PIECE):
                seen += await reply.read()
        line = await at.spent()
        never.set()
    assert (line["input_tokens"], line["output_tokens"], line["estimated"]) == (10, 5 * come, 1)
    assert at.gateway.accounts._accounts["a"].running == 0


async def test_a_refusal_of_the_upstream_costs_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path, Rules(tokens_per_minute=100)) as at:
        at.upstream.fail(400, "no")
        assert (await at.post("/v1/moderations", input="x" * 40)).status == 400
        at.upstream.reply_with(b"{}", kind="application/json")
        await at.post("/v1/moderations", input="x" * 40)
        line = await at.spent()
    assert (line["requests"], line["input_tokens"]) == (1, 10)


async def test_relayed_questions_count_among_the_tokens_of_the_minute(tmp_path: Path) -> None:
    async with stage(tmp_path, Rules(tokens_per_minute=25), Scripted("Other")) as at:
        at.upstream.reply_with(b"{}", kind="application/json")
        found = [(await at.post("/v1/moderations", input="x" * 40)).status for _ in range(3)]
        assert found == [200, 200, 429]
        assert (await at.post("/v1/embeddings", input=[1] * 26)).status == 429
        assert (await at.post("/api/embed", input="x" * 40)).status == 429
    assert len(at.upstream.requests) == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"model": "Fake/m", "model": "other"}', "model"),
        (b'{"Model": "other", "model": "Fake/m"}', "model"),
        (b'{"\\u004dodel": "other"}', "Model"),
        (b'{"x": %b, "model": "Fake/m", "model": "other"}' % (b"1" * 5000), "model"),
        (b'{"provider": "Fake", "model": "m", "provider": "Other"}', "provider"),
    ],
)
async def test_a_body_that_can_be_read_in_two_ways_goes_nowhere(
    tmp_path: Path, body: bytes, field: str
) -> None:
    paths = [
        "/v1/images/generations",
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/messages",
        "/api/embed",
    ]
    async with stage(tmp_path, Rules(models=("Fake/m",))) as at:
        headers = {"content-type": "application/json", "authorization": f"Bearer {at.key}"}
        for path in paths:
            reply = await at.http.request("POST", at.address + path, headers=headers, body=body)
            async with aclosing(reply):
                told = (await reply.body()).decode()
            assert (reply.status, f"`{field}`" in told) == (400, True), path
    assert at.upstream.requests == []


async def test_keys_for_some_models_reach_no_address_without_a_model(tmp_path: Path) -> None:
    async with stage(tmp_path, Rules(models=("Fake/m",))) as at:
        at.upstream.reply_with(b"{}", kind="application/json")
        assert (await at.post("/v1/images/generations", prompt="x")).status == 200
        refused = await ask(at.address, "POST", "/v1/batches", at.key, {"input_file_id": "f"})
        assert (refused.status, refused.json["error"]["code"]) == (403, "permission_denied")
        assert (await ask(at.address, "GET", "/v1/files", at.key)).status == 403
    assert len(at.upstream.requests) == 1

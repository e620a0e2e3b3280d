"""Two servers of one database, and keys with limits: together they let in what one may."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from modelway.auth import Auth
from modelway.config import ProviderSettings, Settings, UpstreamSettings
from modelway.gateway import Gateway
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import build_provider, load_presets
from modelway.testing import FakeUpstream
from modelway.types import Rules
from tests.e2e.test_keys import ask
from tests.polling import until
from tests.reliability.addresses import ASKED, CASES, Call
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

VECTORS = b'{"object":"list","data":[{"index":0,"embedding":[0.1]}],"usage":{"prompt_tokens":1}}'
COUNTING = Call("/v1/messages/count_tokens", ASKED, can_stream=False)


def gateway_before(upstream: FakeUpstream, http: HTTPClient, folder: Path) -> Gateway:
    own = ProviderSettings(base_url=upstream.url, default_model="model-a")
    chats = build_provider("Chats", None, own, http, lambda env, file: "key")
    completes = build_provider("Completes", load_presets()["vLLM"], own, http, lambda env, file: "key")
    return gateway_of([chats, completes], folder, Settings(provider="Chats"))


async def test_at_every_address_a_limit_is_one_for_both(tmp_path: Path) -> None:
    cases = [*CASES, (COUNTING, False)]
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        http = await stack.enter_async_context(aclosing(HTTPClient(UpstreamSettings())))
        gateways = [gateway_before(upstream, http, tmp_path) for _ in range(2)]
        callers = gateways[0].conversations.callers
        rules = Rules(requests_per_minute=1)
        keys = [(await callers.create(f"caller-{number}", rules))[0] for number in range(len(cases))]
        one, two = [await stack.enter_async_context(serving(gateway, Auth({}))) for gateway in gateways]
        for key, (call, stream) in zip(keys, cases, strict=True):
            if "embed" in call.path or call.is_relayed:
                upstream.reply_with(VECTORS, kind="application/json")
            else:
                upstream.reply("hello")
            body = call.body(stream=stream)
            first = await ask(one, "POST", call.path, key, body)
            assert first.status in (200, 404), (call, first)
            refused = await ask(two, "POST", call.path, key, body)
            assert refused.status == 429, (call, stream, refused)


async def test_answers_at_the_same_time_are_counted_by_both(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        http = await stack.enter_async_context(aclosing(HTTPClient(UpstreamSettings())))
        gateways = [gateway_before(upstream, http, tmp_path) for _ in range(2)]
        key, _ = await gateways[0].conversations.callers.create("ann", Rules(streams=1))
        one, two = [await stack.enter_async_context(serving(gateway, Auth({}))) for gateway in gateways]
        upstream.reply("hello")
        assert (await ask(one, "POST", "/v1/chat/completions", key, ASKED)).status == 200

        async def is_let_in() -> bool:
            return (await ask(two, "POST", "/v1/chat/completions", key, ASKED)).status == 200

        # The first server gives back what it does not need.
        await until(is_let_in)

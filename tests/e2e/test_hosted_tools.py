"""Tools that only an upstream can run: passed on where it has the format, else refused by name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelway.auth import Auth, hash_key
from modelway.config import ProviderSettings, Settings, UpstreamSettings
from modelway.dialects import sse
from modelway.providers.anthropic import Anthropic
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import build_provider
from modelway.testing.fake_upstream import FakeUpstream
from tests.e2e.test_relay import Caller
from tests.fake_anthropic import KEY, FakeAnthropic
from tests.polling import until
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
RESPONSES = "/v1/responses"
SEARCH = {"type": "web_search", "search_context_size": "low"}
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}
RESPONSE: dict[str, Any] = {
    "id": "resp_up",
    "object": "response",
    "status": "completed",
    "model": "m",
    "store": False,
    "output": [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text"}]},
    ],
    "usage": {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 7},
}


@asynccontextmanager
async def serving_responses(
    upstream: FakeUpstream, folder: Path, auth: Auth | None = None
) -> AsyncIterator[Caller]:
    """A server with one upstream that has /v1/responses, and one that has not."""
    async with aclosing(HTTPClient(UpstreamSettings(idle_timeout_s=5))) as http:
        able = ProviderSettings(base_url=upstream.url, default_model="m", supports=("tools", "responses"))
        plain = ProviderSettings(base_url=upstream.url, default_model="m")
        providers = [
            build_provider(name, None, own, http, lambda env, file: "")
            for name, own in (("Able", able), ("Plain", plain))
        ]
        async with serving(gateway_of(providers, folder, Settings(provider="Able")), auth) as address:
            yield Caller(address, http)


def asked(**fields: Any) -> bytes:
    return json.dumps({"model": "Able/m", "input": "news?", "tools": [LOOK, SEARCH], **fields}).encode()


@pytest.mark.parametrize(
    "tool", ["web_search", "file_search", "code_interpreter", "computer_use_preview", "mcp"]
)
async def test_the_upstream_is_told_of_its_tools_as_they_were_asked_for(
    upstream: FakeUpstream, tmp_path: Path, tool: str
) -> None:
    upstream.reply_with(json.dumps(RESPONSE).encode(), kind="application/json")
    tools = [LOOK, {"type": tool, "odd": {"server_url": "https://example.org"}}]
    async with serving_responses(upstream, tmp_path) as caller:
        response, told = await caller.ask(
            "POST", RESPONSES, asked(tools=tools, include=["x"], max_output_tokens=9)
        )
    [received] = upstream.requests
    assert (response.status, json.loads(told)) == (200, RESPONSE)
    assert response.headers["x-modelway-provider"] == "Able"
    assert (received.path, received.json) == (
        RESPONSES,
        {
            "model": "m",
            "input": "news?",
            "tools": tools,
            "include": ["x"],
            "max_output_tokens": 9,
            "store": False,
        },
    )


async def test_the_events_of_hosted_tools_come_through_byte_for_byte(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    kinds = ("created", "web_search_call.searching", "web_search_call.completed", "completed")
    stream = b"".join(
        sse.encode(
            json.dumps({"type": f"response.{kind}", "response": RESPONSE}).encode(), event=f"response.{kind}"
        )
        for kind in kinds
    )
    upstream.reply_with(stream)
    async with serving_responses(upstream, tmp_path) as caller:
        headers = {"content-type": "application/json", "idempotency-key": "k"}
        for _ in range(2):
            assert (await caller.ask("POST", RESPONSES, asked(stream=True), headers))[1] == stream

        async def is_charged() -> bool:
            told = json.loads((await caller.ask("GET", "/v1/usage"))[1])["data"]
            return [(one["input_tokens"], one["output_tokens"]) for one in told] == [(11, 7)]

        await until(is_charged)
    assert len(upstream.requests) == 1


async def test_an_upstream_without_the_address_is_not_asked(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with serving_responses(upstream, tmp_path) as caller:
        _, told = await caller.ask("POST", RESPONSES, asked(model="Plain/m"))
    assert "'web_search'" in json.loads(told)["error"]["message"]
    assert json.loads(told)["error"]["param"] == "tools[1].type"
    assert not upstream.requests


@pytest.mark.parametrize(
    "fields",
    [
        {"store": True},
        {"background": True},
        {"previous_response_id": "resp_1"},
        {"conversation": "c"},
        {"conversation": {"id": "c"}},
        {"conversation_id": "c"},
    ],
)
async def test_what_would_have_to_be_kept_is_refused_by_name(
    upstream: FakeUpstream, tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with serving_responses(upstream, tmp_path) as caller:
        assert await caller.refused("POST", RESPONSES, asked(**fields)) == (400, "unsupported_parameter")
        named = {"x-modelway-conversation-id": "c"}
        assert (await caller.refused("POST", RESPONSES, asked(), **named))[0] == 400
    assert not upstream.requests


async def test_tools_of_the_caller_s_own_are_a_chat_as_ever(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with serving_responses(upstream, tmp_path) as caller:
        _, told = await caller.ask("POST", RESPONSES, asked(tools=[LOOK]))
        kept = await caller.ask("GET", f"{RESPONSES}/{json.loads(told)['id']}")
        refused = await caller.refused("POST", RESPONSES, b'{"tools": 3, "input": "x"}')
        wrong_method, _ = await caller.ask("GET", RESPONSES)
    assert upstream.requests[0].path == "/v1/chat/completions"
    assert (kept[0].status, refused[0], wrong_method.status) == (200, 400, 405)


async def test_a_key_of_a_stranger_asks_nobody(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with serving_responses(upstream, tmp_path, Auth({"anna": hash_key("key")})) as caller:
        assert (await caller.refused("POST", RESPONSES, asked()))[0] == 401
    assert not upstream.requests


@pytest.mark.parametrize("stream", [True, False])
async def test_tools_of_anthropic_s_own_come_back_as_they_were(tmp_path: Path, stream: bool) -> None:
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "news"}}
    found = {
        "type": "web_search_result",
        "url": "https://example.org",
        "encrypted_content": "EqgfCioIARgBIiQ3",
    }
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]}
    text = {"type": "text", "text": "It rains."}
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    async with FakeAnthropic() as anthropic, aclosing(HTTPClient(UpstreamSettings())) as http:
        anthropic.reply_with_blocks(use, result, text, stop_reason="end_turn")
        own = ProviderSettings(base_url=anthropic.root)
        provider = Anthropic(own, http=http, key_lookup=lambda env, file: KEY)
        async with serving(gateway_of([provider], tmp_path)) as address:
            caller = Caller(address, http)
            said: list[dict[str, Any]] = [{"role": "user", "content": "weather?"}]
            body = {"model": "Anthropic/model-a", "max_tokens": 99, "tools": [tool], "stream": stream}
            asked = json.dumps({**body, "messages": said, "conversation_id": "c"}).encode()
            _, told = await caller.ask("POST", "/v1/messages", asked)
            for block in (use, result):
                assert json.dumps(block["type"]).encode() in told
            assert b"EqgfCioIARgBIiQ3" in told
            again = [*said, {"role": "assistant", "content": [use, result, text]}, *said]
            await caller.ask("POST", "/v1/messages", json.dumps({**body, "messages": again}).encode())
    assert anthropic.asked[0]["tools"] == [tool]
    assert anthropic.asked[1]["messages"] == again

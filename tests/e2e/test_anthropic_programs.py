"""What programs written for Anthropic ask beside chats: features by a header, counts, models, errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from tests.contract.test_providers import STAGES
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
UPSTREAMS = ("Anthropic", "OpenAI", "Ollama")
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 9}


class Asking:
    """A client, an official SDK, and the fakes behind the server."""

    def __init__(self, client: httpx.AsyncClient, sdk: anthropic.AsyncAnthropic, stages: Any) -> None:
        self.client = client
        self.sdk = sdk
        self._stages = stages

    def last(self, name: str) -> Any:
        """The last request that an upstream got."""
        return self._stages[name]._upstream.requests[-1]


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    async with AsyncExitStack() as stack:
        stages = {name: await stack.enter_async_context(STAGES[name]()) for name in UPSTREAMS}
        for stage in stages.values():
            stage.say("Hello")
        gateway = gateway_of([stage.provider for stage in stages.values()], tmp_path)
        address = await stack.enter_async_context(serving(gateway))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=address))
        sdk = anthropic.AsyncAnthropic(base_url=address, api_key="sk-fake", max_retries=0)
        yield Asking(client, await stack.enter_async_context(sdk), stages)


async def test_features_of_the_header_reach_anthropic_and_nobody_else(asking: Asking) -> None:
    betas = ["context-1m-2025-08-07", "interleaved-thinking-2025-05-14"]
    for name in UPSTREAMS:
        await asking.sdk.beta.messages.create(model=f"{name}/model-a", **HI, betas=betas)
        sent = asking.last(name)
        told = sent.headers.get("anthropic-beta")
        assert told == (",".join(betas) if name == "Anthropic" else None)
        assert "anthropic_beta" not in sent.json


async def test_a_header_that_is_no_list_of_features_is_refused(asking: Asking) -> None:
    reply = await asking.client.post(
        "/v1/messages", json={"model": "Anthropic/model-a", **HI}, headers={"anthropic-beta": "a b"}
    )
    assert reply.status_code == 400
    assert "anthropic-beta" in reply.json()["error"]["message"]


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
async def test_the_version_that_the_caller_speaks_goes_on_to_anthropic_only(
    asking: Asking, version: str
) -> None:
    for name in ("Anthropic", "OpenAI"):
        asked = {"model": f"{name}/model-a", **HI, "max_tokens": 9}
        reply = await asking.client.post("/v1/messages", json=asked, headers={"anthropic-version": version})
        assert reply.status_code == 200
        assert "x-modelway-ignored" not in reply.headers
        assert "anthropic_version" not in asking.last(name).json
    assert asking.last("Anthropic").headers["anthropic-version"] == version
    assert "anthropic-version" not in asking.last("OpenAI").headers


async def test_a_version_that_is_none_is_refused(asking: Asking) -> None:
    headers = {"anthropic-version": "the newest"}
    reply = await asking.client.post(
        "/v1/messages", json={"model": "Anthropic/model-a", **HI}, headers=headers
    )
    assert reply.status_code == 400
    assert "anthropic-version" in reply.json()["error"]["message"]


async def test_batches_are_refused_by_their_name(asking: Asking) -> None:
    reply = await asking.client.post("/v1/messages/batches", json={"requests": []})
    assert "batches" in reply.json()["error"]["message"]


async def test_tokens_are_counted_by_anthropic(asking: Asking) -> None:
    counted = await asking.sdk.messages.count_tokens(
        model="Anthropic/model-a", messages=HI["messages"], system="Be brief", thinking={"type": "disabled"}
    )
    assert counted.input_tokens > 0
    sent = asking.last("Anthropic")
    assert sent.path == "/v1/messages/count_tokens"
    assert sent.json == {
        "model": "model-a",
        "messages": HI["messages"],
        "system": "Be brief",
        "thinking": {"type": "disabled"},
    }


async def test_who_does_not_count_tokens_says_so_in_anthropic_s_shape(asking: Asking) -> None:
    with pytest.raises(anthropic.NotFoundError, match="OpenAI does not count tokens") as caught:
        await asking.sdk.messages.count_tokens(model="OpenAI/model-a", messages=HI["messages"])
    assert caught.value.body["error"]["type"] == "not_found_error"


async def test_models_are_listed_in_anthropic_s_form_for_its_programs(asking: Asking) -> None:
    listed = [model async for model in asking.sdk.models.list()]
    assert "Anthropic/model-a" in [model.id for model in listed]
    assert {model.type for model in listed} == {"model"}
    one = await asking.sdk.models.retrieve("Anthropic/model-a")
    assert (one.id, one.display_name) == ("Anthropic/model-a", "Anthropic/model-a")
    with pytest.raises(anthropic.NotFoundError) as caught:
        await asking.sdk.models.retrieve("nobody")
    assert caught.value.body["type"] == "error"
    others = (await asking.client.get("/v1/models")).json()
    assert others["object"] == "list"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/messages", 405),
        ("POST", "/v1/messages/batches", 404),
        ("GET", "/v1/messages/batches/1", 404),
        ("GET", "/v1/messages/count_tokens", 405),
        ("POST", "/v1/messages/../files", 404),
    ],
)
async def test_errors_below_messages_are_in_anthropic_s_shape_and_nothing_is_relayed(
    asking: Asking, method: str, path: str, status: int
) -> None:
    reply = await asking.client.request(method, path, json={"model": "OpenAI/model-a"})
    if ".." not in path:  # the client resolves it by itself
        assert reply.status_code == status
        assert reply.json()["type"] == "error"
        assert reply.json()["error"]["message"]
        assert not asking._stages["OpenAI"]._upstream.requests

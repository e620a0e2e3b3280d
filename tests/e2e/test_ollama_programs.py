"""What programs written for Ollama ask beside chats: what is loaded, vectors, loading, and their errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from modelway.provider import Loads
from modelway.types import Finish, Model, ToolCallDelta, Usage
from tests.contract.test_providers import STAGES
from tests.scripted import Scripted, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio


class Loaded(Scripted):
    """A provider with a model in memory."""

    @property
    def loaded(self) -> list[Model]:
        return [Model(self.info.default_model)]


class Asking:
    """A client, Ollama's own, and what is behind the server."""

    def __init__(self, client: httpx.AsyncClient, own: ollama.AsyncClient, local: Loaded, stage: Any) -> None:
        self.client = client
        self.own = own
        self.local = local
        self.upstream = stage._upstream


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    local = Loaded("Local")
    assert isinstance(local, Loads)
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(STAGES["OpenAI"]())
        address = await stack.enter_async_context(serving(gateway_of([local, stage.provider], tmp_path)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=address))
        own = await stack.enter_async_context(ollama.AsyncClient(host=address))
        yield Asking(client, own, local, stage)


async def test_the_models_in_memory_are_listed(asking: Asking) -> None:
    running = await asking.own.ps()
    assert [model.model for model in running.models] == ["Local/local-1"]
    assert running.models[0].digest


async def test_every_model_has_a_digest_of_its_own_that_stays(asking: Asking) -> None:
    first, second = await asking.own.list(), await asking.own.list()
    digests = [model.digest for model in first.models]
    assert all(digests)
    assert len(set(digests)) == len(digests)
    assert digests == [model.digest for model in second.models]


async def test_vectors_come_from_who_answers_embeddings(asking: Asking) -> None:
    data = [{"index": 1, "embedding": [3.0, 4.0]}, {"index": 0, "embedding": [1.0, 2.0]}]
    body = json.dumps({"data": data, "model": "e", "usage": {"prompt_tokens": 7}}).encode()
    asking.upstream.reply_with(body, kind="application/json")
    several = await asking.own.embed(model="OpenAI/embedder", input=["one", "two"], dimensions=2)
    assert [list(vector) for vector in several.embeddings] == [[1, 2], [3, 4]]
    assert several.prompt_eval_count == 7
    sent = asking.upstream.requests[-1]
    assert sent.path == "/v1/embeddings"
    assert sent.json == {
        "input": ["one", "two"],
        "encoding_format": "float",
        "model": "embedder",
        "dimensions": 2,
    }
    one = await asking.own.embeddings(model="OpenAI/embedder", prompt="one")
    assert list(one.embedding) == [1, 2]
    assert asking.upstream.requests[-1].json["input"] == ["one"]


async def test_who_has_no_vectors_says_so_in_ollama_s_shape(asking: Asking) -> None:
    with pytest.raises(ollama.ResponseError, match="Local has no /v1/embeddings") as caught:
        await asking.own.embed(model="Local", input="one")
    assert caught.value.status_code == 404


async def test_vectors_of_nothing_are_none_and_nobody_is_asked(asking: Asking) -> None:
    assert (await asking.own.embed(model="OpenAI/embedder", input="")).embeddings == []
    assert not asking.upstream.requests


@pytest.mark.parametrize(
    ("path", "fields", "empty"),
    [
        ("/api/chat", {"messages": []}, {"message": {"role": "assistant", "content": ""}}),
        ("/api/generate", {}, {"response": ""}),
    ],
)
@pytest.mark.parametrize(("keep_alive", "reason"), [("5m", "load"), (0, "unload")])
async def test_a_chat_without_a_question_only_loads_the_model(
    asking: Asking, path: str, fields: Any, empty: Any, keep_alive: Any, reason: str
) -> None:
    reply = await asking.client.post(path, json={"model": "Local", "keep_alive": keep_alive, **fields})
    answer = reply.json()
    assert (reply.status_code, answer["done"], answer["done_reason"]) == (200, True, reason)
    assert answer["model"] == "Local"
    assert empty.items() <= answer.items()
    assert not asking.local.requests


async def test_a_model_that_is_not_there_cannot_be_loaded(asking: Asking) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        await asking.own.generate(model="nobody/none")
    assert caught.value.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/pull", 404),
        ("DELETE", "/api/delete", 404),
        ("GET", "/api/chat", 405),
        ("POST", "/api/tags", 405),
        ("POST", "/api/show", 400),
        ("GET", "/api/nothing", 404),
    ],
)
async def test_errors_below_api_are_short_and_in_ollama_s_shape(
    asking: Asking, method: str, path: str, status: int
) -> None:
    reply = await asking.client.request(method, path, json={})
    assert reply.status_code == status
    assert isinstance(reply.json()["error"], str)
    assert len(reply.text) < 200


async def test_the_provider_in_the_address_is_openai_s_format(asking: Asking) -> None:
    reply = await asking.client.post("/api/nobody/chat/completions", json={})
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_tool_calls_whose_ids_the_client_drops_are_not_lost(asking: Asking) -> None:
    calls = [ToolCallDelta(index=i, id=f"abc{i}", name="look", arguments=f'{{"at":{i}}}') for i in range(2)]
    asking.local.scripts = [[*calls, Finish(reasons=("tool_calls",), usage=Usage(1, 1))], says("two ships")]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    said: list[Any] = [{"role": "user", "content": "Look"}]
    headers = {"x-modelway-conversation-id": "voyage"}
    async with ollama.AsyncClient(host=str(asking.client.base_url), headers=headers) as own:
        first = await own.chat(model="Local", messages=said, tools=[tool])
        said += [
            first.message,
            *({"role": "tool", "tool_name": "look", "content": f"ship {i}"} for i in (0, 1)),
        ]
        second = await own.chat(model="Local", messages=said, tools=[tool])
        said += [second.message, {"role": "user", "content": "And now?"}]
        await own.chat(model="Local", messages=said, tools=[tool])
    given = asking.local.requests[-1].messages
    assert [message.role for message in given] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    made = [call.id for call in given[1].tool_calls]
    assert [message.tool_call_id for message in given if message.role == "tool"] == made
    assert [message.text for message in given if message.role == "tool"] == ["ship 0", "ship 1"]
    assert [call.arguments for call in given[1].tool_calls] == ['{"at":0}', '{"at":1}']

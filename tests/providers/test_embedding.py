"""Embeddings of the embedded model: a stand-in for the library in a real child; and the library itself."""

import array
import asyncio
import base64
import math
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from modelway.config import LocalSettings
from modelway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    ProviderNotConfigured,
    UpstreamFailed,
)
from modelway.provider import RelayRequest
from modelway.providers.local import Local
from modelway.providers.local.embedding import DIMENSIONS, MODEL, Embedder, is_installed
from tests.conftest_local import find_model
from tests.polling import until
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
STAND_IN = """
import array, os, sys
from modelway.providers.local.embedding_child import serve

class Vector(array.array):
    pass

class E5:
    def token_count(self, text, is_query):
        return len(text)

    def encode(self, texts, is_query):
        if texts[0] == "crash":
            os._exit(3)
        while texts[0] == "forever":
            pass
        return [Vector("f", [len(text), is_query]) for text in texts]

serve(E5(), sys.stdin.buffer, sys.stdout.buffer)
"""


@pytest.fixture
async def embedder() -> AsyncIterator[Embedder]:
    made = Embedder((sys.executable, "-c", STAND_IN), is_installed=lambda: True)
    async with aclosing(made):
        yield made


def request(body: object = None, *, method: str = "POST", path: str = "embeddings") -> RelayRequest:
    return RelayRequest(method=method, path=path, body=msgspec.json.encode(body))


async def ask(embedder: Embedder, **fields: object) -> Any:
    reply = await embedder.answer(request(fields))
    return msgspec.json.decode(await reply.read())


async def test_a_text_and_texts_get_their_vectors_in_order(embedder: Embedder) -> None:
    one = await ask(embedder, input="four", model=MODEL)
    assert one["data"] == [{"object": "embedding", "index": 0, "embedding": [4.0, 1.0]}]
    assert one["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert one["model"] == MODEL
    many = await ask(embedder, input=["a", "ää", "\n"], input_type="passage")
    assert [entry["embedding"] for entry in many["data"]] == [[1.0, 0.0], [2.0, 0.0], [1.0, 0.0]]


async def test_the_model_is_loaded_from_the_first_request_to_the_end(embedder: Embedder) -> None:
    assert embedder.loaded == []
    await ask(embedder, input="four", model=MODEL)
    assert embedder.loaded == [MODEL]
    await embedder.aclose()
    assert embedder.loaded == []


async def test_base64_holds_the_same_floats(embedder: Embedder) -> None:
    found = await ask(embedder, input="four", encoding_format="base64")
    assert array.array("f", base64.b64decode(found["data"][0]["embedding"])).tolist() == [4.0, 1.0]


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"input": [1, 2]}, InvalidRequest, "holds tokens"),
        ({"input": [[1, 2]]}, InvalidRequest, "holds tokens"),
        ({"input": []}, InvalidRequest, "1 to 2048"),
        ({"input": ["x"] * 2049}, InvalidRequest, "1 to 2048"),
        ({"input": ""}, InvalidRequest, "none of them empty"),
        ({"input": None}, InvalidRequest, "must be a text"),
        ({}, InvalidRequest, "missing required field `input`"),
        ({"input": ["a", "x" * 8193]}, InvalidRequest, "text 1 is longer"),
        ({"input": "x", "encoding_format": "int8"}, InvalidRequest, "int8"),
        ({"input": "x", "dimensions": 256}, InvalidRequest, "384 dimensions"),
        ({"input": "x", "model": "smollm2"}, ModelNotFound, MODEL),
    ],
)
async def test_what_it_cannot_do_it_says(
    embedder: Embedder, fields: dict[str, object], error: type[GatewayError], said: str
) -> None:
    with pytest.raises(error, match=said):
        await ask(embedder, **fields)


async def test_there_is_no_other_address(embedder: Embedder) -> None:
    for other in (request(path="images/generations"), request(method="GET")):
        with pytest.raises(NotFound, match="only chats and embeddings"):
            await embedder.answer(other)


async def test_without_the_extra_it_says_how_to_get_it() -> None:
    with pytest.raises(ProviderNotConfigured, match=r"modelway\[embed\]"):
        await ask(Embedder(is_installed=lambda: False), input="x")
    assert Embedder(is_installed=lambda: False).models == []


async def test_a_request_that_is_given_up_ends_the_child_and_the_next_has_another(embedder: Embedder) -> None:
    first = asyncio.create_task(ask(embedder, input="forever"))
    second = asyncio.create_task(ask(embedder, input="four"))
    await until(lambda: embedder._child is not None)
    child = embedder._child
    assert child is not None
    first.cancel()
    assert (await second)["data"]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert child.returncode is not None


async def test_a_child_that_crashes_is_replaced(embedder: Embedder) -> None:
    with pytest.raises(UpstreamFailed, match="has ended"):
        await ask(embedder, input="crash")
    assert (await ask(embedder, input="four"))["data"]


async def test_openai_s_sdk_gets_them_over_http(embedder: Embedder, tmp_path: Path) -> None:
    local = Local(LocalSettings(), find_model, lambda url, key: Scripted("Local"), embedder=embedder)
    async with (
        serving(gateway_of([local], tmp_path)) as address,
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        found = await client.embeddings.create(model="Local/" + MODEL, input=["four", "fives"])
        assert (await client.embeddings.create(model="local", input="four")).model == MODEL
        with pytest.raises(openai.NotFoundError, match=MODEL):
            await client.embeddings.create(model="smollm2", input="x")
    assert [entry.embedding for entry in found.data] == [[4.0, 1.0], [5.0, 1.0]]
    assert found.usage.total_tokens == 9


def near(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.skipif(not is_installed(), reason="the extra `embed` is not installed: its wheel has 91 MB")
async def test_the_real_model_finds_what_is_meant() -> None:
    texts = ["How do I bake bread?", "Mehl, Wasser, Hefe und ein heißer Ofen", "The stock market fell today"]
    async with aclosing(Embedder()) as embedder:
        found = await ask(embedder, input=texts)
    question, bread, market = (entry["embedding"] for entry in found["data"])
    assert len(question) == DIMENSIONS
    assert math.isclose(math.hypot(*question), 1, abs_tol=0.001)
    assert near(question, bread) > near(question, market)
    assert found["usage"]["prompt_tokens"] > 10

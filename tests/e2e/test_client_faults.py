"""The Python client where it is used wrongly, or where the other side is not what it should be."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import modelway
from modelway.client import AsyncClient
from modelway.config import ProviderSettings, Settings
from modelway.errors import GatewayError, InvalidRequest, ProviderNotFound, ShuttingDown
from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import TextDelta
from tests.polling import until
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio


def refusal(action: Callable[[], object]) -> str:
    """How a closed client refuses."""
    with pytest.raises(ShuttingDown) as refused:
        action()
    return refused.value.message


@pytest.mark.parametrize("remote", [False, True])
async def test_a_closed_client_says_so(tmp_path: Path, remote: bool) -> None:
    def use(address: str) -> set[str]:
        settings = Settings(
            provider="Up",
            providers={"Up": ProviderSettings(base_url=f"{address}/v1", default_model="slow-1")},
        )
        client = (
            modelway.Client(address)
            if remote
            else modelway.Client(settings=settings, data_dir=tmp_path / "own")
        )
        reply = client.chat("hi")
        assert next(iter(reply)) == "half"
        client.close()
        reply.close()
        client.close()
        later = client.chat("hi").collect
        return {refusal(action) for action in (later, client.models, client.providers)}

    slow = Scripted("Slow", [TextDelta(text="half"), asyncio.Event()])
    async with serving(gateway_of([slow], tmp_path)) as address:
        assert await asyncio.to_thread(use, address) == {"the client is closed"}
        await until(lambda: slow.closed, 20)


async def test_an_error_over_http_names_the_field(tmp_path: Path) -> None:
    async with serving(gateway_of([Scripted("Local")], tmp_path)) as address, AsyncClient(address) as client:
        with pytest.raises(ProviderNotFound) as unknown:
            await client.chat("hi", provider="Nobody")
        with pytest.raises(InvalidRequest) as wrong:
            await client.conversation("a b").send("hi")
    assert (unknown.value.param, wrong.value.param) == ("provider", "conversation_id")


@pytest.mark.parametrize(
    "error", [b'"overloaded"', b'{"message":{"a":1},"code":[1]}', b'{"code":529,"message":null}', b"[[]]"]
)
async def test_an_error_of_any_shape_is_typed(error: bytes) -> None:
    async with FakeUpstream() as upstream, AsyncClient(upstream.url) as client:
        upstream.stream(b'data: {"error":' + error + b"}\n\n")
        with pytest.raises(GatewayError):
            await client.chat("hi")
        upstream.reply_with(b'{"error":' + error + b"}", kind="application/json", status=400)
        with pytest.raises(InvalidRequest):
            await client.chat("hi")


@pytest.mark.parametrize(
    "listed", [b"{}", b"[]", b"null", b"<html>", b'{"data":[1]}', b'{"data":[{"params":3}]}']
)
async def test_a_server_that_is_no_gateway_gives_a_typed_error(listed: bytes) -> None:
    async with FakeUpstream() as upstream, AsyncClient(upstream.url) as client:
        upstream.reply_with(listed, kind="application/json")
        with pytest.raises(GatewayError):
            await client.providers()

"""Vertex AI: where it is asked, and how its tokens are fetched, with the real google-auth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from modelway.config import ProviderSettings, VertexSettings
from modelway.errors import (
    GatewayError,
    ProviderNotConfigured,
    UpstreamRefusedCredential,
    UpstreamUnreachable,
)
from modelway.providers.http import HTTPClient
from modelway.providers.vertex import Vertex, _address
from modelway.testing.fake_upstream import closed_port
from modelway.types import ChatRequest, Message, collect
from tests.fake_gemini import FakeVertex, service_account
from tests.polling import until
from tests.providers.asking import events_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def upstream() -> AsyncIterator[FakeVertex]:
    async with FakeVertex() as made:
        yield made


def made(
    upstream: FakeVertex,
    http: HTTPClient,
    credential: str,
    *,
    project: str = "atlas",
    has_extra: bool = True,
    **settings: Any,
) -> Vertex:
    chosen = ProviderSettings(**{"base_url": upstream.base, "api_key_file": "account.json", **settings})
    return Vertex(
        chosen,
        VertexSettings(project=project, location="europe-west4"),
        http=http,
        key_lookup=lambda variable, file: credential if file == "account.json" else "",
        has_extra=lambda: has_extra,
    )


@pytest.fixture
async def provider(upstream: FakeVertex, http: HTTPClient) -> AsyncIterator[Vertex]:
    async with aclosing(made(upstream, http, service_account(upstream.token_address))) as vertex:
        yield vertex


def ask(text: str = "Hi", **fields: Any) -> ChatRequest:
    fields = {"model": "gemini-3-flash", "stream": True, **fields}
    return ChatRequest(messages=(Message(role="user", content=text),), **fields)


async def failure(provider: Vertex) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        await events_of(provider, ask())
    return raised.value


@pytest.mark.parametrize("model", ["gemini-3-flash", "publishers/google/models/gemini-3-flash"])
async def test_it_is_asked_in_its_project_and_location_with_a_token(
    provider: Vertex, upstream: FakeVertex, model: str
) -> None:
    upstream.reply("Hello", " there")
    assert collect(await events_of(provider, ask(model=model))).text == "Hello there"
    received = upstream.requests[-1]
    place = "/v1beta1/projects/atlas/locations/europe-west4/publishers/google/models"
    assert received.path == f"{place}/gemini-3-flash:streamGenerateContent?alt=sse"
    assert received.headers["authorization"] == f"Bearer {upstream.token}"
    assert "x-goog-api-key" not in received.headers
    assert received.json == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


async def test_a_token_is_fetched_once_for_all_who_wait_and_kept(
    provider: Vertex, upstream: FakeVertex
) -> None:
    await asyncio.gather(*(events_of(provider, ask(str(number))) for number in range(5)))
    await events_of(provider, ask("again"))
    assert upstream.fetched == 1
    assert len(upstream.asked) == 6


async def test_a_token_that_ends_soon_is_fetched_anew(provider: Vertex, upstream: FakeVertex) -> None:
    upstream.lifetime_s = 5
    await events_of(provider, ask())
    await events_of(provider, ask())
    assert upstream.fetched == 2


async def test_who_goes_away_takes_the_token_from_nobody_else(provider: Vertex, upstream: FakeVertex) -> None:
    upstream.hold_token = asyncio.Event()
    first = asyncio.create_task(events_of(provider, ask("first")))
    second = asyncio.create_task(events_of(provider, ask("second")))
    await until(lambda: upstream.requests)
    first.cancel()
    upstream.hold_token.set()
    assert collect(await second).text == "Hello"
    assert upstream.fetched == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_credentials_that_google_refuses_are_told_without_them(
    provider: Vertex, upstream: FakeVertex
) -> None:
    upstream.refuses_tokens = True
    error = await failure(provider)
    assert isinstance(error, UpstreamRefusedCredential)
    assert "invalid_grant" in error.message
    assert "gserviceaccount" not in str(error)
    assert not upstream.asked


async def test_a_token_that_vertex_refuses_is_an_error_of_the_credential(
    provider: Vertex, upstream: FakeVertex
) -> None:
    upstream.accepts_tokens = False
    error = await failure(provider)
    assert isinstance(error, UpstreamRefusedCredential)
    assert "gcloud auth application-default login" in error.hint
    assert upstream.token not in str(error)


async def test_a_token_server_that_is_not_there_was_never_sent_the_request(
    upstream: FakeVertex, http: HTTPClient
) -> None:
    credential = service_account(f"http://127.0.0.1:{closed_port()}/token")
    error = await failure(made(upstream, http, credential))
    assert isinstance(error, UpstreamUnreachable)
    assert not error.sent


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", '{"type": "service_account"}'])
async def test_a_file_without_credentials_is_told(
    upstream: FakeVertex, http: HTTPClient, content: str
) -> None:
    error = await failure(made(upstream, http, content))
    assert isinstance(error, ProviderNotConfigured)
    assert "api_key_file" in error.message


async def test_without_the_extra_it_says_what_to_install(upstream: FakeVertex, http: HTTPClient) -> None:
    provider = made(upstream, http, "", has_extra=False)
    assert not provider.info.ready
    assert "pip install 'modelway[vertex]'" in provider.info.missing
    assert isinstance(await failure(provider), ProviderNotConfigured)


async def test_without_a_project_it_says_where_to_set_it(upstream: FakeVertex, http: HTTPClient) -> None:
    provider = made(upstream, http, "", project="")
    assert not provider.info.ready
    error = await failure(provider)
    assert isinstance(error, ProviderNotConfigured)
    assert "GOOGLE_CLOUD_PROJECT" in error.hint
    assert "[vertex] project" in error.hint


async def test_the_project_may_come_from_the_environment(http: HTTPClient) -> None:
    projects = {"GOOGLE_CLOUD_PROJECT": "atlas"}
    provider = Vertex(
        ProviderSettings(),
        VertexSettings(),
        http=http,
        key_lookup=lambda variable, file: projects.get(variable, ""),
        has_extra=lambda: True,
    )
    assert provider.info.ready
    assert all(model.id.startswith("gemini-") for model in await provider.models())


@pytest.mark.parametrize(
    ("location", "address"),
    [
        ("global", "https://aiplatform.googleapis.com/v1beta1"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com/v1beta1"),
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com/v1beta1"),
    ],
)
def test_each_location_has_its_address(location: str, address: str) -> None:
    assert _address(location) == address

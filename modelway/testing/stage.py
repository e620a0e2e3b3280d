"""What the contract of providers asks of a test's set-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol

from modelway.config import ProviderSettings, UpstreamSettings
from modelway.plugins import PluginContext
from modelway.provider import Provider
from modelway.providers.http import HTTPClient
from modelway.testing.fake_upstream import FakeUpstream


class Stage(Protocol):
    """A provider, and the upstream behind it that can be told what to say."""

    @property
    def provider(self) -> Provider:
        """The provider under test."""
        ...

    def say(self, *pieces: str | asyncio.Event) -> None:
        """Let the next answer be these pieces; an asyncio.Event among them is waited for."""
        ...

    def fail(self) -> None:
        """Let the next answer be a failure."""
        ...

    def heard(self) -> list[list[tuple[str, str]]]:
        """Role and text of the messages of each request so far."""
        ...

    async def hung_up(self) -> None:
        """Wait until the provider gave up a call under way."""
        ...

    async def nothing_is_open(self) -> None:
        """Wait until the upstream has no connection left."""
        ...


def plugin_context(
    name: str,
    settings: ProviderSettings | None = None,
    *,
    http: HTTPClient | None = None,
    key: str = "",
) -> PluginContext:
    """What Modelway would give to a plug-in of this name. Who gives an `http` closes it."""
    own = http or HTTPClient(UpstreamSettings())
    return PluginContext(name, settings or ProviderSettings(), own, lambda variable, file: key)


OpenStage = Callable[[], AbstractAsyncContextManager[Stage]]


class FakeStage:
    """A provider that speaks OpenAI's chat completions, before the fake upstream."""

    def __init__(self, upstream: FakeUpstream, provider: Provider) -> None:
        self.provider = provider
        self._upstream = upstream

    def say(self, *pieces: str | asyncio.Event) -> None:
        """See Stage."""
        self._upstream.reply(*pieces)

    def fail(self) -> None:
        """See Stage."""
        self._upstream.fail(500, "out of order")

    def heard(self) -> list[list[tuple[str, str]]]:
        """See Stage."""
        return [
            [(message["role"], message["content"]) for message in request.json["messages"]]
            for request in self._upstream.requests
            if request.body
        ]

    async def hung_up(self) -> None:
        """See Stage."""
        await self._upstream.hung_up.wait()

    async def nothing_is_open(self) -> None:
        """See Stage."""
        while self._upstream.connections:
            await asyncio.sleep(0)


def stage_of(make: Callable[[PluginContext], Provider], name: str, *, key: str = "key") -> OpenStage:
    """Opens stages with the provider that a plug-in makes, before the fake upstream as its base URL."""

    @asynccontextmanager
    async def stage() -> AsyncIterator[Stage]:
        async with FakeUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
            settings = ProviderSettings(base_url=upstream.url)
            yield FakeStage(upstream, make(plugin_context(name, settings, http=http, key=key)))

    return stage

"""A real server on a loopback port, for tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from modelway.auth import Auth
from modelway.config import ConversationSettings, ServerSettings, Settings
from modelway.conversations import Conversations
from modelway.gateway import Gateway
from modelway.page.door import Door
from modelway.provider import Provider
from modelway.routing import Breakers, RetryPolicy, Router
from modelway.server.app import Application
from modelway.server.run import Server, bind
from modelway.telemetry import Telemetry


class _QuietServer(Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def gateway_of(
    providers: Sequence[Provider],
    folder: Path,
    settings: Settings | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Gateway:
    """A gateway of these providers; the first is the default."""
    chosen = settings or Settings(provider=providers[0].info.name)
    store = Conversations.open(folder / "conversations.sqlite3", chosen.conversations)
    policy = RetryPolicy(retries=1, max_wait_s=1)
    return Gateway(Router(providers, chosen), store, policy, breakers=Breakers(clock=clock))


@asynccontextmanager
async def serving(
    gateway: Gateway,
    auth: Auth | None = None,
    settings: ServerSettings | None = None,
    *,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[str]:
    """Serve a gateway; gives the server's address, without /v1. The gateway is closed at the end."""
    chosen = settings or ServerSettings(port=0)
    keys, figures = auth or Auth({}), telemetry or Telemetry()
    page = Door(gateway, keys, figures, chosen.max_body_bytes)
    application = Application(gateway, keys, figures, chosen, page=page)
    async with served_by(application, chosen) as address:
        yield address


@asynccontextmanager
async def served_by(application: Application, settings: ServerSettings) -> AsyncIterator[str]:
    """Serve an application; gives the server's address."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = _QuietServer(application, settings, ready.set_result)
    task = asyncio.create_task(server.serve(sockets=bind(settings)))
    try:
        waiting: set[asyncio.Future[Any]] = {task, ready}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        yield ready.result()
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await task


def quick_settings(**fields: object) -> Settings:
    """Settings in which nothing waits long."""
    conversations = ConversationSettings(wait_s=0.2, lease_s=2)
    return Settings(conversations=conversations, **fields)  # type: ignore[arg-type]

"""A whole gateway in a thread, in front of an upstream that plays whatever bytes a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Struct

from modelway.auth import Auth
from modelway.bench.faults import FAULTS, Act, Asked, Step, plain
from modelway.bench.loopback import LoopbackConnection
from modelway.config import ProviderSettings, ServerSettings, Settings, UpstreamSettings
from modelway.conversations import Conversations
from modelway.gateway import Gateway
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import build_provider
from modelway.routing import Breakers, RetryPolicy, Router
from modelway.server.app import Application
from modelway.telemetry import Telemetry
from tests.serving import serving
from tests.wire.serving import Kind, application

LIMITS = UpstreamSettings(connect_timeout_s=5, first_byte_timeout_s=5, idle_timeout_s=5)
Play = Callable[[bytes], Iterable[Step]]


class Upstream:
    """Plays what `play` says to a request's body. `heard` are the bodies, `sent` counts bytes that left.

    A body that names a fault as its model gets that fault, any other what `play` was set to.
    """

    def __init__(self) -> None:
        self.play: Play = by_model
        self.heard: list[bytes] = []
        self.sent = 0
        self.port = 0
        self.open: set[LoopbackConnection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self.open):
            await connection.end()


class _Connection(LoopbackConnection):
    def __init__(self, upstream: Upstream) -> None:
        super().__init__(upstream.open)
        self._upstream = upstream

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> Coroutine[Any, Any, None]:
        self._upstream.heard.append(body)
        self.transport.set_write_buffer_limits(0)
        return self._play(self._upstream.play(body))

    async def _play(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case bytes():
                    self.transport.write(step)
                    await self.writable.wait()
                    self._upstream.sent += len(step)
                    await asyncio.sleep(0)
                case Act.CLOSE:
                    self.transport.close()
                case Act.RESET:
                    self.reset()
                case Act.HANG:
                    await self.lost.wait()
                case float():
                    await asyncio.sleep(step)


class _Asked(Struct):
    model: str = "ok"
    stream: bool = False


def by_model(body: bytes) -> Iterable[Step]:
    """The fault that the request names as its model."""
    if not body:
        return [plain(404, b'{"error":{"message":"not here"}}')]
    asked = msgspec.json.decode(body, type=_Asked)
    name, _, argument = asked.model.partition(":")
    return FAULTS[name].play(Asked(argument, asked.stream, 0, ""))


class Gate(Struct):
    """The port of a server, and the upstream behind it."""

    port: int
    upstream: Upstream


@asynccontextmanager
async def gate(
    folder: Path, kind: Kind | None = None, settings: ServerSettings | None = None
) -> AsyncIterator[Gate]:
    """Serve as `modelway serve` does, or by another protocol."""
    folder.mkdir()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        http = await stack.enter_async_context(aclosing(HTTPClient(LIMITS)))
        url = f"http://127.0.0.1:{upstream.port}/v1"
        own = ProviderSettings(base_url=url, default_model="ok", api_key_env="KEY")
        provider = build_provider("Up", None, own, http, lambda *_: "key")
        chosen = Settings(provider="Up")
        store = Conversations.open(folder / "conversations.sqlite3", chosen.conversations)
        # Nothing is tried twice, and whatever has failed is asked again at once.
        gateway = Gateway(
            Router([provider], chosen),
            store,
            RetryPolicy(retries=0, max_wait_s=0),
            breakers=Breakers(failures=0),
        )
        limits = settings or ServerSettings(port=0)
        if kind is None:
            address = await stack.enter_async_context(serving(gateway, settings=limits))
            port = int(address.rpartition(":")[2])
        else:
            app = Application(gateway, Auth({}), Telemetry(), limits)
            port = await stack.enter_async_context(application(app, kind, lifespan="on"))
        yield Gate(port, upstream)

"""Keeps the runtime of GitHub Copilot running: starts it when it is first needed, and again after it died."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from modelway.errors import GatewayError
from modelway.types import Event, ImagePart

MAX_WAIT_S = 30.0
STOP_S = 5.0


class Died(Exception):
    """The runtime's process has ended, or does not answer any more."""


class Launch(Struct, frozen=True):
    """How the runtime is started. `base_url` is a test's upstream in GitHub's place."""

    path: Path
    home: Path
    environment: dict[str, str]
    token: str = ""
    base_url: str = ""

    def __repr__(self) -> str:
        return f"Launch({self.path})"


class OfferedModel(Struct, frozen=True):
    """A model that the account may use."""

    id: str
    context_length: int = 0
    sees_images: bool = False


class Options(Struct, frozen=True):
    """How a conversation goes on. `model` and `effort` None: the runtime's choice."""

    instructions: str
    model: str | None = None
    effort: str | None = None


class Session(Protocol):
    """A conversation that is open in the runtime. All methods may raise Died."""

    async def send(self, prompt: str, images: Sequence[ImagePart]) -> None:
        """Begin a turn."""
        ...

    async def next(self) -> Event | None:
        """What the runtime says next: None is a sign of life, Finish the end of the turn."""
        ...

    async def abort(self) -> None:
        """Stop the turn."""
        ...

    async def close(self) -> None:
        """Free the memory; the conversation stays on disk."""
        ...


class Client(Protocol):
    """A runtime's process. All methods may raise Died, and GatewayError for what the upstream refuses."""

    async def open(self, name: str, options: Options, *, resume: bool) -> Session:
        """Open a conversation. With `resume` it must be there: Lost."""
        ...

    async def models(self) -> list[OfferedModel]:
        """What the account may use; the only way to learn whether its credential is good."""
        ...

    async def account(self) -> str:
        """The account's name at GitHub, "" where it is not told. It proves nothing."""
        ...

    async def delete(self, name: str) -> None:
        """Forget a conversation."""
        ...

    async def forget_older_than(self, age_s: float) -> None:
        """Forget the conversations that have not been used for so long."""
        ...

    async def check(self) -> None:
        """Died where nobody answers."""
        ...

    async def stop(self) -> None:
        """End the process in order."""
        ...

    async def kill(self) -> None:
        """End the process at once."""
        ...


Start = Callable[[Launch], Awaitable[Client]]


class _Running:
    """A process, and how many turns use it."""

    def __init__(self, launch: Launch, client: Client) -> None:
        self.launch = launch
        self.client = client
        self.users = 0
        self.is_dead = False


class Runtime:
    """The process of one account. After it died the next start waits 1, 2, 4 … 30 seconds."""

    def __init__(
        self,
        start: Start,
        *,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._sleep = sleep
        self._now = now
        self._one_at_a_time = asyncio.Lock()
        self._running: _Running | None = None
        self._failures = 0
        self._not_before = 0.0

    @asynccontextmanager
    async def using(self, launch: Launch) -> AsyncIterator[Client]:
        """The process that was started so, until the turn is over; one started otherwise ends when unused."""
        running = await self._ensure(launch)
        running.users += 1
        try:
            yield running.client
        except Died:
            self._failed(running)
            raise
        else:
            self._failures = 0
        finally:
            running.users -= 1
            if running is not self._running and not running.users:
                await _end(running)

    async def aclose(self) -> None:
        """End the process."""
        running, self._running = self._running, None
        if running is not None:
            await _end(running)

    async def _ensure(self, launch: Launch) -> _Running:
        async with self._one_at_a_time:
            if self._running is not None and self._running.launch != launch:
                retired, self._running = self._running, None
                if not retired.users:
                    await _end(retired)
            if self._running is None:
                await self._sleep(max(0.0, self._not_before - self._now()))
                try:
                    self._running = _Running(launch, await self._start(launch))
                except Died:
                    self._wait_longer()
                    raise
            return self._running

    def _failed(self, running: _Running) -> None:
        running.is_dead = True
        if self._running is running:
            self._running = None
            self._wait_longer()

    def _wait_longer(self) -> None:
        self._failures += 1
        self._not_before = self._now() + min(2.0 ** (self._failures - 1), MAX_WAIT_S)


async def _end(running: _Running) -> None:
    with suppress(Died, GatewayError, TimeoutError):
        if not running.is_dead:
            await asyncio.wait_for(running.client.stop(), STOP_S)
            return
    with suppress(Died, GatewayError):
        await running.client.kill()

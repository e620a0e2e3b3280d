"""Follows the keys and the spending in the store while the server runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from modelway.accounts import Accounts
from modelway.auth import Auth
from modelway.conversations.callers import Callers
from modelway.errors import StoreUnavailable

PERIOD_S = 0.5


class KeyWatch:
    """Learns of keys and spending at the start, and soon after each change by any process."""

    def __init__(self, auth: Auth, callers: Callers, accounts: Accounts) -> None:
        self._auth = auth
        self._callers = callers
        self._accounts = accounts
        self._version = -1
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Learn the keys now, and go on looking; StoreUnavailable where they cannot be read."""
        await self._look()
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def aclose(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            # What the store last told stays in force until it can be read again.
            with suppress(StoreUnavailable):
                await self._look()

    async def _look(self) -> None:
        version = self._callers.version()
        if version == self._version:
            return
        self._auth.learn(await self._callers.keys())
        if self._accounts.expect(self._auth.callers):
            await self._accounts.refresh()
        self._version = version

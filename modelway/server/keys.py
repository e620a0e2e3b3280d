"""Follows the keys and the spending in the store while the server runs."""

from __future__ import annotations

import asyncio
import logging

from modelway.accounts import Accounts
from modelway.auth import Auth
from modelway.conversations import Callers
from modelway.errors import StoreUnavailable

log = logging.getLogger("modelway.server")

PERIOD_S = 0.5


class KeyWatch:
    """Learns of keys and spending at the start, and soon after each change by any process."""

    def __init__(self, auth: Auth, callers: Callers, accounts: Accounts) -> None:
        self._auth = auth
        self._callers = callers
        self._accounts = accounts
        self._version = (0, 0)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Learn the keys now, and go on looking; StoreUnavailable where they cannot be read."""
        await self._look()
        self._task = asyncio.get_running_loop().create_task(self._watch())
        self._task.add_done_callback(_tell_of_its_end)

    async def aclose(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        was_told = False
        while True:
            await asyncio.sleep(PERIOD_S)
            self._accounts.give_back()
            try:
                await self._look()
                was_told = False
            except StoreUnavailable as error:
                # What the store last told stays in force until it can be read again.
                if not was_told:
                    log.warning("changes of keys and budgets are not seen: %s", error)
                was_told = True

    async def _look(self) -> None:
        version = self._callers.version()
        if version == self._version:
            return
        self._auth.learn(await self._callers.keys())
        if self._accounts.expect(self._auth.callers):
            await self._accounts.refresh()
        self._version = version


def _tell_of_its_end(task: asyncio.Task[None]) -> None:
    """A bug must not let a revoked key count for ever without anybody's knowing."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("changes of keys and budgets are no longer seen", exc_info=error)

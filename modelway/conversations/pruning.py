"""Forgets in idle time what was to be kept for a while only: streams, keys of requests, old responses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from modelway.config import ConversationSettings
from modelway.conversations.ephemeral import first_turn_id
from modelway.conversations.ledger import Ledger
from modelway.conversations.paths import Paths
from modelway.conversations.resuming import Resuming
from modelway.conversations.upkeep import remove
from modelway.conversations.writer import Writer
from modelway.errors import StoreUnavailable

_PERIOD_S = 600.0
_BUSY_S = 1.0
_BATCH = 100
_DAY_S = 86400.0

Read = Callable[[Callable[[Ledger], Any]], Awaitable[Any]]


class Pruner:
    """Looks every ten minutes, and lets everybody else write first."""

    def __init__(
        self, writer: Writer, read: Read, paths: Paths, resuming: Resuming, settings: ConversationSettings
    ) -> None:
        self._writer = writer
        self._read = read
        self._paths = paths
        self._resuming = resuming
        self._stream_log_s = settings.stream_log_s
        self._responses_s = settings.response_days * _DAY_S
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; again is harmless."""
        if self._task is None:
            self._task = asyncio.create_task(self._go_on())

    async def prune(self, now: float) -> None:
        """Forget everything that is due at this time."""
        until = now - self._stream_log_s
        # What its server has left is forgotten like all else, once it has ended.
        await self._write(lambda ledger: self._resuming.end_overdue(ledger, self._paths, now))
        while await self._write(lambda ledger: _drop_streams(ledger, until)):
            pass
        while expired := await self._read(lambda ledger: self._expired(ledger, now)):
            for conversation, tree in expired:
                await self._drop(conversation, tree, now)

    async def aclose(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD_S)
            # Where it cannot be written, the next round finds the same.
            with suppress(StoreUnavailable):
                await self.prune(time.time())

    async def _write(self, command: Callable[[Ledger], int]) -> int:
        while self._writer.is_busy:  # noqa: ASYNC110 - nobody tells when it is not
            await asyncio.sleep(_BUSY_S)
        return await self._writer.submit(command, is_quick=False)

    def _expired(self, ledger: Ledger, now: float) -> list[tuple[int, int]]:
        return ledger.all(ledger.sql.expired_hidden, self._due(now) | {"limit": _BATCH})

    async def _drop(self, conversation: int, tree: int, now: float) -> None:
        def drop(ledger: Ledger) -> int:
            due = self._due(now) | {"conversation": conversation}
            if ledger.one(ledger.sql.is_expired, due) is None:  # somebody has gone on with it meanwhile
                return 0
            # Those that a later response goes on from stay, without being one.
            ledger.run(ledger.sql.forget_turns, {"of": conversation})
            remove(ledger, conversation, tree)
            return 1

        await self._write(drop)

    def _due(self, now: float) -> dict[str, float]:
        """What is older than this, is forgotten: as a response, and as an answer that is none."""
        asked_until = now - self._responses_s if self._responses_s else 0.0
        return {"asked_until": asked_until, "unasked_until": now - self._stream_log_s}


def _drop_streams(ledger: Ledger, until: float) -> int:
    """Forget some streams and keys from before this time; how many there were."""
    ledger.run(ledger.sql.drop_old_readings, {"before_turn": first_turn_id(until)})
    dropped = ledger.run(ledger.sql.drop_old_pieces, {"before_turn": first_turn_id(until), "limit": _BATCH})
    return dropped + ledger.run(ledger.sql.drop_old_keys, {"until": until, "limit": _BATCH})

"""Lets the turns of one conversation in one after another, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable

from modelway.errors import ConversationBusy

_LONGEST = 64


class Lines:
    """A line of waiting turns for each conversation that is held in this process."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def enter_at_once(self, key: Hashable) -> bool:
        """Enter, if nobody is before us."""
        if key in self._lines:
            return False
        self._lines[key] = deque()
        return True

    async def enter(self, key: Hashable, wait_s: float) -> None:
        """Wait until it is our turn; raises ConversationBusy after `wait_s` or in an endless line."""
        if self.enter_at_once(key):
            return
        line = self._lines[key]
        if len(line) >= _LONGEST:
            raise busy()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(place)
        try:
            await asyncio.wait((place,), timeout=wait_s)
        except asyncio.CancelledError:
            self._step_out(key, place)
            raise
        if not place.done():
            line.remove(place)
            raise busy()

    def leave(self, key: Hashable) -> None:
        """Let the next one in."""
        line = self._lines[key]
        if line:
            line.popleft().set_result(None)
        else:
            del self._lines[key]

    def _step_out(self, key: Hashable, place: asyncio.Future[None]) -> None:
        if place.done():
            self.leave(key)
        else:
            self._lines[key].remove(place)


def busy() -> ConversationBusy:
    """The error for a conversation that another turn holds."""
    return ConversationBusy(
        "another turn of this conversation is still being answered",
        hint="send the message again when it has ended",
        retry_after=1,
    )

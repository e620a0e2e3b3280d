"""Waits in tests for what comes about by itself."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

_AT_ONCE = 100


async def until(holds: Callable[[], object | Awaitable[object]], within_s: float = 10.0) -> None:
    """Poll until it is so; it fails where that takes too long."""
    deadline, tries = time.monotonic() + within_s, 0
    while True:
        found = holds()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, "it did not come about in time"
        # What only needs the loop to go round is there soon; a process or a thread takes its time.
        await asyncio.sleep(0 if tries < _AT_ONCE else 0.01)
        tries += 1

"""Opens the conversation store for one piece of work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from modelway.cli.setup import Setup

if TYPE_CHECKING:
    from modelway.conversations import Conversations

T = TypeVar("T")

# Who sits at this machine; the server calls everybody so while no API key is configured.
CALLER = "local"


def in_store(setup: Setup, work: Callable[[Conversations], Awaitable[T]]) -> T:
    """Do one thing in the store, which a server may have open at the same time."""
    import asyncio

    from modelway.conversations import Conversations

    async def run() -> T:
        store = Conversations.open(setup.store_path, setup.settings.conversations)
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(run())

"""Conversations that are about to be deleted: for a moment their people can change their minds."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from modelway.conversations import Conversations
from modelway.errors import ConversationNotFound, GatewayError
from modelway.types import Caller

GRACE_S = 10.0


class Trash:
    """Deletes after `grace_s`, at the latest when the server ends."""

    def __init__(self, conversations: Conversations, grace_s: float = GRACE_S) -> None:
        self._conversations = conversations
        self._grace_s = grace_s
        self._waiting: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._deleting: set[asyncio.Task[None]] = set()

    def has(self, caller: Caller, conversation_id: str) -> bool:
        """Whether it waits to be deleted."""
        return (caller.name, conversation_id) in self._waiting

    def put(self, caller: Caller, conversation_id: str) -> None:
        """Delete it soon."""
        key = (caller.name, conversation_id)
        if key not in self._waiting:
            loop = asyncio.get_running_loop()
            self._waiting[key] = loop.call_later(self._grace_s, self._begin, key)

    def take_back(self, caller: Caller, conversation_id: str) -> None:
        """Let it be; raises ConversationNotFound where it is too late."""
        timer = self._waiting.pop((caller.name, conversation_id), None)
        if timer is None:
            raise ConversationNotFound("the conversation is deleted already", param="conversation_id")
        timer.cancel()

    async def aclose(self) -> None:
        """Delete what waits."""
        for key, timer in list(self._waiting.items()):
            timer.cancel()
            self._begin(key)
        await asyncio.gather(*self._deleting, return_exceptions=True)

    def _begin(self, key: tuple[str, str]) -> None:
        task = asyncio.get_running_loop().create_task(self._delete(key))
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)

    async def _delete(self, key: tuple[str, str]) -> None:
        # Deleted by somebody else meanwhile, or not deletable now: then it is in the list again.
        with suppress(GatewayError):
            await self._conversations.delete(*key)
        self._waiting.pop(key, None)

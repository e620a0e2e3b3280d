"""Conversations that are about to be deleted: for a moment their people can change their minds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

from modelway.conversations import Conversation, Conversations
from modelway.errors import ConversationNotFound, GatewayError
from modelway.types import Caller

GRACE_S = 10.0
# Noted with a conversation: when somebody deleted it. So a server that ends meanwhile forgets nothing.
DELETED = "page.deleted"


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

    async def put(self, caller: Caller, conversation_id: str) -> None:
        """Delete it soon; raises ConversationNotFound."""
        now = time.time()
        await self._conversations.shelf.note(caller.name, conversation_id, DELETED, f"{now:.3f}")
        self._expect((caller.name, conversation_id), now)

    def notice(self, caller: Caller, conversation_id: str, notes: Mapping[str, str]) -> None:
        """Delete it soon if its notes say so, which another server made, or this one before it ended."""
        if DELETED in notes:
            self._expect((caller.name, conversation_id), _moment(notes[DELETED]))

    async def take_back(self, caller: Caller, conversation_id: str) -> None:
        """Let it be; raises ConversationNotFound where it is too late."""
        timer = self._waiting.pop((caller.name, conversation_id), None)
        if timer is None:
            raise ConversationNotFound("the conversation is deleted already", param="conversation_id")
        timer.cancel()
        await self._conversations.shelf.note(caller.name, conversation_id, DELETED, "")

    async def aclose(self) -> None:
        """Delete what waits."""
        for key, timer in list(self._waiting.items()):
            timer.cancel()
            self._begin(key)
        await asyncio.gather(*self._deleting, return_exceptions=True)

    def _expect(self, key: tuple[str, str], since: float) -> None:
        if key not in self._waiting:
            wait_s = min(self._grace_s, max(0.0, since + self._grace_s - time.time()))
            self._waiting[key] = asyncio.get_running_loop().call_later(wait_s, self._begin, key)

    def _begin(self, key: tuple[str, str]) -> None:
        task = asyncio.get_running_loop().create_task(self._delete(key))
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)

    async def _delete(self, key: tuple[str, str]) -> None:
        # Deleted by somebody else meanwhile, or not deletable now: then it is noticed again.
        with suppress(GatewayError):
            # Another server may have let it be.
            if is_deleted(await self._conversations.show(*key)):
                await self._conversations.delete(*key)
        self._waiting.pop(key, None)


def is_deleted(conversation: Conversation) -> bool:
    """Whether its people have deleted it, here or elsewhere."""
    return DELETED in conversation.metadata


def refuse_deleted(conversation: Conversation) -> None:
    """Raises ConversationNotFound where its people have deleted it."""
    if is_deleted(conversation):
        raise ConversationNotFound("the conversation is being deleted", param="conversation_id")


def _moment(text: str) -> float:
    """When it was deleted; long ago, where a program has noted something else."""
    try:
        return float(text)
    except ValueError:
        return 0.0

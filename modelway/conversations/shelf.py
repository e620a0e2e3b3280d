"""How people put their conversations in order: begin one, name it, note something, go back, take one in."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from modelway.conversations import codec
from modelway.conversations.arranging import (
    drop_instructions,
    figures,
    list_noted,
    measured,
    move,
    note,
    rename,
    standing,
)
from modelway.conversations.callers import Read
from modelway.conversations.importing import take_in
from modelway.conversations.records import Conversation, Summary
from modelway.conversations.upkeep import create, set_metadata
from modelway.conversations.writer import Writer
from modelway.errors import InvalidRequest

_CONVERSATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


class Shelf:
    """What is done with conversations as a whole, and asked of them without reading them.

    Raises StoreUnavailable as Conversations does.
    """

    def __init__(self, writer: Writer, read: Read) -> None:
        self._writer = writer
        self._read = read

    async def create(self, caller: str, name: str, metadata: dict[str, str]) -> None:
        """Begin an empty conversation; raises InvalidRequest where the name is taken or cannot be one."""
        check_conversation_id(name)
        noted = codec.encode_asked(metadata or None)
        await self._writer.submit(lambda ledger: create(ledger, caller, name, noted, time.time()))

    async def annotate(self, caller: str, conversation_id: str, metadata: dict[str, str]) -> None:
        """Replace what the caller has noted about a conversation; raises ConversationNotFound."""
        noted = codec.encode_asked(metadata or None)
        await self._writer.submit(lambda ledger: set_metadata(ledger, caller, conversation_id, noted))

    async def note(self, caller: str, conversation_id: str, key: str, value: str) -> None:
        """Note one thing about a conversation, "" for no longer, and leave what else is noted as it is.

        Raises ConversationNotFound.
        """
        await self._writer.submit(lambda ledger: note(ledger, caller, conversation_id, key, value))

    async def rename(self, caller: str, conversation_id: str, title: str) -> None:
        """Give a conversation another title; raises ConversationNotFound."""
        await self._writer.submit(lambda ledger: rename(ledger, caller, conversation_id, title))

    async def move(self, caller: str, conversation_id: str, message: str) -> None:
        """Let a conversation go on after one of its messages, "" before the first.

        Raises ConversationNotFound, and ConversationBusy while a turn holds it.
        """
        await self._writer.submit(
            lambda ledger: move(ledger, caller, conversation_id, message), is_quick=False
        )

    async def drop_instructions(self, caller: str, conversation_id: str) -> None:
        """Let the next turns of a conversation have no instructions; raises ConversationNotFound."""
        await self._writer.submit(lambda ledger: drop_instructions(ledger, caller, conversation_id))

    async def take_in(self, caller: str, conversation_id: str, found: Conversation) -> None:
        """Store a conversation that was exported, under a name that is not taken; raises InvalidRequest."""
        check_conversation_id(conversation_id)
        await self._writer.submit(
            lambda ledger: take_in(ledger, caller, conversation_id, found, time.time()), is_quick=False
        )

    async def standing(self, caller: str, conversation_id: str = "") -> tuple[object, ...]:
        """Cheap to ask for often: equal values as long as the list, and the conversation, are the same."""
        return await self._read(lambda ledger: standing(ledger, caller, conversation_id))

    async def noted(self, caller: str) -> Sequence[tuple[Summary, dict[str, str]]]:
        """The conversations about which the caller has noted something, and what; newest first."""
        return await self._read(lambda ledger: list_noted(ledger, caller))

    async def figures(self, caller: str, conversation_id: str) -> dict[str, tuple[float, int | None]]:
        """Seconds until the first text (0: not measured) and cost in billionths of a dollar, by turn."""
        return await self._read(lambda ledger: figures(ledger, caller, conversation_id))

    def measured(self, turn: str, first_s: float) -> None:
        """Note how long a turn took until its first text came, without waiting for it to be written."""
        self._writer.send(lambda ledger: measured(ledger, turn, first_s))


def check_conversation_id(conversation_id: str, param: str = "conversation_id") -> None:
    """Raises InvalidRequest where this cannot name a conversation."""
    if not _CONVERSATION_ID.fullmatch(conversation_id):
        raise InvalidRequest(
            f"{param} must be 1 to 128 of the characters A-Z, a-z, 0-9, '.', '_', ':' and '-'", param=param
        )

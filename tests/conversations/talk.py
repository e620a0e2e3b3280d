"""Speaks with a store in tests: messages, turns and their ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelway.config import ConversationSettings
from modelway.conversations import Asking, Conversation, Conversations, Turn
from modelway.conversations.claims import Claim
from modelway.types import ChatRequest, Finish, Message, TextDelta

ME = "me"
DEADLINE_S = 10.0


def open_store(folder: Path, **settings: Any) -> Conversations:
    """The store of a folder; again for a second holder of it."""
    return Conversations.open(folder / "kept" / "conversations.sqlite3", ConversationSettings(**settings))


def user(text: str) -> Message:
    """What a user says."""
    return Message(role="user", content=text)


def answer(text: str) -> Message:
    """What a model answered."""
    return Message(role="assistant", content=text)


def system(text: str) -> Message:
    """Instructions."""
    return Message(role="system", content=text)


def asking(conversation_id: str, *messages: Message | str) -> ChatRequest:
    """A request of these messages; a string is a user's."""
    return ChatRequest(
        conversation_id=conversation_id,
        messages=tuple(user(one) if isinstance(one, str) else one for one in messages),
    )


async def begin(
    store: Conversations, conversation_id: str, *messages: Message | str, caller: str = ME
) -> Turn:
    """Open a turn."""
    return await store.open_turn(caller, asking(conversation_id, *messages))


async def ask(
    store: Conversations, conversation_id: str, *messages: Message | str, says: str = "yes", caller: str = ME
) -> Turn:
    """A turn that is answered to the end."""
    turn = await begin(store, conversation_id, *messages, caller=caller)
    await complete(turn, says)
    return turn


async def complete(turn: Turn, says: str) -> None:
    """Answer an open turn to the end."""
    if says:
        turn.record(TextDelta(text=says))
    turn.record(Finish())
    await turn.finish("Provider", "model-1")


async def claim(store: Conversations, key: str, turn_id: str) -> Claim:
    """Ask which turn answers a request with a key."""
    return await store.streams.claim(Asking(ME, key, b"1", turn_id), lambda turn: False)


async def history(store: Conversations, conversation_id: str, caller: str = ME) -> list[str]:
    """The texts of the current path."""
    return texts((await store.show(caller, conversation_id)).messages)


def texts(messages: tuple[Message, ...]) -> list[str]:
    """What the messages say."""
    return [message.text for message in messages]


def statuses(conversation: Conversation) -> list[str]:
    """How each turn ended, oldest first."""
    return [turn.status for turn in conversation.turns]

"""What the store tells about a conversation: typed, and complete enough to be imported again."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from modelway.types import Message, Usage

TurnStatus = Literal["open", "done", "interrupted", "failed"]


class Summary(Struct, frozen=True, kw_only=True):
    """One line of a list. Times are seconds since 1970, UTC."""

    conversation_id: str
    title: str
    created_at: float
    updated_at: float


class StoredMessage(Struct, frozen=True, kw_only=True):
    """A message in the tree of a conversation.

    `parent` is the id of the message before it, "" at the beginning. Two messages of one parent are two
    branches.
    """

    id: str
    parent: str
    turn_id: str
    message: Message


class TurnRecord(Struct, frozen=True, kw_only=True):
    """One exchange.

    `parent` is the id of the message that it continued ("": it began the conversation), `messages` what
    was new, `answer` the text as far as it came. `tail` and `answer_id` are the ids of the last message
    before the answer and of the answer. A failed turn has an `error_code` and no answer. `cost` is in
    dollars, where it is known.
    """

    id: str
    status: TurnStatus
    provider: str
    model: str
    parent: str
    tail: str
    messages: tuple[Message, ...]
    instructions: tuple[Message, ...]
    answer_id: str
    answer: Message | None
    finish_reason: str
    usage: Usage | None
    error_code: str
    error: str
    created_at: float
    finished_at: float | None
    cost: float | None = None


class Kept(Struct, frozen=True, kw_only=True):
    """A turn that can be asked for by its id.

    `conversation_id` is "" where no list shows the conversation. `asked`: see ChatRequest.echo.
    """

    turn: TurnRecord
    conversation_id: str
    asked: dict[str, Any]


class Running(Struct, frozen=True, kw_only=True):
    """A turn that is being answered. `conversation_id` is "" where no list shows the conversation."""

    turn_id: str
    conversation_id: str
    created_at: float


class Branch(Struct, frozen=True, kw_only=True):
    """The end of a branch: fork the conversation at this turn to go on from here."""

    turn_id: str
    current: bool


class Conversation(Struct, frozen=True, kw_only=True):
    """Everything about one conversation.

    `messages` is the current path without the instructions; `tree` holds the messages of all branches
    and of failed turns, parents first. `head` is the id of the last message of the current path. `metadata`
    is what the caller has noted about it.
    """

    conversation_id: str
    title: str
    created_at: float
    updated_at: float
    instructions: tuple[Message, ...]
    messages: tuple[Message, ...]
    turns: tuple[TurnRecord, ...]
    branches: tuple[Branch, ...]
    tree: tuple[StoredMessage, ...]
    metadata: dict[str, str] = {}
    head: str = ""


class Match(Struct, frozen=True, kw_only=True):
    """A message that was found. `snippet` is plain text around the words."""

    conversation_id: str
    title: str
    turn_id: str
    role: str
    snippet: str
    created_at: float

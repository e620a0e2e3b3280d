"""Conversations of the past, as a store or a file has them."""

from __future__ import annotations

from msgspec.structs import replace

from modelway.conversations import Conversation, StoredMessage, TurnRecord
from modelway.types import Message, Usage

# One that has said nothing yet; what matters is replaced.
TURN = TurnRecord(
    id="turn_1",
    status="done",
    provider="Local",
    model="m",
    parent="",
    tail="msg_1",
    messages=(),
    instructions=(),
    answer_id="",
    answer=None,
    finish_reason="stop",
    usage=Usage(1, 2),
    error_code="",
    error="",
    created_at=1.0,
    finished_at=2.0,
)


def told_before(title: str, *said: tuple[str, str], at: float = 1.0, model: str = "m") -> Conversation:
    """A conversation of these questions and answers, whose first turn was at this time."""
    turns: list[TurnRecord] = []
    tree: list[StoredMessage] = []
    for n, (question, reply) in enumerate(said):
        asked = Message(role="user", content=question)
        answer = Message(role="assistant", content=reply)
        parent, tail, answer_id = f"msg_{2 * n:x}" if n else "", f"msg_{2 * n + 1:x}", f"msg_{2 * n + 2:x}"
        turn = replace(
            TURN,
            id=f"t{n}",
            model=model,
            parent=parent,
            tail=tail,
            messages=(asked,),
            answer_id=answer_id,
            answer=answer,
            created_at=at + n,
            finished_at=at + n + 1,
        )
        turns.append(turn)
        tree.append(StoredMessage(id=tail, parent=parent, turn_id=turn.id, message=asked))
        tree.append(StoredMessage(id=answer_id, parent=tail, turn_id=turn.id, message=answer))
    return Conversation(
        conversation_id="",
        title=title,
        created_at=at,
        updated_at=at,
        instructions=(),
        messages=(),
        turns=tuple(turns),
        branches=(),
        tree=tuple(tree),
        head=tree[-1].id,
    )

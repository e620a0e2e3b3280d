"""What a tool loop needs of earlier answers: blocks that only the upstream can read, sent back unchanged.

Claude's vendors demand an assistant's turn with a tool call back exactly as it was, thinking and its
signature included, until the loop ends. Earlier thinking may be left out, but then always: newer models
refuse thinking whose own beginning has changed. So all turns of the loop are kept, and none before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelway.types import ChatRequest, Message, UpstreamState

Block = dict[str, Any]

_STATE = "turns"


def replayed(request: ChatRequest) -> list[list[Block]]:
    """The turns to send back as they were, where the request goes on with a tool loop."""
    turns = (request.upstream_state or {}).get(_STATE, [])
    return turns if turns and _goes_on(request.messages) else []


def state_after(turns: Sequence[list[Block]], content: list[Block]) -> UpstreamState:
    """What to keep after an answer that calls tools; `turns` were replayed for it."""
    return UpstreamState({_STATE: [*turns, content]})


def _goes_on(messages: Sequence[Message]) -> bool:
    for message in reversed(messages):
        if message.role == "tool":
            return True
        if message.role == "assistant":
            return False
    return False

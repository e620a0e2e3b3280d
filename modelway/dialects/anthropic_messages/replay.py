"""What a tool loop needs of earlier answers: blocks that only the upstream can read, sent back unchanged.

Anthropic demands an assistant's turn with a tool call back exactly as it was, thinking and its signature
included, until the loop ends. Earlier thinking may be left out, but then always: newer models refuse
thinking whose own beginning has changed. So all turns of the loop are kept, and none of those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelway.types import ChatRequest, Message, UpstreamState

Block = dict[str, Any]

_PLAIN = ("text", "tool_use")
_STATE = "turns"


def replayed(request: ChatRequest) -> list[list[Block]]:
    """The turns to send back as they were, where the request goes on with a tool loop."""
    turns = (request.upstream_state or {}).get(_STATE, [])
    return turns if turns and _goes_on(request.messages) else []


def state_after(
    turns: Sequence[list[Block]], content: list[Block], *, calls_tools: bool
) -> UpstreamState | None:
    """What to keep after an answer with this content; `turns` were replayed for it."""
    needed = turns or any(block.get("type") not in _PLAIN for block in content)
    return UpstreamState({_STATE: [*turns, content]}) if calls_tools and needed else None


def call_ids(content: Sequence[Block]) -> tuple[str, ...]:
    """The ids of the calls among the blocks, by which a turn is known."""
    return tuple(block.get("id", "") for block in content if block.get("type") == "tool_use")


def _goes_on(messages: Sequence[Message]) -> bool:
    for message in reversed(messages):
        if message.role == "tool":
            return True
        if message.role == "assistant":
            return False
    return False

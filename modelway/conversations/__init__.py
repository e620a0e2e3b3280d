"""Durable memory: turns, history, forks, and the lease that lets one turn at a time in."""

from modelway.conversations.calls import refuse_nameless_results
from modelway.conversations.ephemeral import Ephemeral
from modelway.conversations.export import export_json, export_markdown
from modelway.conversations.records import (
    Branch,
    Conversation,
    Kept,
    Match,
    StoredMessage,
    Summary,
    TurnRecord,
)
from modelway.conversations.store import Conversations
from modelway.conversations.turn import Turn

__all__ = [
    "Branch",
    "Conversation",
    "Conversations",
    "Ephemeral",
    "Kept",
    "Match",
    "StoredMessage",
    "Summary",
    "Turn",
    "TurnRecord",
    "export_json",
    "export_markdown",
    "refuse_nameless_results",
]

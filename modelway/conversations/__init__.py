"""Durable memory: turns, history, forks, and the lease that lets one turn at a time in."""

from modelway.conversations.calls import refuse_nameless_results
from modelway.conversations.claims import Asking
from modelway.conversations.closing import CANCELLED
from modelway.conversations.ephemeral import Ephemeral, new_turn_id
from modelway.conversations.export import export_json, export_markdown
from modelway.conversations.log import Failed, Head
from modelway.conversations.records import (
    Branch,
    Conversation,
    Kept,
    Match,
    Running,
    StoredMessage,
    Summary,
    TurnRecord,
)
from modelway.conversations.store import Conversations
from modelway.conversations.streams import Readable
from modelway.conversations.turn import Turn

__all__ = [
    "CANCELLED",
    "Asking",
    "Branch",
    "Conversation",
    "Conversations",
    "Ephemeral",
    "Failed",
    "Head",
    "Kept",
    "Match",
    "Readable",
    "Running",
    "StoredMessage",
    "Summary",
    "Turn",
    "TurnRecord",
    "export_json",
    "export_markdown",
    "new_turn_id",
    "refuse_nameless_results",
]

"""Durable memory: turns, history, forks, and the lease that lets one turn at a time in."""

from modelway.conversations.allotments import NOTHING, Allotment
from modelway.conversations.callers import Callers
from modelway.conversations.calls import refuse_nameless_results
from modelway.conversations.claims import Asking
from modelway.conversations.closing import CANCELLED
from modelway.conversations.ephemeral import Ephemeral, new_turn_id
from modelway.conversations.export import export_json, export_markdown
from modelway.conversations.importing import check as check_importable
from modelway.conversations.instructing import is_passing
from modelway.conversations.log import Failed, Head, Item
from modelway.conversations.recalling import refuse_contradictions
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
from modelway.conversations.spending import Charge, Spending, Tab, day_of, report_lost
from modelway.conversations.store import Conversations
from modelway.conversations.streams import Readable
from modelway.conversations.turn import Turn

__all__ = [
    "CANCELLED",
    "NOTHING",
    "Allotment",
    "Asking",
    "Branch",
    "Callers",
    "Charge",
    "Conversation",
    "Conversations",
    "Ephemeral",
    "Failed",
    "Head",
    "Item",
    "Kept",
    "Match",
    "Readable",
    "Running",
    "Spending",
    "StoredMessage",
    "Summary",
    "Tab",
    "Turn",
    "TurnRecord",
    "check_importable",
    "day_of",
    "export_json",
    "export_markdown",
    "is_passing",
    "new_turn_id",
    "refuse_contradictions",
    "refuse_nameless_results",
    "report_lost",
]

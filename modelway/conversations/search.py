"""Full-text search with SQLite's FTS5.

Indexing a message costs ten times as much as storing it (190 against 12 us for 1 KB), so turns
leave it to the search: it first indexes, in small batches, what has come since the last one.
"""

from __future__ import annotations

import re
import unicodedata

from modelway.conversations.ledger import Ledger
from modelway.conversations.records import Match

SEARCH_SCHEMA = (
    """CREATE VIRTUAL TABLE message_search USING fts5(
        text, content='messages', content_rowid='id', tokenize='unicode61 remove_diacritics 2')""",
    """CREATE TRIGGER message_search_delete AFTER DELETE ON messages
        WHEN old.indexed AND old.text <> '' BEGIN
        INSERT INTO message_search(message_search, rowid, text) VALUES ('delete', old.id, old.text);
    END""",
)

_BATCH = 128
_MAX_WORDS = 32
_WORD = re.compile(r"[^\W_]+")

_INDEX = """INSERT INTO message_search(rowid, text)
    SELECT id, text FROM messages WHERE NOT indexed ORDER BY id LIMIT :batch"""
_MARK = """UPDATE messages SET indexed = 1 WHERE id IN
    (SELECT id FROM messages WHERE NOT indexed ORDER BY id LIMIT :batch)"""

_FIND = """SELECT c.name, c.title, m.turn, m.role, t.created_at,
        snippet(message_search, 0, '', '', '…', 24)
    FROM message_search
    JOIN messages m ON m.id = message_search.rowid
    JOIN turns t ON t.id = m.turn
    JOIN conversations c ON c.id = t.conversation
    WHERE message_search MATCH :query AND c.caller = :caller AND NOT c.hidden
    ORDER BY m.id DESC LIMIT :limit"""


def index_some(ledger: Ledger) -> bool:
    """Index a batch of messages; True where more may be left."""
    values = {"batch": _BATCH}
    ledger.run(_INDEX, values)
    return ledger.run(_MARK, values) == _BATCH


def find(ledger: Ledger, caller: str, text: str, limit: int) -> list[Match]:
    """Messages that hold all words of the text, the last one as a beginning; newest first."""
    query = _query(text)
    if not query:
        return []
    found = ledger.all(_FIND, {"query": query, "caller": caller, "limit": limit})
    return [
        Match(
            conversation_id=name, title=title, turn_id=turn, role=role, snippet=snippet, created_at=created_at
        )
        for name, title, turn, role, created_at, snippet in found
    ]


def _query(text: str) -> str:
    """FTS5's words for it. Quoted words cannot be operators, and hold no quote themselves."""
    # Composed, because Python's \w ends a word at an accent that stands alone, and FTS5 does not.
    words = _WORD.findall(unicodedata.normalize("NFC", text))[:_MAX_WORDS]
    return " ".join(f'"{word}"' for word in words) + "*" if words else ""

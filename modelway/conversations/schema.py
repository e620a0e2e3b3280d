"""The tables of the store, for SQLite and PostgreSQL alike.

Messages form trees: `parent` leads to the message before, and `hash` covers everything from the root, so
that equal beginnings are one row. Conversations that were forked from each other share a `tree`; each has
its own `head`. Lists leave out a conversation that is `hidden`; a turn that was `asked` for as a response
has there what the response repeats. Only the references that deleting walks along are declared as foreign
keys, because every declared one needs an index of its own, which each turn would pay for.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

VERSION = 3

# SQLite makes only a column of exactly this type the key of the table itself.
_Id = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("tree", _Id, nullable=False),
    Column("caller", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("head", _Id),
    Column("instructions", _Id),
    Column("state", LargeBinary),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Float),
    Column("lease_turn", Text),
    Column("hidden", Boolean, nullable=False),
    Column("metadata", LargeBinary),
    UniqueConstraint("caller", "name"),
)
Index(
    "conversations_by_time",
    conversations.c.caller,
    conversations.c.hidden,
    conversations.c.updated_at,
    conversations.c.id,
)
# Most conversations are not forks: the key of their tree is their own.
Index(
    "conversations_forked",
    conversations.c.tree,
    sqlite_where=text("tree <> id"),
    postgresql_where=text("tree <> id"),
)
Index(
    "conversations_leased",
    conversations.c.lease_owner,
    sqlite_where=text("lease_turn IS NOT NULL"),
    postgresql_where=text("lease_turn IS NOT NULL"),
)

instructions = Table(
    "instructions",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("tree", _Id, nullable=False, index=True),
    Column("hash", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("tree", _Id, nullable=False),
    Column("parent", _Id),
    Column("depth", Integer, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("turn", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("rest", LargeBinary),
    Column("indexed", Boolean, nullable=False),
)
Index("messages_by_hash", messages.c.tree, messages.c.hash)
Index(
    "messages_unindexed",
    messages.c.id,
    sqlite_where=text("NOT indexed"),
    postgresql_where=text("NOT indexed"),
)

turns = Table(
    "turns",
    metadata,
    Column("id", Text, primary_key=True),
    Column(
        "conversation",
        _Id,
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("status", Text, nullable=False),
    Column("parent", _Id),
    Column("tail", _Id),
    Column("answer", _Id),
    Column("instructions", _Id),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("finish_reason", Text, nullable=False),
    Column("usage", LargeBinary),
    Column("error_code", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("asked", LargeBinary),
    sqlite_with_rowid=False,
)

# What a caller has asked under a key of its own, and the turn that answers it.
request_keys = Table(
    "request_keys",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("turn", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("created_at", Float, nullable=False, index=True),
)

# Until when somebody reads an answer at another server than the one that has asked for it.
readings = Table(
    "readings",
    metadata,
    Column("turn", Text, primary_key=True),
    Column("until", Float, nullable=False),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("turn", Text, ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("events", LargeBinary, nullable=False),
)

# Callers' keys. `digest` is the SHA-256 of one; `hint` is its beginning, by which people tell keys apart.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("rules", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
)

# What each server has taken of the limits of callers; `owner` is the server.
allotments = Table(
    "allotments",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("streams", Integer, nullable=False),
    Column("written_at", Float, nullable=False),
    sqlite_with_rowid=False,
)

# What answers cost, by the day (UTC) on which they ended. `nanos` are billionths of a dollar; of the
# `requests` so many are `estimated`, because nobody told their tokens, or `unpriced`.
spending = Table(
    "spending",
    metadata,
    Column("day", Text, primary_key=True),
    Column("caller", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("estimated", Integer, nullable=False),
    Column("unpriced", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("nanos", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What a turn costs: `body` tells, while it is open, its price, so that a crash does not make it free; `nanos`
# are there once it has ended.
costs = Table(
    "costs",
    metadata,
    Column("turn", Text, ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("nanos", BigInteger),
    sqlite_with_rowid=False,
)

# How long a turn took until its first text came, where somebody measured it.
measurements = Table(
    "measurements",
    metadata,
    Column("turn", Text, ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True),
    Column("first_s", Float, nullable=False),
    sqlite_with_rowid=False,
)

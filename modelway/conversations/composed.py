"""The schema and the statements in SQLite's words. Written by `make sql` out of statements.py."""

from modelway.conversations.sql import Statements

VERSION = 3

SCHEMA = (
    (
        "CREATE TABLE allotments ( caller TEXT NOT NULL, owner TEXT NOT NULL, requests INTEGER NOT "
        "NULL, tokens BIGINT NOT NULL, streams INTEGER NOT NULL, written_at FLOAT NOT NULL, PRIMARY"
        " KEY (caller, owner) ) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE api_keys ( id INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, "
        "hint TEXT NOT NULL, rules BLOB NOT NULL, created_at FLOAT NOT NULL, expires_at FLOAT, "
        "revoked_at FLOAT, PRIMARY KEY (id), UNIQUE (digest) )"
    ),
    (
        "CREATE TABLE conversations ( id INTEGER NOT NULL, tree INTEGER NOT NULL, caller TEXT NOT "
        "NULL, name TEXT NOT NULL, title TEXT NOT NULL, head INTEGER, instructions INTEGER, state "
        "BLOB, created_at FLOAT NOT NULL, updated_at FLOAT NOT NULL, lease_owner TEXT, lease_until "
        "FLOAT, lease_turn TEXT, hidden BOOLEAN NOT NULL, metadata BLOB, PRIMARY KEY (id), UNIQUE "
        "(caller, name) )"
    ),
    ("CREATE INDEX conversations_by_time ON conversations (caller, hidden, updated_at, id)"),
    ("CREATE INDEX conversations_forked ON conversations (tree) WHERE tree <> id"),
    ("CREATE INDEX conversations_leased ON conversations (lease_owner) WHERE lease_turn IS NOT NULL"),
    (
        "CREATE TABLE instructions ( id INTEGER NOT NULL, tree INTEGER NOT NULL, hash BLOB NOT "
        "NULL, body BLOB NOT NULL, PRIMARY KEY (id) )"
    ),
    "CREATE INDEX ix_instructions_tree ON instructions (tree)",
    (
        "CREATE TABLE messages ( id INTEGER NOT NULL, tree INTEGER NOT NULL, parent INTEGER, depth "
        "INTEGER NOT NULL, hash BLOB NOT NULL, turn TEXT NOT NULL, role TEXT NOT NULL, text TEXT "
        'NOT NULL, rest BLOB, "indexed" BOOLEAN NOT NULL, PRIMARY KEY (id) )'
    ),
    "CREATE INDEX messages_by_hash ON messages (tree, hash)",
    ("CREATE INDEX messages_unindexed ON messages (id) WHERE NOT indexed"),
    ("CREATE TABLE readings ( turn TEXT NOT NULL, until FLOAT NOT NULL, PRIMARY KEY (turn) ) WITHOUT ROWID"),
    (
        'CREATE TABLE request_keys ( caller TEXT NOT NULL, "key" TEXT NOT NULL, fingerprint BLOB '
        "NOT NULL, turn TEXT NOT NULL, owner TEXT NOT NULL, created_at FLOAT NOT NULL, PRIMARY KEY "
        '(caller, "key") )'
    ),
    ("CREATE INDEX ix_request_keys_created_at ON request_keys (created_at)"),
    (
        "CREATE TABLE spending ( day TEXT NOT NULL, caller TEXT NOT NULL, provider TEXT NOT NULL, "
        "model TEXT NOT NULL, requests INTEGER NOT NULL, estimated INTEGER NOT NULL, unpriced "
        "INTEGER NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, nanos "
        "BIGINT NOT NULL, PRIMARY KEY (day, caller, provider, model) ) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE turns ( id TEXT NOT NULL, conversation INTEGER NOT NULL, status TEXT NOT "
        "NULL, parent INTEGER, tail INTEGER, answer INTEGER, instructions INTEGER, provider TEXT "
        "NOT NULL, model TEXT NOT NULL, finish_reason TEXT NOT NULL, usage BLOB, error_code TEXT "
        "NOT NULL, error TEXT NOT NULL, created_at FLOAT NOT NULL, finished_at FLOAT, asked BLOB, "
        "PRIMARY KEY (id), FOREIGN KEY(conversation) REFERENCES conversations (id) ON DELETE "
        "CASCADE ) WITHOUT ROWID"
    ),
    "CREATE INDEX ix_turns_conversation ON turns (conversation)",
    (
        "CREATE TABLE checkpoints ( turn TEXT NOT NULL, seq INTEGER NOT NULL, events BLOB NOT NULL,"
        " PRIMARY KEY (turn, seq), FOREIGN KEY(turn) REFERENCES turns (id) ON DELETE CASCADE )"
    ),
    (
        "CREATE TABLE costs ( turn TEXT NOT NULL, body BLOB NOT NULL, nanos BIGINT, PRIMARY KEY "
        "(turn), FOREIGN KEY(turn) REFERENCES turns (id) ON DELETE CASCADE ) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE measurements ( turn TEXT NOT NULL, first_s FLOAT NOT NULL, PRIMARY KEY "
        "(turn), FOREIGN KEY(turn) REFERENCES turns (id) ON DELETE CASCADE ) WITHOUT ROWID"
    ),
)

STATEMENTS = Statements(
    find_conversation=(
        "SELECT conversations.id, conversations.tree, conversations.head, "
        "conversations.instructions, instructions.hash, instructions.body, conversations.state, "
        "conversations.lease_owner, conversations.lease_until, conversations.lease_turn, "
        "conversations.title, conversations.hidden FROM conversations LEFT OUTER JOIN instructions "
        "ON instructions.id = conversations.instructions WHERE conversations.caller = :caller AND "
        "conversations.name = :name"
    ),
    insert_conversation=(
        "INSERT INTO conversations (id, tree, caller, name, title, head, instructions, state, "
        "created_at, updated_at, lease_owner, lease_until, lease_turn, hidden, metadata) VALUES "
        "(:id, :tree, :caller, :name, :title, :head, :instructions, :state, :created_at, "
        ":updated_at, :lease_owner, :lease_until, :lease_turn, :hidden, :metadata)"
    ),
    take_lease=(
        "UPDATE conversations SET lease_owner=:owner, lease_until=:until, lease_turn=:turn WHERE "
        "conversations.id = :conversation"
    ),
    free_lease=(
        "UPDATE conversations SET state=CASE WHEN :drop_state THEN NULL ELSE conversations.state "
        "END, lease_owner=NULL, lease_until=NULL, lease_turn=NULL WHERE conversations.id = "
        ":conversation AND conversations.lease_turn = :turn"
    ),
    settle=(
        "UPDATE conversations SET head=:new_head, instructions=:in_force, state=:new_state, "
        "updated_at=:now, lease_owner=NULL, lease_until=NULL, lease_turn=NULL WHERE "
        "conversations.id = :conversation AND conversations.lease_turn = :turn"
    ),
    extend_lease=(
        "UPDATE conversations SET lease_until=:until WHERE conversations.id = :conversation AND "
        "conversations.lease_turn = :turn"
    ),
    read_leases=(
        "SELECT conversations.id, conversations.lease_owner, conversations.lease_turn, "
        "conversations.lease_until FROM conversations WHERE conversations.lease_turn IS NOT NULL"
    ),
    insert_instructions=("INSERT INTO instructions (id, tree, hash, body) VALUES (:id, :tree, :hash, :body)"),
    insert_message=(
        'INSERT INTO messages (id, tree, parent, depth, hash, turn, role, text, rest, "indexed") '
        "VALUES (:id, :tree, :parent, :depth, :hash, :turn, :role, :text, :rest, :indexed)"
    ),
    find_message=(
        "SELECT max(messages.id) AS max_1 FROM messages WHERE messages.tree = :tree AND messages.hash = :hash"
    ),
    read_path=(
        "WITH RECURSIVE path(id, parent, depth, hash, role, text, rest) AS (SELECT messages.id AS "
        "id, messages.parent AS parent, messages.depth AS depth, messages.hash AS hash, "
        "messages.role AS role, messages.text AS text, messages.rest AS rest FROM messages WHERE "
        "messages.id = :head UNION ALL SELECT messages.id AS id, messages.parent AS parent, "
        "messages.depth AS depth, messages.hash AS hash, messages.role AS role, messages.text AS "
        "text, messages.rest AS rest FROM messages, path WHERE messages.id = path.parent) SELECT "
        "path.id, path.hash, path.role, path.text, path.rest FROM path ORDER BY path.depth"
    ),
    insert_turn=(
        "INSERT INTO turns (id, conversation, status, parent, tail, answer, instructions, provider,"
        " model, finish_reason, usage, error_code, error, created_at, finished_at, asked) VALUES "
        "(:id, :conversation, :status, :parent, :tail, :answer, :instructions, :provider, :model, "
        ":finish_reason, :usage, :error_code, :error, :created_at, :finished_at, :asked)"
    ),
    close_turn=(
        "UPDATE turns SET status=:new_status, answer=:new_answer, provider=:by, model=:using, "
        "finish_reason=:reason, usage=:used, error_code=:code, error=:reported, finished_at=:now "
        "WHERE turns.id = :turn"
    ),
    read_turn=(
        "SELECT conversations.tree, turns.tail, turns.instructions, conversations.hidden FROM turns"
        " JOIN conversations ON conversations.id = turns.conversation WHERE turns.id = :turn"
    ),
    insert_checkpoint=(
        "INSERT INTO checkpoints (turn, seq, events) SELECT :turn AS anon_1, :seq AS anon_2, "
        ":events AS anon_3 WHERE EXISTS (SELECT * FROM conversations WHERE conversations.id = "
        ":conversation AND conversations.lease_turn = :turn)"
    ),
    insert_last_piece=("INSERT INTO checkpoints (turn, seq, events) VALUES (:turn, :seq, :events)"),
    read_checkpoints=(
        "SELECT checkpoints.events FROM checkpoints WHERE checkpoints.turn = :turn ORDER BY checkpoints.seq"
    ),
    drop_checkpoints="DELETE FROM checkpoints WHERE checkpoints.turn = :turn",
    find_log=(
        "SELECT turns.status, turns.error_code, turns.error, turns.finished_at, "
        "turns.finish_reason, turns.conversation, conversations.lease_owner, "
        "conversations.lease_until FROM turns JOIN conversations ON conversations.id = "
        "turns.conversation WHERE conversations.caller = :caller AND turns.id = :turn"
    ),
    find_open_turn=(
        "SELECT conversations.id, conversations.name, conversations.tree, conversations.hidden, "
        "turns.tail, turns.instructions, instructions.body, turns.created_at, "
        "conversations.lease_owner, conversations.lease_until FROM conversations JOIN turns ON "
        "conversations.lease_turn = turns.id LEFT OUTER JOIN instructions ON instructions.id = "
        "turns.instructions WHERE conversations.caller = :caller AND turns.id = :turn AND "
        "turns.status = 'open'"
    ),
    read_pieces=(
        "SELECT checkpoints.seq, checkpoints.events FROM checkpoints WHERE checkpoints.turn = :turn"
        " AND checkpoints.seq > :after ORDER BY checkpoints.seq LIMIT :limit OFFSET 0"
    ),
    newest_turn=(
        "SELECT turns.id FROM turns JOIN conversations ON conversations.id = turns.conversation "
        "WHERE conversations.caller = :caller AND conversations.name = :name AND "
        "conversations.hidden = 0 ORDER BY turns.created_at DESC, turns.id DESC"
    ),
    running_turns=(
        "SELECT turns.id, CASE WHEN conversations.hidden THEN '' ELSE conversations.name END AS "
        "anon_1, turns.created_at, conversations.lease_owner, conversations.lease_until FROM "
        "conversations JOIN turns ON conversations.lease_turn = turns.id WHERE conversations.caller"
        " = :caller AND conversations.lease_turn IS NOT NULL ORDER BY turns.created_at"
    ),
    find_key=(
        "SELECT request_keys.fingerprint, request_keys.turn, request_keys.owner, "
        "request_keys.created_at FROM request_keys WHERE request_keys.caller = :caller AND "
        'request_keys."key" = :key'
    ),
    insert_key=(
        'INSERT INTO request_keys (caller, "key", fingerprint, turn, owner, created_at) VALUES '
        "(:caller, :key, :fingerprint, :turn, :owner, :created_at)"
    ),
    drop_key=('DELETE FROM request_keys WHERE request_keys.caller = :caller AND request_keys."key" = :key'),
    drop_unopened_keys=(
        "DELETE FROM request_keys WHERE request_keys.owner = :gone AND NOT (EXISTS (SELECT * FROM "
        "turns WHERE turns.id = request_keys.turn))"
    ),
    insert_reading="INSERT INTO readings (turn, until) VALUES (:turn, :until)",
    drop_reading="DELETE FROM readings WHERE readings.turn = :turn",
    find_reading=("SELECT readings.until FROM readings WHERE readings.turn = :turn"),
    drop_old_readings="DELETE FROM readings WHERE readings.turn < :before_turn",
    drop_old_keys=(
        'DELETE FROM request_keys WHERE (request_keys.caller, request_keys."key") IN (SELECT '
        'old.caller, old."key" FROM request_keys AS old WHERE old.created_at < :until LIMIT :limit '
        "OFFSET 0)"
    ),
    drop_old_pieces=(
        "DELETE FROM checkpoints WHERE (checkpoints.turn, checkpoints.seq) IN (SELECT old.turn, "
        "old.seq FROM checkpoints AS old WHERE old.turn < :before_turn AND (old.turn NOT IN (SELECT"
        " conversations.lease_turn FROM conversations WHERE conversations.lease_turn IS NOT NULL)) "
        "LIMIT :limit OFFSET 0)"
    ),
    expired_hidden=(
        "SELECT conversations.id, conversations.tree FROM conversations WHERE conversations.hidden "
        "= 1 AND conversations.lease_turn IS NULL AND (conversations.updated_at < :asked_until OR "
        "conversations.updated_at < :unasked_until AND NOT (EXISTS (SELECT * FROM turns WHERE "
        "turns.conversation = conversations.id AND turns.asked IS NOT NULL))) LIMIT :limit OFFSET 0"
    ),
    is_expired=(
        "SELECT conversations.id, conversations.tree FROM conversations WHERE conversations.hidden "
        "= 1 AND conversations.lease_turn IS NULL AND (conversations.updated_at < :asked_until OR "
        "conversations.updated_at < :unasked_until AND NOT (EXISTS (SELECT * FROM turns WHERE "
        "turns.conversation = conversations.id AND turns.asked IS NOT NULL))) AND conversations.id "
        "= :conversation"
    ),
    forget_turns="UPDATE turns SET asked=NULL WHERE turns.conversation = :of",
    list_conversations=(
        "SELECT conversations.name, conversations.title, conversations.created_at, "
        "conversations.updated_at FROM conversations WHERE conversations.caller = :caller AND "
        "conversations.hidden = 0 AND (:before = '' OR (EXISTS (SELECT * FROM conversations AS last"
        " WHERE last.caller = conversations.caller AND last.name = :before AND "
        "(conversations.updated_at, conversations.id) < (last.updated_at, last.id)))) ORDER BY "
        "conversations.updated_at DESC, conversations.id DESC LIMIT :limit OFFSET 0"
    ),
    show_conversation=(
        "SELECT conversations.id, conversations.tree, conversations.head, conversations.title, "
        "conversations.created_at, conversations.updated_at, conversations.instructions, "
        "conversations.metadata FROM conversations WHERE conversations.caller = :caller AND "
        "conversations.name = :name AND conversations.hidden = 0"
    ),
    set_metadata=(
        "UPDATE conversations SET metadata=:metadata WHERE conversations.caller = :of AND "
        "conversations.name = :called AND conversations.hidden = 0"
    ),
    set_title=("UPDATE conversations SET title=:title WHERE conversations.id = :conversation"),
    find_turn=(
        "SELECT turns.id, turns.conversation, turns.status, turns.parent, turns.tail, turns.answer,"
        " turns.instructions, turns.provider, turns.model, turns.finish_reason, turns.usage, "
        "turns.error_code, turns.error, turns.created_at, turns.finished_at, turns.asked, "
        "conversations.name, conversations.tree, conversations.hidden, instructions.hash, "
        "instructions.body FROM turns JOIN conversations ON conversations.id = turns.conversation "
        "LEFT OUTER JOIN instructions ON instructions.id = turns.instructions WHERE "
        "conversations.caller = :caller AND turns.id = :turn AND turns.asked IS NOT NULL"
    ),
    forget_turn="UPDATE turns SET asked=NULL WHERE turns.id = :turn",
    drop_state=("UPDATE conversations SET state=NULL WHERE conversations.id = :conversation"),
    read_tree=(
        "SELECT messages.id, messages.parent, messages.turn FROM messages WHERE messages.tree = "
        ":tree ORDER BY messages.depth, messages.id"
    ),
    read_messages=(
        "SELECT messages.id, messages.role, messages.text, messages.rest FROM messages WHERE "
        "messages.tree = :tree"
    ),
    read_turns=(
        "SELECT turns.id, turns.conversation, turns.status, turns.parent, turns.tail, turns.answer,"
        " turns.instructions, turns.provider, turns.model, turns.finish_reason, turns.usage, "
        "turns.error_code, turns.error, turns.created_at, turns.finished_at, turns.asked FROM turns"
        " JOIN conversations ON conversations.id = turns.conversation WHERE conversations.id = "
        ":tree OR conversations.tree = :tree AND conversations.tree != conversations.id ORDER BY "
        "turns.created_at, turns.id"
    ),
    read_instructions=(
        "SELECT instructions.id, instructions.body FROM instructions WHERE instructions.tree = :tree"
    ),
    sharing_conversations=(
        "SELECT conversations.id, conversations.head FROM conversations WHERE (conversations.id = "
        ":tree OR conversations.tree = :tree AND conversations.tree != conversations.id) AND "
        "conversations.id != :conversation"
    ),
    move_turn="UPDATE turns SET conversation=:to WHERE turns.id = :turn",
    drop_message="DELETE FROM messages WHERE messages.id = :message",
    drop_tree="DELETE FROM messages WHERE messages.tree = :tree",
    drop_instructions=(
        "DELETE FROM instructions WHERE instructions.tree = :tree AND NOT (EXISTS (SELECT * FROM "
        "conversations WHERE (conversations.id = instructions.tree OR conversations.tree = "
        "instructions.tree AND conversations.tree != conversations.id) AND "
        "conversations.instructions = instructions.id)) AND NOT (EXISTS (SELECT * FROM "
        "conversations, turns WHERE (conversations.id = instructions.tree OR conversations.tree = "
        "instructions.tree AND conversations.tree != conversations.id) AND turns.conversation = "
        "conversations.id AND turns.instructions = instructions.id))"
    ),
    drop_conversation=("DELETE FROM conversations WHERE conversations.id = :conversation"),
)

-- A store as version 2 made it, with one conversation.
CREATE TABLE conversations ( id INTEGER NOT NULL, tree INTEGER NOT NULL, caller TEXT NOT NULL, name TEXT NOT
    NULL, title TEXT NOT NULL, head INTEGER, instructions INTEGER, state BLOB, created_at FLOAT NOT NULL,
    updated_at FLOAT NOT NULL, lease_owner TEXT, lease_until FLOAT, lease_turn TEXT, hidden BOOLEAN NOT
    NULL, metadata BLOB, PRIMARY KEY (id), UNIQUE (caller, name) );
CREATE INDEX conversations_forked ON conversations (tree) WHERE tree <> id;
CREATE INDEX conversations_by_time ON conversations (caller, hidden, updated_at, id);
CREATE INDEX conversations_leased ON conversations (lease_owner) WHERE lease_turn IS NOT NULL;
CREATE TABLE instructions ( id INTEGER NOT NULL, tree INTEGER NOT NULL, hash BLOB NOT NULL, body BLOB NOT
    NULL, PRIMARY KEY (id) );
CREATE INDEX ix_instructions_tree ON instructions (tree);
CREATE TABLE messages ( id INTEGER NOT NULL, tree INTEGER NOT NULL, parent INTEGER, depth INTEGER NOT NULL,
    hash BLOB NOT NULL, turn TEXT NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL, rest BLOB, "indexed"
    BOOLEAN NOT NULL, PRIMARY KEY (id) );
CREATE INDEX messages_by_hash ON messages (tree, hash);
CREATE INDEX messages_unindexed ON messages (id) WHERE NOT indexed;
CREATE TABLE turns ( id TEXT NOT NULL, conversation INTEGER NOT NULL, status TEXT NOT NULL, parent INTEGER,
    tail INTEGER, answer INTEGER, instructions INTEGER, provider TEXT NOT NULL, model TEXT NOT NULL,
    finish_reason TEXT NOT NULL, usage BLOB, error_code TEXT NOT NULL, error TEXT NOT NULL, created_at FLOAT
    NOT NULL, finished_at FLOAT, asked BLOB, PRIMARY KEY (id), FOREIGN KEY(conversation) REFERENCES
    conversations (id) ON DELETE CASCADE ) WITHOUT ROWID;
CREATE INDEX ix_turns_conversation ON turns (conversation);
CREATE TABLE checkpoints ( turn TEXT NOT NULL, seq INTEGER NOT NULL, events BLOB NOT NULL, PRIMARY KEY
    (turn, seq), FOREIGN KEY(turn) REFERENCES turns (id) ON DELETE CASCADE );
CREATE VIRTUAL TABLE message_search USING fts5( text, content='messages', content_rowid='id',
    tokenize='unicode61 remove_diacritics 2');
CREATE TRIGGER message_search_delete AFTER DELETE ON messages WHEN old.indexed AND old.text <> '' BEGIN
    INSERT INTO message_search(message_search, rowid, text) VALUES ('delete', old.id, old.text); END;
INSERT INTO conversations (id, tree, caller, name, title, head, created_at, updated_at, hidden, metadata)
    VALUES (1, 1, 'me', 'c', 'hello', 3, 1.0, 1.0, 0, NULL);
INSERT INTO messages VALUES (2, 1, NULL, 1, x'01', 'turn_1', 'user', 'hello', NULL, 0);
INSERT INTO messages VALUES (3, 1, 2, 2, x'02', 'turn_1', 'assistant', 'hi', NULL, 0);
INSERT INTO turns (id, conversation, status, tail, answer, provider, model, finish_reason, error_code, error,
    created_at, finished_at, asked)
    VALUES ('turn_1', 1, 'done', 2, 3, 'P', 'm', 'stop', '', '', 1.0, 1.0, NULL);
PRAGMA user_version = 2;

"""What the store asks of its database, each as the text that the driver takes."""

from __future__ import annotations

from msgspec import Struct


class Statements(Struct, frozen=True, kw_only=True):
    """SQL by what it does; parameters are named like the columns, and as the comments below say."""

    find_conversation: str
    insert_conversation: str
    take_lease: str
    free_lease: str
    settle: str
    extend_lease: str
    read_leases: str
    insert_instructions: str
    insert_message: str
    find_message: str
    read_path: str
    insert_turn: str
    close_turn: str
    read_turn: str
    insert_checkpoint: str
    insert_last_piece: str
    read_checkpoints: str
    drop_checkpoints: str
    find_log: str
    find_open_turn: str
    read_pieces: str
    newest_turn: str
    running_turns: str
    find_key: str
    insert_key: str
    drop_key: str
    drop_unopened_keys: str
    insert_reading: str
    drop_reading: str
    find_reading: str
    drop_old_readings: str
    drop_old_keys: str
    drop_old_pieces: str
    expired_hidden: str
    is_expired: str
    forget_turns: str
    list_conversations: str
    show_conversation: str
    set_metadata: str
    set_title: str
    find_turn: str
    forget_turn: str
    drop_state: str
    read_tree: str
    read_messages: str
    read_turns: str
    read_instructions: str
    sharing_conversations: str
    move_turn: str
    drop_message: str
    drop_tree: str
    drop_instructions: str
    drop_conversation: str

"""Composes the statements and the schema; a program does it that writes composed.py, never the server."""

from __future__ import annotations

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from modelway.conversations.schema import (
    checkpoints,
    conversations,
    instructions,
    messages,
    readings,
    request_keys,
    turns,
)
from modelway.conversations.sql import Statements


def compose(dialect: Dialect) -> Statements:
    """All statements in the words of one database."""
    by_subject = (_holding(), _saying(), _answering(), _logging(), _claiming(), _showing(), _deleting())
    return Statements(
        **{
            name: str(statement.compile(dialect=dialect))
            for some in by_subject
            for name, statement in some.items()
        }
    )


def _holding() -> dict[str, ClauseElement]:
    """Who holds a conversation, and how a turn leaves it."""
    c = conversations.c
    mine = (c.id == bindparam("conversation"), c.lease_turn == bindparam("turn"))
    unleased = {"lease_owner": null(), "lease_until": null(), "lease_turn": null()}
    return {
        "find_conversation": _find_conversation(),
        "insert_conversation": insert(conversations),
        "take_lease": update(conversations)
        .where(c.id == bindparam("conversation"))
        .values(
            lease_owner=bindparam("owner"),
            lease_until=bindparam("until"),
            lease_turn=bindparam("turn"),
        ),
        # The conversation keeps its head; `drop_state` says whether the upstream may have moved on.
        "free_lease": update(conversations)
        .where(*mine)
        .values(state=case((bindparam("drop_state"), null()), else_=c.state), **unleased),
        "settle": update(conversations)
        .where(*mine)
        .values(
            head=bindparam("new_head"),
            instructions=bindparam("in_force"),
            state=bindparam("new_state"),
            updated_at=bindparam("now"),
            **unleased,
        ),
        "extend_lease": update(conversations).where(*mine).values(lease_until=bindparam("until")),
        "read_leases": select(c.id, c.lease_owner, c.lease_turn, c.lease_until).where(
            c.lease_turn.is_not(None)
        ),
        "drop_state": update(conversations).where(c.id == bindparam("conversation")).values(state=null()),
    }


def _saying() -> dict[str, ClauseElement]:
    """What is said, message by message."""
    m = messages.c
    return {
        "insert_instructions": insert(instructions),
        "insert_message": insert(messages),
        "find_message": select(func.max(m.id)).where(
            m.tree == bindparam("tree"), m.hash == bindparam("hash")
        ),
        "read_path": _read_path(),
    }


def _answering() -> dict[str, ClauseElement]:
    """Turns: begun, ended, asked for."""
    c, t = conversations.c, turns.c
    return {
        "insert_turn": insert(turns),
        "close_turn": update(turns)
        .where(t.id == bindparam("turn"))
        .values(
            status=bindparam("new_status"),
            answer=bindparam("new_answer"),
            provider=bindparam("by"),
            model=bindparam("using"),
            finish_reason=bindparam("reason"),
            usage=bindparam("used"),
            error_code=bindparam("code"),
            error=bindparam("reported"),
            finished_at=bindparam("now"),
        ),
        "read_turn": select(c.tree, t.tail, t.instructions, c.hidden)
        .select_from(turns.join(conversations, c.id == t.conversation))
        .where(t.id == bindparam("turn")),
        "find_turn": _find_turn(),
        "find_open_turn": _find_open_turn(),
        "newest_turn": _newest_turn(),
        "running_turns": _running_turns(),
        "forget_turn": update(turns).where(t.id == bindparam("turn")).values(asked=null()),
        "forget_turns": update(turns).where(t.conversation == bindparam("of")).values(asked=null()),
    }


def _logging() -> dict[str, ClauseElement]:
    """What has come of an answer, and until when somebody reads it."""
    r = readings
    return {
        "insert_checkpoint": _insert_checkpoint(),
        "insert_last_piece": insert(checkpoints),
        "read_checkpoints": select(checkpoints.c.events)
        .where(checkpoints.c.turn == bindparam("turn"))
        .order_by(checkpoints.c.seq),
        "drop_checkpoints": delete(checkpoints).where(checkpoints.c.turn == bindparam("turn")),
        "drop_old_pieces": _drop_old_pieces(),
        "find_log": _find_log(),
        "read_pieces": select(checkpoints.c.seq, checkpoints.c.events)
        .where(checkpoints.c.turn == bindparam("turn"), checkpoints.c.seq > bindparam("after"))
        .order_by(checkpoints.c.seq)
        .limit(bindparam("limit"))
        .offset(literal_column("0")),
        "insert_reading": insert(r),
        "find_reading": select(r.c.until).where(r.c.turn == bindparam("turn")),
        "drop_reading": delete(r).where(r.c.turn == bindparam("turn")),
        "drop_old_readings": delete(r).where(r.c.turn < bindparam("before_turn")),
    }


def _claiming() -> dict[str, ClauseElement]:
    """Keys of requests that may come twice."""
    t, k = turns.c, request_keys
    return {
        "find_key": select(k.c.fingerprint, k.c.turn, k.c.owner, k.c.created_at).where(
            k.c.caller == bindparam("caller"), k.c.key == bindparam("key")
        ),
        "insert_key": insert(k),
        "drop_key": delete(k).where(k.c.caller == bindparam("caller"), k.c.key == bindparam("key")),
        "drop_unopened_keys": delete(k).where(
            k.c.owner == bindparam("gone"), ~exists().where(t.id == k.c.turn)
        ),
        "drop_old_keys": _drop_old_keys(),
    }


def _showing() -> dict[str, ClauseElement]:
    """Conversations as their people see them."""
    c, m, t = conversations.c, messages.c, turns.c
    return {
        "list_conversations": _list_conversations(),
        "show_conversation": select(
            c.id, c.tree, c.head, c.title, c.created_at, c.updated_at, c.instructions, c.metadata
        ).where(c.caller == bindparam("caller"), c.name == bindparam("name"), ~c.hidden),
        "set_metadata": update(conversations)
        .where(c.caller == bindparam("of"), c.name == bindparam("called"), ~c.hidden)
        .values(metadata=bindparam("metadata")),
        "set_title": update(conversations)
        .where(c.id == bindparam("conversation"))
        .values(title=bindparam("title")),
        "read_tree": select(m.id, m.parent, m.turn)
        .where(m.tree == bindparam("tree"))
        .order_by(m.depth, m.id),
        "read_messages": select(m.id, m.role, m.text, m.rest).where(m.tree == bindparam("tree")),
        "read_turns": select(turns)
        .select_from(turns.join(conversations, c.id == t.conversation))
        .where(_of_tree(bindparam("tree")))
        .order_by(t.created_at, t.id),
        "read_instructions": select(instructions.c.id, instructions.c.body).where(
            instructions.c.tree == bindparam("tree")
        ),
    }


def _deleting() -> dict[str, ClauseElement]:
    """What goes, and what it shares with forks."""
    c, m, t = conversations.c, messages.c, turns.c
    return {
        "sharing_conversations": select(c.id, c.head).where(
            _of_tree(bindparam("tree")), c.id != bindparam("conversation")
        ),
        "move_turn": update(turns).where(t.id == bindparam("turn")).values(conversation=bindparam("to")),
        "drop_message": delete(messages).where(m.id == bindparam("message")),
        "drop_tree": delete(messages).where(m.tree == bindparam("tree")),
        "drop_instructions": _drop_instructions(),
        "drop_conversation": delete(conversations).where(c.id == bindparam("conversation")),
        "expired_hidden": _expired().limit(bindparam("limit")).offset(literal_column("0")),
        "is_expired": _expired().where(c.id == bindparam("conversation")),
    }


def _of_tree(tree: ColumnElement[int]) -> ColumnElement[bool]:
    """The first conversation of a tree and the forks; each half has an index."""
    c = conversations.c
    return or_(c.id == tree, and_(c.tree == tree, c.tree != c.id))


def _find_conversation() -> Select[tuple[object, ...]]:
    c = conversations.c
    return (
        select(
            c.id,
            c.tree,
            c.head,
            c.instructions,
            instructions.c.hash,
            instructions.c.body,
            c.state,
            c.lease_owner,
            c.lease_until,
            c.lease_turn,
            c.title,
            c.hidden,
        )
        .select_from(conversations.outerjoin(instructions, instructions.c.id == c.instructions))
        .where(c.caller == bindparam("caller"), c.name == bindparam("name"))
    )


def _find_turn() -> ClauseElement:
    """A turn that can be asked for by its id, where it is, and its instructions."""
    c, t, i = conversations.c, turns.c, instructions.c
    return (
        select(turns, c.name, c.tree, c.hidden, i.hash, i.body)
        .select_from(
            turns.join(conversations, c.id == t.conversation).outerjoin(instructions, i.id == t.instructions)
        )
        .where(c.caller == bindparam("caller"), t.id == bindparam("turn"), t.asked.is_not(None))
    )


def _find_log() -> ClauseElement:
    """How a turn of a caller's stands, and who holds it."""
    c, t = conversations.c, turns.c
    return (
        select(
            t.status,
            t.error_code,
            t.error,
            t.finished_at,
            t.finish_reason,
            t.conversation,
            c.lease_owner,
            c.lease_until,
        )
        .select_from(turns.join(conversations, c.id == t.conversation))
        .where(c.caller == bindparam("caller"), t.id == bindparam("turn"))
    )


def _find_open_turn() -> ClauseElement:
    """A turn of a caller's that is being answered, or was when its server died."""
    c, t, i = conversations.c, turns.c, instructions.c
    return (
        select(
            c.id,
            c.name,
            c.tree,
            c.hidden,
            t.tail,
            t.instructions,
            i.body,
            t.created_at,
            c.lease_owner,
            c.lease_until,
        )
        .select_from(
            conversations.join(turns, c.lease_turn == t.id).outerjoin(instructions, i.id == t.instructions)
        )
        .where(
            c.caller == bindparam("caller"), t.id == bindparam("turn"), t.status == literal_column("'open'")
        )
    )


def _newest_turn() -> ClauseElement:
    c, t = conversations.c, turns.c
    return (
        select(t.id)
        .select_from(turns.join(conversations, c.id == t.conversation))
        .where(c.caller == bindparam("caller"), c.name == bindparam("name"), ~c.hidden)
        .order_by(t.created_at.desc(), t.id.desc())
    )


def _running_turns() -> ClauseElement:
    """The turns of a caller that are being answered; "" is the name of a conversation that no list shows."""
    c, t = conversations.c, turns.c
    return (
        select(
            t.id,
            case((c.hidden, literal_column("''")), else_=c.name),
            t.created_at,
            c.lease_owner,
            c.lease_until,
        )
        .select_from(conversations.join(turns, c.lease_turn == t.id))
        .where(c.caller == bindparam("caller"), c.lease_turn.is_not(None))
        .order_by(t.created_at)
    )


def _drop_old_keys() -> ClauseElement:
    k = request_keys.alias("old")
    old = select(k.c.caller, k.c.key).where(k.c.created_at < bindparam("until"))
    some = old.limit(bindparam("limit")).offset(literal_column("0"))
    return delete(request_keys).where(tuple_(request_keys.c.caller, request_keys.c.key).in_(some))


def _drop_old_pieces() -> ClauseElement:
    """Names of turns begin with the time. Of one that is being answered nothing is old."""
    c, p = conversations.c, checkpoints.alias("old")
    running = select(c.lease_turn).where(c.lease_turn.is_not(None))
    old = select(p.c.turn, p.c.seq).where(p.c.turn < bindparam("before_turn"), p.c.turn.not_in(running))
    some = old.limit(bindparam("limit")).offset(literal_column("0"))
    return delete(checkpoints).where(tuple_(checkpoints.c.turn, checkpoints.c.seq).in_(some))


def _expired() -> Select[tuple[object, ...]]:
    """Hidden conversations that were to be kept for a while only: with a response in them longer."""
    c, t = conversations.c, turns.c
    is_asked = exists().where(t.conversation == c.id, t.asked.is_not(None))
    is_due = or_(
        c.updated_at < bindparam("asked_until"),
        and_(c.updated_at < bindparam("unasked_until"), ~is_asked),
    )
    return select(c.id, c.tree).where(c.hidden, c.lease_turn.is_(None), is_due)


def _read_path() -> Select[tuple[object, ...]]:
    columns = [messages.c[name] for name in ("id", "parent", "depth", "hash", "role", "text", "rest")]
    path = select(*columns).where(messages.c.id == bindparam("head")).cte("path", recursive=True)
    path = path.union_all(select(*columns).where(messages.c.id == path.c.parent))
    return select(path.c.id, path.c.hash, path.c.role, path.c.text, path.c.rest).order_by(path.c.depth)


def _insert_checkpoint() -> ClauseElement:
    c = conversations.c
    leased = exists().where(c.id == bindparam("conversation"), c.lease_turn == bindparam("turn"))
    values: list[BindParameter[object]] = [bindparam(name) for name in ("turn", "seq", "events")]
    row = select(*values).where(leased)
    return insert(checkpoints).from_select(["turn", "seq", "events"], row)


def _list_conversations() -> ClauseElement:
    """Newest first, after the one named `before`; `before` "" begins with the newest."""
    c = conversations.c
    last = conversations.alias("last")
    is_after = exists().where(
        last.c.caller == c.caller,
        last.c.name == bindparam("before"),
        tuple_(c.updated_at, c.id) < tuple_(last.c.updated_at, last.c.id),
    )
    return (
        select(c.name, c.title, c.created_at, c.updated_at)
        .where(
            c.caller == bindparam("caller"),
            ~c.hidden,
            or_(bindparam("before") == literal_column("''"), is_after),
        )
        .order_by(c.updated_at.desc(), c.id.desc())
        .limit(bindparam("limit"))
        # Without one, the dialect of SQLite adds a parameter of its own.
        .offset(literal_column("0"))
    )


def _drop_instructions() -> ClauseElement:
    """What neither a conversation nor a turn of the tree refers to."""
    c, t, i = conversations.c, turns.c, instructions.c
    return delete(instructions).where(
        i.tree == bindparam("tree"),
        ~exists().where(_of_tree(i.tree), c.instructions == i.id),
        ~exists().where(_of_tree(i.tree), t.conversation == c.id, t.instructions == i.id),
    )

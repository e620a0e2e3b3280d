"""The statements of the hot path, composed once and kept as the text that the driver takes.

Executing them through SQLAlchemy costs several times what the database itself needs.
"""

from __future__ import annotations

from msgspec import Struct
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

from modelway.conversations.schema import checkpoints, conversations, instructions, messages, turns


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


def compose(dialect: Dialect) -> Statements:
    """All statements in the words of one database."""

    def text(statement: ClauseElement) -> str:
        return str(statement.compile(dialect=dialect))

    c, m, t = conversations.c, messages.c, turns.c
    mine = (c.id == bindparam("conversation"), c.lease_turn == bindparam("turn"))
    unleased = {"lease_owner": null(), "lease_until": null(), "lease_turn": null()}
    return Statements(
        find_conversation=text(_find_conversation()),
        insert_conversation=text(insert(conversations)),
        take_lease=text(
            update(conversations)
            .where(c.id == bindparam("conversation"))
            .values(
                lease_owner=bindparam("owner"),
                lease_until=bindparam("until"),
                lease_turn=bindparam("turn"),
            )
        ),
        # The conversation keeps its head; `drop_state` says whether the upstream may have moved on.
        free_lease=text(
            update(conversations)
            .where(*mine)
            .values(state=case((bindparam("drop_state"), null()), else_=c.state), **unleased)
        ),
        settle=text(
            update(conversations)
            .where(*mine)
            .values(
                head=bindparam("new_head"),
                instructions=bindparam("in_force"),
                state=bindparam("new_state"),
                updated_at=bindparam("now"),
                **unleased,
            )
        ),
        extend_lease=text(update(conversations).where(*mine).values(lease_until=bindparam("until"))),
        read_leases=text(select(c.id, c.lease_owner, c.lease_turn).where(c.lease_turn.is_not(None))),
        insert_instructions=text(insert(instructions)),
        insert_message=text(insert(messages)),
        find_message=text(
            select(func.max(m.id)).where(m.tree == bindparam("tree"), m.hash == bindparam("hash"))
        ),
        read_path=text(_read_path()),
        insert_turn=text(insert(turns)),
        close_turn=text(
            update(turns)
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
            )
        ),
        read_turn=text(
            select(c.tree, t.tail, t.instructions, c.hidden)
            .select_from(turns.join(conversations, c.id == t.conversation))
            .where(t.id == bindparam("turn"))
        ),
        insert_checkpoint=text(_insert_checkpoint()),
        insert_last_piece=text(insert(checkpoints)),
        read_checkpoints=text(
            select(checkpoints.c.events)
            .where(checkpoints.c.turn == bindparam("turn"))
            .order_by(checkpoints.c.seq)
        ),
        drop_checkpoints=text(delete(checkpoints).where(checkpoints.c.turn == bindparam("turn"))),
        list_conversations=text(_list_conversations()),
        show_conversation=text(
            select(
                c.id, c.tree, c.head, c.title, c.created_at, c.updated_at, c.instructions, c.metadata
            ).where(c.caller == bindparam("caller"), c.name == bindparam("name"), ~c.hidden)
        ),
        set_metadata=text(
            update(conversations)
            .where(c.caller == bindparam("of"), c.name == bindparam("called"), ~c.hidden)
            .values(metadata=bindparam("metadata"))
        ),
        set_title=text(
            update(conversations).where(c.id == bindparam("conversation")).values(title=bindparam("title"))
        ),
        find_turn=text(_find_turn()),
        forget_turn=text(update(turns).where(t.id == bindparam("turn")).values(asked=null())),
        drop_state=text(update(conversations).where(c.id == bindparam("conversation")).values(state=null())),
        read_tree=text(
            select(m.id, m.parent, m.turn).where(m.tree == bindparam("tree")).order_by(m.depth, m.id)
        ),
        read_messages=text(select(m.id, m.role, m.text, m.rest).where(m.tree == bindparam("tree"))),
        read_turns=text(
            select(turns)
            .select_from(turns.join(conversations, c.id == t.conversation))
            .where(_of_tree(bindparam("tree")))
            .order_by(t.created_at, t.id)
        ),
        read_instructions=text(
            select(instructions.c.id, instructions.c.body).where(instructions.c.tree == bindparam("tree"))
        ),
        sharing_conversations=text(
            select(c.id, c.head).where(_of_tree(bindparam("tree")), c.id != bindparam("conversation"))
        ),
        move_turn=text(update(turns).where(t.id == bindparam("turn")).values(conversation=bindparam("to"))),
        drop_message=text(delete(messages).where(m.id == bindparam("message"))),
        drop_tree=text(delete(messages).where(m.tree == bindparam("tree"))),
        drop_instructions=text(_drop_instructions()),
        drop_conversation=text(delete(conversations).where(c.id == bindparam("conversation"))),
    )


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

"""Lists, shows, searches, forks, deletes and exports."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelway.conversations import Conversations, Turn, codec, export_json, export_markdown
from modelway.conversations.export import import_json
from modelway.errors import ConversationNotFound, InvalidRequest, UpstreamFailed
from modelway.types import (
    Citation,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    RefusalDelta,
    TextDelta,
    TextPart,
    ToolCallDelta,
)
from tests.conversations.talk import (
    ME,
    answer,
    ask,
    begin,
    complete,
    history,
    statuses,
    system,
    texts,
    user,
)
from tests.polling import until

pytestmark = pytest.mark.anyio


async def names(store: Conversations, limit: int = 50, before: str = "") -> list[str]:
    return [found.conversation_id for found in await store.list(ME, limit=limit, before=before)]


async def test_the_list_begins_with_the_newest(store: Conversations) -> None:
    for name in ("a", "b", "c"):
        await ask(store, name, f"about {name}")
    await ask(store, "a", "more")
    assert await names(store) == ["a", "c", "b"]
    summary = (await store.list(ME))[0]
    assert summary.title == "about a"
    assert summary.updated_at > summary.created_at


async def test_a_cursor_leads_through_the_whole_list(store: Conversations) -> None:
    expected: list[str] = []
    for number in range(7):
        await ask(store, f"c{number}", "hello")
        expected.insert(0, f"c{number}")
    found: list[str] = []
    while page := await names(store, limit=3, before=found[-1] if found else ""):
        assert len(page) <= 3
        found += page
    assert found == expected


async def test_a_cursor_of_another_caller_tells_nothing(store: Conversations) -> None:
    await ask(store, "mine", "hello")
    await ask(store, "theirs", "hello", caller="you")
    assert await names(store, before="theirs") == []


async def test_a_title_is_the_beginning_of_the_first_question(store: Conversations) -> None:
    await ask(store, "c", system("be brief"), "  What\n\nis " + "very " * 100 + "long?")
    (found,) = await store.list(ME)
    assert found.title == "What is very very very very very very very very very very…"


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("a" * 40 + " " + "b" * 18 + " ccc", "a" * 40 + " " + "b" * 18 + "…"),
        ("a" * 40 + " " + "b" * 20 + " ccc", "a" * 40 + "…"),
        ("a" * 31 + " " + "b" * 50, "a" * 31 + "…"),
        ("a" * 30 + " " + "b" * 50, "a" * 30 + " " + "b" * 28 + "…"),
    ],
)
async def test_a_title_ends_between_two_words_if_they_are_not_long(
    store: Conversations, asked: str, title: str
) -> None:
    await ask(store, "c", asked)
    (found,) = await store.list(ME)
    assert found.title == title


async def test_show_tells_how_every_turn_ended(store: Conversations) -> None:
    await ask(store, "c", "one", says="1")
    turn = await begin(store, "c", "two")
    await turn.fail(UpstreamFailed("it broke"))
    turn = await begin(store, "c", "three")
    turn.record(TextDelta(text="hal"))
    turn.interrupt("P", "m")
    await begin(store, "c", "four")
    shown = await store.show(ME, "c")
    assert statuses(shown) == ["done", "failed", "interrupted", "open"]
    assert [texts(turn.messages) for turn in shown.turns] == [["one"], ["two"], ["three"], ["four"]]
    assert [turn.answer.text if turn.answer else None for turn in shown.turns] == ["1", None, "hal", None]
    assert [turn.error_code for turn in shown.turns] == ["", "upstream_error", "", ""]
    assert texts(shown.messages) == ["one", "1", "three", "hal"]
    assert {one.message.text for one in shown.tree} == {"one", "1", "two", "three", "hal", "four"}


async def branched(store: Conversations) -> list[Turn]:
    """Two answers to "two": the turns of "one", of "2" and of "2b"."""
    return [
        await ask(store, "c", "one", says="1"),
        await ask(store, "c", "two", says="2"),
        await ask(store, "c", "one", answer("1"), "two", says="2b"),
    ]


async def test_of_an_open_turn_only_the_question_is_told(store: Conversations) -> None:
    turn = await begin(store, "c", system("be brief"), "hello")
    (shown,) = (await store.show(ME, "c")).turns
    assert (shown.id, shown.status, shown.messages) == (turn.id, "open", (user("hello"),))
    assert (shown.instructions, shown.parent, shown.answer_id) == ((system("be brief"),), "", "")
    assert (shown.provider, shown.model, shown.finish_reason) == ("", "", "")
    assert (shown.error_code, shown.error, shown.answer, shown.usage) == ("", "", None, None)
    assert (shown.created_at, shown.finished_at) == (turn.opened_at, None)
    turn.interrupt()


async def test_show_tells_all_branches(store: Conversations) -> None:
    _, old, new = await branched(store)
    shown = await store.show(ME, "c")
    assert [(one.turn_id, one.current) for one in shown.branches] == [(old.id, False), (new.id, True)]
    assert texts(shown.messages) == ["one", "1", "two", "2b"]
    assert [one.message.text for one in shown.tree] == ["one", "1", "two", "2", "2b"]
    parents = {one.message.text: one.parent for one in shown.tree}
    assert parents["2"] == parents["2b"] != ""
    known: set[str] = {""}
    for one in shown.tree:
        assert one.parent in known, "parents come first"
        known.add(one.id)


HOSTILE = [
    "",
    " ",
    '"',
    '""',
    "'",
    "*",
    "a*",
    "*a",
    "^a",
    "-a",
    "+",
    "(",
    ")",
    "((a)",
    "NEAR",
    "NEAR(a b, 3)",
    "a NEAR b",
    "AND",
    "OR",
    "NOT",
    "a AND",
    "NOT a",
    "text:",
    "text : a",
    "{text} : a",
    "role:user",
    "a\x00b",
    "\x00",
    "%",
    "_",
    "; DROP TABLE messages",
    "\\",
    "/*",
    "--",
    "?",
    ":query",
    "🚀",
    "\ud83d",
    "\u200b",
    "\u0301",
    "𞤀",
    "²",
    "a" * 100_000,
    "a " * 10_000,
    "\n",
    "message_search",
    "rank MATCH 'x'",
]


async def test_no_query_breaks_the_search(store: Conversations) -> None:
    await ask(store, "c", "hello", says="world")
    for query in HOSTILE:
        assert await store.search(ME, query) == [], query[:20]
    assert len(await store.search(ME, "world")) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=30))
async def test_no_text_breaks_the_search(store: Conversations, query: str) -> None:
    await store.search(ME, query)


SAID = "Die Straße ist grün; cafe\u0301 東京 привет; NEAR and other operators, C++, don't"
FINDING = [
    "straße",
    "grün",
    "GRÜN",
    "grun",
    "gru\u0308n",
    "gr",
    "cafe",
    "café",
    "東京",
    "привет",
    "NEAR",
    "near operators",
    "C++",
    "don't",
    "\"don't",
    "operators near",
]
NOT_FINDING = [
    "STRASSE",
    "gru\u0308ne",
    "gr str",
    "missing",
    "grün missing",
]


async def test_words_are_found_in_any_order_case_and_accent(store: Conversations) -> None:
    await ask(store, "c", SAID, says="ok")
    for query in FINDING:
        assert len(await store.search(ME, query)) == 1, query
    for query in NOT_FINDING:
        assert await store.search(ME, query) == [], query


async def test_what_was_said_in_failed_turns_and_branches_is_found(store: Conversations) -> None:
    turn = await begin(store, "c", "a pomegranate")
    await turn.fail(UpstreamFailed("no"))
    await branched(store)
    assert [one.turn_id for one in await store.search(ME, "pomegranate")] == [turn.id]
    assert [one.snippet for one in await store.search(ME, "2")] == ["2b", "2"]


async def test_the_newest_is_found_first_and_no_more_than_asked_for(store: Conversations) -> None:
    for number in range(5):
        await ask(store, f"c{number}", "the same words")
    found = await store.search(ME, "words", limit=3)
    assert [one.conversation_id for one in found] == ["c4", "c3", "c2"]
    for limit in (1, 0, -1):
        assert [one.conversation_id for one in await store.search(ME, "words", limit=limit)] == ["c4"]


async def test_many_messages_are_found_at_once(store: Conversations) -> None:
    await ask(store, "c", *(f"number{i} of many" for i in range(400)))
    assert len(await store.search(ME, "many", limit=1000)) == 400


TABLES = ("conversations", "messages", "turns", "checkpoints", "instructions", "message_search_docsize")


async def rows(store: Conversations, folder: Path) -> dict[str, int]:
    """How many rows each table has."""
    await store.ready()
    with closing(sqlite3.connect(folder / "kept" / "conversations.sqlite3")) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        count = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
    return {table: number for table, number in count.items() if number}


async def test_a_fork_shares_the_rows(store: Conversations, tmp_path: Path) -> None:
    await ask(store, "c", system("be brief"), "one", says="1")
    before = await rows(store, tmp_path)
    await store.fork(ME, "c", "d")
    after = await rows(store, tmp_path)
    assert after == {**before, "conversations": 2}
    turn = await begin(store, "d", "two")
    assert texts(turn.request.messages) == ["be brief", "one", "1", "two"]


async def test_a_fork_goes_on_under_the_instructions_of_its_turn(store: Conversations) -> None:
    first = await ask(store, "c", system("be brief"), "one", says="1")
    await ask(store, "c", system("be long"), "two", says="2")
    await store.fork(ME, "c", "d", at_turn=first.id)
    turn = await begin(store, "d", "three")
    assert texts(turn.request.messages) == ["be brief", "one", "1", "three"]


async def test_a_fork_does_not_wait_for_its_origin(store: Conversations) -> None:
    await ask(store, "c", "one", says="1")
    await begin(store, "c", "two")
    await store.fork(ME, "c", "d")
    await ask(store, "d", "three", says="3")
    assert await history(store, "d") == ["one", "1", "three", "3"]


async def test_what_cannot_be_forked_is_refused(store: Conversations) -> None:
    first = await ask(store, "c", "one", says="1")
    failed = await begin(store, "c", "two")
    await failed.fail(UpstreamFailed("no"))
    await ask(store, "d", "other")
    opened = await begin(store, "c", "three")
    unknown = "the conversation has no turn of this id"
    for name, new_name, at_turn, kind, said, param in (
        ("c", "d", "", InvalidRequest, 'there is a conversation "d" already', "conversation_id"),
        ("c", "e", failed.id, InvalidRequest, "a turn that is failed cannot be forked", "at_turn"),
        ("c", "e", opened.id, InvalidRequest, "a turn that is open cannot be forked", "at_turn"),
        ("d", "e", first.id, ConversationNotFound, unknown, "at_turn"),
        ("c", "e", "turn_unknown", ConversationNotFound, unknown, "at_turn"),
        ("never", "e", "", ConversationNotFound, 'there is no conversation "never"', "conversation_id"),
    ):
        with pytest.raises(kind) as caught:
            await store.fork(ME, name, new_name, at_turn=at_turn)
        assert (caught.value.message, caught.value.param) == (said, param)


@pytest.mark.parametrize("first", ["c", "d"])
async def test_deleting_one_of_two_keeps_the_history_of_the_other(
    store: Conversations, tmp_path: Path, first: str
) -> None:
    early, _, _ = await branched(store)
    await store.fork(ME, "c", "d", at_turn=early.id)
    await ask(store, "d", system("be brief"), "else", says="3")
    await store.search(ME, "one")
    kept = "d" if first == "c" else "c"
    expected = await history(store, kept)
    before = await store.show(ME, kept)
    await store.delete(ME, first)
    assert await history(store, kept) == expected
    after = await store.show(ME, kept)
    assert (after.tree, after.turns, after.branches) == (before.tree, before.turns, before.branches)
    turn = await ask(store, kept, "on", says="4")
    assert texts(turn.request.messages)[-len(expected) - 1 :] == [*expected, "on"]
    assert len(await store.search(ME, "else")) == (1 if kept == "d" else 0)
    await store.delete(ME, kept)
    assert await rows(store, tmp_path) == {}


async def test_a_fork_offers_only_branches_that_it_shows(store: Conversations) -> None:
    _, old, new = await branched(store)
    await store.fork(ME, "c", "d", at_turn=new.id)
    for _ in range(2):
        shown = await store.show(ME, "d")
        assert [one.turn_id for one in shown.branches] == [new.id]
        with pytest.raises(InvalidRequest) as caught:
            await store.fork(ME, "d", "e", at_turn=old.id)
        assert caught.value.message == "the conversation goes on without the end of this turn"
        assert caught.value.param == "at_turn"
        assert texts(shown.messages) == ["one", "1", "two", "2b"]
        if "c" in await names(store):
            await store.delete(ME, "c")


async def test_a_turn_goes_to_the_fork_that_shows_its_answer(store: Conversations) -> None:
    _, old, new = await branched(store)
    await store.fork(ME, "c", "new", at_turn=new.id)
    await store.fork(ME, "c", "old", at_turn=old.id)
    await store.delete(ME, "c")
    assert [one.message.text for one in (await store.show(ME, "new")).tree] == ["one", "1", "two", "2b"]
    assert [one.message.text for one in (await store.show(ME, "old")).tree] == ["one", "1", "two", "2"]


@pytest.mark.parametrize("order", ["cde", "edc", "dce", "ecd"])
async def test_nothing_is_left_when_all_of_a_family_are_deleted(
    store: Conversations, tmp_path: Path, order: str
) -> None:
    picture = Message(role="user", content=(ImagePart("http://x/"),))
    first = await ask(store, "c", system("be brief"), picture, says="")
    await ask(store, "c", "one", says="1")
    turn = await begin(store, "c", "two")
    turn.record(ToolCallDelta(id="1", name="f"))
    turn.interrupt()
    turn = await begin(store, "c", "three")
    await turn.fail(UpstreamFailed("no"))
    await store.fork(ME, "c", "d", at_turn=first.id)
    await ask(store, "d", system("be long"), "four", says="4")
    await store.fork(ME, "d", "e")
    await ask(store, "e", "five", says="5")
    await store.search(ME, "one")
    for name in order:
        await store.delete(ME, name)
    assert await rows(store, tmp_path) == {}


async def test_nothing_is_left_of_an_open_turn_that_was_deleted(store: Conversations, tmp_path: Path) -> None:
    turn = await begin(store, "c", "one")
    turn.record(TextDelta(text="x" * 5000))

    async def is_there() -> bool:
        return (await store.show(ME, "c")).turns[0].answer is not None

    await until(is_there)
    await store.delete(ME, "c")
    turn.record(TextDelta(text="x" * 5000))
    turn.interrupt()
    assert await rows(store, tmp_path) == {}


@pytest.mark.parametrize("is_indexed", [False, True])
async def test_messages_without_text_can_be_deleted(
    store: Conversations, tmp_path: Path, is_indexed: bool
) -> None:
    turn = await begin(store, "c", Message(role="user", content=(ImagePart("http://x/"),)))
    turn.record(ToolCallDelta(id="1", name="f"))
    await complete(turn, "")
    if is_indexed:
        await store.search(ME, "x")
    await store.delete(ME, "c")
    assert await rows(store, tmp_path) == {}


async def everything(store: Conversations) -> None:
    """A conversation with all that can be said."""
    parts = (
        TextPart("see"),
        ImagePart("https://x/y.png"),
        FilePart("data:application/pdf;base64,AA==", name="a.pdf"),
        OtherPart("openai_chat", {"type": "audio"}),
    )
    turn = await begin(store, "c", system("be brief"), Message(role="user", content=parts))
    turn.record(ToolCallDelta(id="call_1", name="add", arguments='{"a":[1,2]}'))
    turn.record(ToolCallDelta(index=1, id="call_2", name="broken", arguments='{"a'))
    await complete(turn, "I calculate")
    result = Message(role="tool", content="```three```", tool_call_id="call_1")
    failed = await begin(store, "c", result)
    await failed.fail(UpstreamFailed("it broke"))
    refused = await begin(store, "c", result)
    refused.record(RefusalDelta(text="I must not"))
    await complete(refused, "")
    cited = await begin(store, "c", "at last")
    cited.record(
        Citation(url="https://example.org/a b>", title="On [this]\n`day`", start_index=0, end_index=6)
    )
    cited.record(Citation(url="https://example.org/c"))
    await complete(cited, "fourth answer")


async def test_json_holds_everything_and_can_be_read_again(store: Conversations) -> None:
    await everything(store)
    shown = await store.show(ME, "c")
    exported = export_json(shown)
    assert import_json(exported) == shown
    for wanted in (
        "be brief",
        "https://x/y.png",
        "call_2",
        "it broke",
        "I must not",
        "fourth answer",
        "start_index",
    ):
        assert wanted in exported.decode()
    assert len(shown.tree) == 7


async def test_markdown_holds_every_message_and_tool_call(store: Conversations) -> None:
    await everything(store)
    written = export_markdown(await store.show(ME, "c"))
    wanted = [
        "# see",
        "## System\n\nbe brief",
        "## User\n\nsee\n\n[image](https://x/y.png)\n\n[file a.pdf]\n\n[audio]",
        "## Assistant\n\nI calculate",
        "Calls `add`:\n\n```json\n{",
        'Calls `broken`:\n\n```json\n{"a\n```',
        "## Tool\n\n````\n```three```\n````",
        "## Assistant\n\nI must not",
        "## User\n\nat last",
        "## Assistant\n\nfourth answer",
        "Sources:\n\n- [On \\[this\\] \\`day\\`](<https://example.org/a%20b%3E>)\n- <https://example.org/c>\n",
    ]
    positions = [written.find(one) for one in wanted]
    assert -1 not in positions, dict(zip(wanted, positions, strict=True))
    assert positions == sorted(positions)


async def test_markdown_of_a_plain_talk_has_nothing_else(store: Conversations) -> None:
    await ask(store, "c", "hello", says="hi")
    await ask(store, "c", "more", says="yes")
    written = export_markdown(await store.show(ME, "c"))
    assert (
        written
        == "# hello\n\n## User\n\nhello\n\n## Assistant\n\nhi\n\n## User\n\nmore\n\n## Assistant\n\nyes\n"
    )


async def test_a_part_of_no_known_kind_is_an_attachment_in_markdown(store: Conversations) -> None:
    await ask(store, "c", Message(role="user", content=(OtherPart("openai_chat", {}), FilePart("data:,"))))
    assert "## User\n\n[attachment]\n\n[file]" in export_markdown(await store.show(ME, "c"))


def test_checkpoints_keep_sources() -> None:
    deltas = (
        TextDelta(text="a"),
        Citation(url="https://example.org/a", title="A\ud83d", raw=b"{}"),
        Citation(url="https://example.org/b", choice=1),
        TextDelta(text="b"),
    )
    kept = codec.decode_deltas(codec.encode_deltas(deltas))
    assert kept == (deltas[0], Citation(url="https://example.org/a", title="A\ufffd"), *deltas[2:])


def test_checkpoints_keep_calls_as_far_as_they_can_be_written() -> None:
    call = ToolCallDelta(index=1, id="\ud83d1", name="f\ud83d", arguments="{\ud83d", choice=2, raw=b"{}")
    (kept,) = codec.decode_deltas(codec.encode_deltas([call]))
    assert kept == ToolCallDelta(index=1, id="\ufffd1", name="f\ufffd", arguments="{\ufffd", choice=2)


async def test_a_conversation_without_messages_can_be_shown_and_exported(store: Conversations) -> None:
    turn = await begin(store, "c", user(""))
    await turn.fail(UpstreamFailed("no"))
    shown = await store.show(ME, "c")
    assert shown.messages == ()
    assert export_markdown(shown) == "# c\n"
    assert import_json(export_json(shown)) == shown

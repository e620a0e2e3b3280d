"""Snapshots of an answer, and the deltas that are made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.providers.copilot.snapshots import ReplyMessage, Snapshot, Snapshots, without_tags


def shot(*messages: tuple[str, str], turns: int = 0, state: str = "active") -> Snapshot:
    return Snapshot(tuple(ReplyMessage(id, text) for id, text in messages), state, turns)


def deltas(*snapshots: Snapshot, prompt: str = "Hi") -> list[str]:
    """What each snapshot adds, and at the end what the close does."""
    following = Snapshots(prompt)
    return [*(following.feed(snapshot) for snapshot in snapshots), following.close()]


def test_growing_text_is_given_as_it_grows() -> None:
    first, second = shot(("a", "Hello")), shot(("a", "Hello, world"))
    final = shot(("p", "Hi"), ("a", "Hello, world!"), turns=1)
    assert deltas(first, second, shot(), final) == ["Hello", ", world", "", "!", ""]


def test_the_prompt_is_not_taken_for_the_answer() -> None:
    assert deltas(shot(("p", "Hi")), shot(("p", "Hi"), ("a", "Hello"), turns=1)) == ["", "Hello", ""]


def test_an_answer_that_repeats_the_prompt_is_an_answer() -> None:
    assert deltas(shot(("p", "Hi"), ("a", "Hi"), turns=1)) == ["Hi", ""]


def test_a_blank_snapshot_takes_nothing_back() -> None:
    assert deltas(shot(("a", "Hello")), shot(("a", "")), shot(("a", "Hello!"), turns=1)) == [
        "Hello",
        "",
        "!",
        "",
    ]


def test_the_answer_is_known_by_its_id() -> None:
    snapshots = (shot(("a", "Hello")), shot(("a", "Hello!"), ("b", "Suggestions"), turns=1))
    assert deltas(*snapshots) == ["Hello", "!", ""]


def test_rewritten_text_goes_on_from_where_both_agree() -> None:
    before = "See the notes of the meeting on Monday for it"
    after = "See [1] the notes of the meeting on Monday for it. Bye"
    assert deltas(shot(("a", before)), shot(("a", after), turns=1)) == [before, "", ". Bye"]


def test_text_that_agrees_nowhere_is_given_whole() -> None:
    snapshots = (shot(("a", "Hello world")), shot(("a", "Hello [1] world"), turns=1))
    assert deltas(*snapshots) == ["Hello world", "", "\n\n---\nHello [1] world"]


def test_the_text_is_the_last_one_whatever_was_said_before() -> None:
    following = Snapshots("Hi")
    following.feed(shot(("a", "Hello world")))
    following.feed(shot(("a", "Hello [1] world"), turns=1))
    assert following.text == "Hello [1] world"


def test_the_end_and_a_break_are_noticed() -> None:
    following = Snapshots("Hi")
    following.feed(shot(("a", "Hello")))
    before = following.ended
    following.feed(shot(("a", "Hello"), turns=2, state="disengagedForRai"))
    assert (before, following.ended, following.disengaged) == (False, True, True)


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("<Event>Stand-up</Event> at 9", "Stand-up at 9"),
        ('Ask <Person id="1">Ada</Person>.', "Ask Ada."),
        ("<File>a.docx</File>", "a.docx"),
        ("a < b, <Files> and <b>", "a < b, <Files> and <b>"),
        ("`Array<File>` and ```\n<Event>\n```", "`Array<File>` and ```\n<Event>\n```"),
        ("see [^1^]", "see [^1^]"),
    ],
)
def test_tags_are_taken_away_and_their_content_is_kept(marked: str, plain: str) -> None:
    assert without_tags(marked) == plain


PIECES = st.sampled_from(
    [
        "<",
        ">",
        "/",
        "Event",
        "Per",
        "son",
        "File",
        "<File>",
        "</Event>",
        '<Person a="b">',
        "`",
        "```",
        "\n",
        " x ",
    ]
)


@given(pieces=st.lists(PIECES | st.text(max_size=3), max_size=20))
def test_the_deltas_of_growing_text_are_the_text_without_tags(pieces: list[str]) -> None:
    texts = ["".join(pieces[: number + 1]) for number in range(len(pieces))]
    given_out = deltas(*(shot(("a", text)) for text in texts), prompt="\0")
    assert "".join(given_out) == without_tags("".join(pieces))

"""Markdown on the page: what it becomes, and what it never becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.conversations import Match, Summary
from modelway.page.frame import Renderings
from modelway.page.html import Html, tag
from modelway.page.markdown import Markdown
from modelway.page.texts import texts
from modelway.page.thread import Entry
from modelway.page.views.chat import Chat, top
from modelway.page.views.composer import Choice, composer
from modelway.page.views.found import found
from modelway.page.views.messages import Writer
from modelway.page.views.parts import OF_PAGE
from modelway.page.views.sidebar import Listed, conversations
from modelway.types import Citation, FilePart, ImagePart, Message, OtherPart, TextPart, ToolCall
from tests.page.hostile import FORMULAS, LINKS, SCRIPTS, VECTORS, problems

MARKDOWN = Markdown()
BREAKING = Markdown(breaks=True)

hostile = st.lists(
    st.sampled_from(
        [
            *SCRIPTS,
            *LINKS,
            *FORMULAS,
            "<",
            ">",
            '"',
            "'",
            "&",
            "`",
            "\n",
            "|",
            "[",
            "](",
            ")",
            "$",
            "\\(",
            "*",
        ]
    )
    | st.text(max_size=8),
    max_size=12,
).map("".join)


def writer() -> Writer:
    return Writer(texts("en"), Renderings(MARKDOWN), Renderings(BREAKING))


def test_there_are_enough_hostile_texts() -> None:
    assert len(set(VECTORS)) >= 200


@pytest.mark.check(35)
@pytest.mark.parametrize("parser", [MARKDOWN, BREAKING])
def test_no_hostile_text_becomes_anything_but_text(parser: Markdown) -> None:
    assert {vector: found for vector in VECTORS if (found := problems(parser.html(vector)))} == {}


def test_the_check_itself_finds_what_must_not_be() -> None:
    assert problems("<script>x</script>") == ["<script>"]
    assert problems("<img src='http://a/b'>") != []
    assert problems("<a href='javascript:x'>y</a>") != []
    assert problems("<p onclick='x'>") != []


@pytest.mark.check(35)
@given(hostile)
def test_no_mixture_of_hostile_texts_does_either(text: str) -> None:
    assert problems(MARKDOWN.html(text)) == []
    assert problems("".join(html for _, html in MARKDOWN.blocks(text))) == []


@pytest.mark.check(35)
@given(hostile)
def test_hostile_text_is_only_text_in_every_place_of_a_conversation(text: str) -> None:
    parts = (
        TextPart(text=text, extra={OF_PAGE: {"name": text}}),
        TextPart(text=text),
        ImagePart(url=text),
        FilePart(url="data:,", name=text, media_type=text),
        OtherPart(dialect="x", value={"type": text}),
    )
    answer = Message(
        role="assistant",
        content=text,
        reasoning=text,
        tool_calls=(ToolCall(id="1", name=text, arguments=text),),
        annotations=(Citation(url="http://" + text, title=text), Citation(url=text, title=text)),
        extra={"refusal": text},
    )
    shown = [
        writer().question("m1", Message(role="user", content=parts), None, "/c/x/files"),
        writer().answer("m2", answer, None),
        writer().failure(text, text),
        writer().draft([Html("<p>x</p>")], text),
        writer().elsewhere(answer),
        writer().exported(
            Entry(
                id="m",
                message=Message(role="tool", content=text, name=text),
                parent="",
                turn=None,
                siblings=(),
            )
        ),
        found(
            texts("en"),
            [Match(conversation_id="c", title=text, turn_id="", role="", snippet=text, created_at=0)],
            "x",
        ),
    ]
    assert [problems(one) for one in shown] == [[]] * len(shown)


@pytest.mark.check(35)
@given(hostile)
def test_hostile_titles_names_and_models_cannot_leave_their_element(text: str) -> None:
    one = Summary(conversation_id="c", title=text, created_at=0, updated_at=0)
    chat = Chat(
        conversation="c",
        title=text,
        articles=(),
        choice=Choice(model=text, instructions=text),
        models={text: [text]},
    )
    t = texts("en")
    for html in (
        conversations(t, Listed([one], [one]), "/"),
        composer(t, chat.models, chat.choice),
        top(t, chat),
    ):
        bare = html.replace("&lt;", "").replace("&gt;", "")
        assert "<script" not in bare.lower()
        assert "onerror=" not in _outside_quotes(bare)


def _outside_quotes(html: str) -> str:
    """Only the markup: attribute values and the texts between elements are left out."""
    found, inside_tag, quote = [], False, ""
    for letter in html:
        if quote:
            quote = "" if letter == quote else quote
        elif inside_tag and letter == '"':
            quote = letter
        elif letter in "<>":
            inside_tag = letter == "<"
        elif inside_tag:
            found.append(letter)
    return "".join(found)


@pytest.mark.check(36)
def test_pictures_from_elsewhere_are_links() -> None:
    html = MARKDOWN.html("![a cat](http://example.org/cat.png)")
    assert "<img" not in html
    assert 'href="http://example.org/cat.png"' in html
    assert "a cat" in html


def test_pictures_that_come_with_the_answer_are_shown() -> None:
    assert '<img src="data:image/png;base64,AAAA" alt="x">' in MARKDOWN.html(
        "![x](data:image/png;base64,AAAA)"
    )


def test_everything_that_models_write_is_understood() -> None:
    html = MARKDOWN.html(
        "| a |\n|--:|\n| 1 |\n\n- [x] done\n- [ ] open\n\n~~no~~ x[^1]\n\n```python\npass\n```"
        "\n\nhttps://example.org\n\n[^1]: note"
    )
    for part in (
        'class="right"',
        "☑",
        "☐",
        "<s>no</s>",
        'class="footnotes"',
        '<span class="k">pass</span>',
        'href="https://example.org"',
    ):
        assert part in html


@pytest.mark.parametrize("formula", ["$a^2$", r"\(a^2\)", "$$\na^2\n$$", r"\[ a^2 \]"])
def test_formulas_become_mathml(formula: str) -> None:
    assert "<msup><mi>a</mi><mn>2</mn></msup>" in MARKDOWN.html(formula)


def test_prices_are_no_formulas() -> None:
    assert "<math" not in MARKDOWN.html("It costs $5 or $10.")


@pytest.mark.parametrize("formula", [r"$\frac{$", r"$x^$", r"$\begin{array}{c} x$", "$" + "{" * 3000 + "$"])
def test_a_formula_that_nobody_can_read_stays_visible(formula: str) -> None:
    assert formula.strip("$")[:5].replace("\\", "\\") in MARKDOWN.html(formula)


def test_footnotes_of_two_answers_do_not_share_their_anchors() -> None:
    first, second = (MARKDOWN.html("x[^1]\n\n[^1]: y", name) for name in ("msg_1", "msg_2"))
    assert 'id="fn-msg_1-1"' in first
    assert 'id="fn-msg_2-1"' in second


def test_a_language_that_is_not_known_leaves_the_code_plain() -> None:
    assert "<pre" in MARKDOWN.html("```nonsense\na < b\n```")
    assert "a &lt; b" in MARKDOWN.html("```nonsense\na < b\n```")


def test_elements_escape_what_is_put_into_them() -> None:
    assert tag("p", "<b>", title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;</p>'
    assert tag("p", tag("b", "x"), None, ["y"]) == "<p><b>x</b>y</p>"
    assert tag("br") == "<br>"

"""An answer that is rendered while it grows is, in the end, what it would be if rendered at once."""

from __future__ import annotations

from html import escape

from hypothesis import example, given
from hypothesis import strategies as st

from modelway.page.markdown import Markdown
from modelway.page.patches import Growing, Patch, Patcher

MARKDOWN = Markdown()
END_OF_CODE = "</code></pre>\n"

blocks = st.sampled_from(
    [
        "A paragraph\nof two lines.",
        "# A heading",
        "- one\n- two\n  - nested",
        "- one\n\n- two",
        "1. one\n2. two",
        "1. one\n\n2. two",
        "> quoted\n> text",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "```python\nx = 1\n\n# not a heading\n```",
        "~~~\ntilde ``` inside\n~~~",
        "    indented code",
        "---",
        "A title\n=======",
        "$$\nx^2\n$$",
        "`code` and **bold** and $x$",
        "- item\n\n  ```\n  code in a list\n  ```",
    ]
)
documents = st.lists(blocks, max_size=8).map("\n\n".join)


def apply(page: dict[int, str], patches: list[Patch]) -> None:
    """What the page's script does."""
    for patch in patches:
        if len(patch) == 2:
            page[patch[0]] = patch[1]
        else:
            page[patch[0]] = page[patch[0]].removesuffix(END_OF_CODE) + escape(patch[2]) + END_OF_CODE


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places} | {len(text)})
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@given(documents, st.lists(st.integers(0, 2000), max_size=30))
@example("1. one\n\n2. two", [9, 10])
def test_patches_joined_are_the_whole_rendering(text: str, places: list[int]) -> None:
    patcher, page = Patcher(MARKDOWN), dict[int, str]()
    for seq, piece in enumerate(cut(text + "\n", places), 1):
        patcher.add(piece)
        patcher.flush(seq)
        apply(page, patcher.patches(seq - 1))
    whole = "".join(html for _, html in MARKDOWN.blocks(text + "\n"))
    assert "".join(patcher.html()) == whole
    assert "".join(page[index] for index in sorted(page)) == whole


@given(st.text(alphabet="ab\n`~#->|*_ 1.[]$\\=", max_size=60), st.lists(st.integers(0, 80), max_size=20))
def test_a_page_that_comes_late_sees_the_same_as_one_that_was_there(text: str, places: list[int]) -> None:
    patcher, page = Patcher(MARKDOWN), dict[int, str]()
    for seq, piece in enumerate(cut(text, places), 1):
        patcher.add(piece)
        patcher.flush(seq)
        apply(page, patcher.patches(seq - 1))
        late: dict[int, str] = {}
        apply(late, patcher.patches(0))
        assert late == page == dict(enumerate(patcher.html()))


def test_blocks_that_are_complete_are_not_sent_again() -> None:
    patcher = Patcher(MARKDOWN)
    patcher.add("one\n\ntwo\n\nthree\n")
    patcher.flush(1)
    patcher.add("more")
    patcher.flush(2)
    assert [patch[0] for patch in patcher.patches(1)] == [2]


def test_open_code_comes_as_text_and_is_coloured_when_it_is_closed() -> None:
    patcher = Patcher(MARKDOWN)
    patcher.add("```python\nimport a\n")
    patcher.flush(1)
    patcher.add("import b\n")
    patcher.flush(2)
    assert patcher.patches(1) == [(0, None, "import b\n")]
    patcher.add("```\n")
    patcher.flush(3)
    [(index, html)] = [patch[:2] for patch in patcher.patches(2)]
    assert index == 0
    assert html is not None
    assert '<span class="kn">import</span>' in html


def test_the_two_thousandth_line_of_open_code_is_sent_alone() -> None:
    patcher = Patcher(MARKDOWN)
    patcher.add("```python\n")
    for line in range(2000):
        patcher.add("def f(x): return x + 1  # a line of code\n")
        patcher.flush(line + 1)
    assert patcher.patches(1999) == [(0, None, "def f(x): return x + 1  # a line of code\n")]


def test_what_grows_tells_what_was_added_since() -> None:
    text = Growing()
    text.add(1, "a")
    text.add(2, "b")
    text.add(2, "c")
    assert [text.since(seq) for seq in (0, 1, 2)] == ["abc", "bc", ""]

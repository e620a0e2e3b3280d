"""Turns Markdown into sanitised HTML, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.footnote import footnote_plugin

from modelway.page.clean import clean
from modelway.page.code import highlight
from modelway.page.html import Html
from modelway.page.mathml import mathml

_BOXES = {"[ ] ": ("☐", "open"), "[x] ": ("☑", "done"), "[X] ": ("☑", "done")}
_DELIMITERS = {"\\(": ("\\)", "math_inline"), "\\[": ("\\]", "math_inline_double")}


class Markdown:
    """Reads what models and people write: GitHub's Markdown, footnotes, formulas; never HTML."""

    def __init__(self, *, breaks: bool = False) -> None:
        """`breaks`: a line break in the source is one on the page."""
        self._parser = _parser(breaks=breaks)

    def html(self, text: str, name: str = "") -> Html:
        """The whole text; `name` keeps its footnotes apart from those of other texts on the page."""
        return clean(self._parser.render(text, {"docId": name} if name else {}))

    def blocks(self, text: str) -> list[tuple[int, Html]]:
        """Its blocks, each with the number of the line in which it begins; without footnotes' texts."""
        env: dict[str, Any] = {}
        tokens = self._parser.parse(text, env)
        found = []
        for begin, run in _top_level(tokens):
            found.append((begin, clean(self._parser.renderer.render(run, self._parser.options, env))))
        return found


def _top_level(tokens: Sequence[Token]) -> list[tuple[int, list[Token]]]:
    runs: list[tuple[int, list[Token]]] = []
    depth = 0
    for token in tokens:
        if token.type == "footnote_block_open":
            break
        if depth == 0:
            runs.append((token.map[0] if token.map else 0, []))
        runs[-1][1].append(token)
        depth += token.nesting
    return runs


def _parser(*, breaks: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": breaks, "linkify": True})
    parser.enable(["table", "strikethrough", "linkify"])
    parser.use(
        dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True, allow_labels=False
    )
    parser.use(footnote_plugin)
    parser.inline.ruler.before("escape", "bracket_math", _bracket_math)
    parser.core.ruler.after("inline", "boxes", _mark_boxes)
    for name, rule in _RULES.items():
        parser.add_render_rule(name, rule)
    return parser


def _bracket_math(state: StateInline, silent: bool) -> bool:
    r"""Read `\( … \)` and `\[ … \]`, which is how most models write formulas."""
    closing = _DELIMITERS.get(state.src[state.pos : state.pos + 2])
    if closing is None:
        return False
    end = state.src.find(closing[0], state.pos + 2)
    if end < 0 or end > state.posMax:
        return False
    if not silent:
        token = state.push(closing[1], "math", 0)
        token.content = state.src[state.pos + 2 : end]
    state.pos = end + 2
    return True


def _mark_boxes(state: Any) -> None:
    """Turn `[ ]` and `[x]` at the beginning of list items into boxes."""
    for item, paragraph, inline in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if item.type != "list_item_open" or paragraph.type != "paragraph_open" or not inline.children:
            continue
        first = inline.children[0]
        found = _BOXES.get(first.content[:4]) if first.type == "text" else None
        if found is not None:
            item.attrSet("class", "task")
            first.content = first.content[4:]
            box = Token("task_box", "span", 0, content=found[0], meta={"state": found[1]})
            inline.children.insert(0, box)


def _code_block(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any
) -> str:
    token = tokens[index]
    language = token.info.split(maxsplit=1)[0][:40] if token.info.strip() else ""
    return code_block(token.content, language)


def code_block(source: str, language: str, *, plain: bool = False) -> str:
    """A block of code, not yet sanitised; `plain` leaves the colours out."""
    written = escape(source) if plain else highlight(source, language)
    named = f' data-lang="{escape(language)}"' if language else ""
    return f'<pre tabindex="0"{named}><code>{written}</code></pre>\n'


def _image(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any) -> str:
    """A picture that comes with the text; for one that is elsewhere a link, as nothing may be fetched."""
    token = tokens[index]
    source = str(token.attrs.get("src", ""))
    described = self.renderInlineAsText(token.children, options, env) if token.children else ""
    if source.startswith("data:"):
        return f'<img src="{escape(source)}" alt="{escape(described)}">'
    return f'<a href="{escape(source)}" class="picture" target="_blank">{escape(described or source)}</a>'


def _link_open(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any
) -> str:
    return f'<a href="{escape(str(tokens[index].attrs.get("href", "")))}" target="_blank">'


def _box(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any) -> str:
    token = tokens[index]
    return f'<span class="box {token.meta["state"]}">{token.content}</span> '


def _table_open(self: RendererHTML, tokens: Any, index: int, options: OptionsDict, env: Any) -> str:
    return '<div class="scroll" tabindex="0"><table>\n'


def _table_close(self: RendererHTML, tokens: Any, index: int, options: OptionsDict, env: Any) -> str:
    return "</table></div>\n"


def _cell_open(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any
) -> str:
    token = tokens[index]
    align = str(token.attrs.get("style", "")).removeprefix("text-align:")
    return f'<{token.tag} class="{align}">' if align else f"<{token.tag}>"


def _math(display: bool) -> Any:
    def rule(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any) -> str:
        formula = mathml(tokens[index].content, display=display)
        return f'<div class="scroll" tabindex="0">{formula}</div>\n' if display else formula

    return rule


def _math_in_line(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any
) -> str:
    return mathml(tokens[index].content, display=True)


_RULES: dict[str, Any] = {
    "fence": _code_block,
    "code_block": _code_block,
    "image": _image,
    "link_open": _link_open,
    "task_box": _box,
    "table_open": _table_open,
    "table_close": _table_close,
    "th_open": _cell_open,
    "td_open": _cell_open,
    "math_inline": _math(display=False),
    "math_inline_double": _math_in_line,
    "math_block": _math(display=True),
    "math_block_label": _math(display=True),
}

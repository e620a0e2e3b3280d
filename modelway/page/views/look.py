"""How pages look, and the mark of the program."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from modelway.page.html import Html, tag
from modelway.page.texts import Texts

THEMES = ("auto", "light", "dark")


class Look(Struct, frozen=True, kw_only=True):
    """How a page is shown: in which words and colours, and where its files are.

    `shows_figures`: who looks at it may see what all callers have asked.
    """

    texts: Texts
    theme: str
    asset: Callable[[str], str]
    signs_in: bool = False
    shows_figures: bool = True


def brand() -> Html:
    """The mark of the program."""
    path = tag("path", d="M8 22V11l8 7 8-7v11")
    return tag(
        "svg",
        tag("rect", width="32", height="32", rx="9"),
        path,
        viewBox="0 0 32 32",
        class_="mark",
        aria_hidden="true",
    )

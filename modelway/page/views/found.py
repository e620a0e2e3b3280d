"""What a search found."""

from __future__ import annotations

from collections.abc import Sequence

from modelway.conversations import Match
from modelway.page.html import Html, tag
from modelway.page.texts import Texts


def found(t: Texts, matches: Sequence[Match], query: str) -> Html:
    """A list of links, or that there is nothing."""
    if not query.strip():
        return tag("p", t("search.hint"), class_="hint")
    if not matches:
        return tag("p", t("search.nothing"), class_="hint")
    rows = [
        tag(
            "li",
            tag(
                "a",
                tag("strong", match.title or t("untitled")),
                tag("span", match.snippet),
                href=f"/c/{match.conversation_id}",
            ),
        )
        for match in matches
    ]
    return tag("ul", *rows)

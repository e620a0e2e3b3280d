"""What a search found."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelway.conversations import Match
from modelway.page.html import Content, Html, tag
from modelway.page.texts import Texts

_WORDS = re.compile(r"[^\W_]+")
_MARKS = re.compile(r"[*#|`~>]+|\s-{3,}")


def found(t: Texts, matches: Sequence[Match], query: str) -> Html:
    """A list of links, or that there is nothing."""
    if not query.strip():
        return tag("p", t("search.hint"), class_="hint")
    if not matches:
        return tag("p", t("search.nothing"), class_="hint")
    words = _pattern(query)
    rows = [
        tag(
            "li",
            tag(
                "a",
                tag("strong", match.title or t("untitled")),
                tag("span", *_marked(" ".join(_MARKS.sub(" ", match.snippet).split()), words)),
                href=f"/c/{match.conversation_id}#{match.turn_id}",
            ),
        )
        for match in matches
    ]
    return tag("ul", *rows)


def _pattern(query: str) -> re.Pattern[str]:
    """The words of a search as a text may hold them: the last one may go on."""
    words = [re.escape(word) for word in _WORDS.findall(query)]
    return re.compile("|".join([rf"\b{word}" for word in words]) or r"(?!)", re.IGNORECASE)


def _marked(text: str, words: re.Pattern[str]) -> list[Content]:
    pieces: list[Content] = []
    end = 0
    for hit in words.finditer(text):
        pieces += [text[end : hit.start()], tag("mark", hit[0])]
        end = hit.end()
    return [*pieces, text[end:]]

"""The elements and attributes that what others wrote may consist of; everything else is removed."""

from __future__ import annotations

import re

import nh3

from modelway.page.html import Html

_TEXT = {
    *("a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "li"),
    *(
        "ol",
        "p",
        "pre",
        "s",
        "section",
        "span",
        "strong",
        "sub",
        "sup",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
    ),
    *("tr", "ul", "div"),
}
_MATH = {
    *(
        "math",
        "menclose",
        "merror",
        "mfrac",
        "mi",
        "mmultiscripts",
        "mn",
        "mo",
        "mover",
        "mpadded",
        "mphantom",
    ),
    *("mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable"),
    *("mtd", "mtext", "mtr", "munder", "munderover", "none", "semantics"),
}
_MATH_ATTRIBUTES = {
    *("accent", "accentunder", "columnalign", "columnlines", "columnspacing", "columnspan", "depth", "dir"),
    *("display", "displaystyle", "fence", "form", "height", "largeop", "linethickness", "lspace", "mathsize"),
    *("mathvariant", "maxsize", "minsize", "movablelimits", "notation", "rowlines", "rowspacing", "rowspan"),
    *("rspace", "scriptlevel", "separator", "stretchy", "symmetric", "width"),
}
_ATTRIBUTES = {
    "a": {"href", "id", "class", "target"},
    "code": {"class"},
    "div": {"class", "tabindex", "role"},
    "img": {"src", "alt"},
    "li": {"class", "id"},
    "ol": {"start", "class"},
    "pre": {"class", "data-lang", "tabindex"},
    "section": {"class"},
    "span": {"class", "role", "aria-label"},
    "sup": {"class", "id"},
    "td": {"class"},
    "th": {"class"},
    "ul": {"class"},
    **dict.fromkeys(_MATH, _MATH_ATTRIBUTES),
}
_SCHEMES = {"http", "https", "mailto", "data"}
_PATTERNS = {
    "class": re.compile(r"[\w -]{1,64}"),
    "href": re.compile(r"(?:https?://|mailto:|#fn)[^\0]*", re.IGNORECASE),
    "id": re.compile(r"fn(?:ref)?[\w:-]*"),
    "role": re.compile(r"img|region"),
    "src": re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+"),
}
_FIXED = {"tabindex": "0", "target": "_blank"}

_CLEANER = nh3.Cleaner(
    tags=_TEXT | _MATH,
    clean_content_tags={"script", "style"},
    attributes=_ATTRIBUTES,
    attribute_filter=lambda _, name, value: _allowed(name, value),
    url_schemes=_SCHEMES,
    url_relative="pass_through",
    link_rel="noopener noreferrer nofollow",
)


def clean(html: str) -> Html:
    """HTML in which nothing is left that acts, or that asks another server for anything."""
    return Html(_CLEANER.clean(html))


def _allowed(name: str, value: str) -> str | None:
    """The value of an attribute, None where it may not be."""
    fixed = _FIXED.get(name)
    if fixed is not None:
        return fixed
    pattern = _PATTERNS.get(name)
    return value if pattern is None or pattern.fullmatch(value) else None

"""Highlights source code: spans with the short class names of Pygments, coloured by the style sheet."""

from __future__ import annotations

from functools import cache, lru_cache
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pygments.lexer import Lexer

_LONGEST = 64 * 1024


def highlight(source: str, language: str) -> str:
    """HTML of the code; without colours where the language is not known or the code is very long."""
    lexer = _lexer(language.lower()) if language and len(source) <= _LONGEST else None
    if lexer is None:
        return escape(source)
    from pygments import highlight as colour  # noqa: PLC0415 - loaded with the first code

    return str(colour(source, lexer, _formatter()))


@cache
def _formatter() -> object:
    from pygments.formatters import HtmlFormatter  # noqa: PLC0415

    return HtmlFormatter(nowrap=True)


@lru_cache(maxsize=64)
def _lexer(language: str) -> Lexer | None:
    from pygments.lexers import get_lexer_by_name  # noqa: PLC0415
    from pygments.util import ClassNotFound  # noqa: PLC0415

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None

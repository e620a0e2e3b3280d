"""Builds HTML: every text and every value of an attribute is escaped where it is put in."""

from __future__ import annotations

from html import escape
from typing import Union


class Html(str):
    """Text that is HTML already. Only what escapes or sanitises may make it."""

    __slots__ = ()


Value = Union[str, int, float, bool, None]
Content = Union[str, Html, None, "list[Content]", "tuple[Content, ...]"]

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


def tag(name: str, /, *content: Content, **attributes: Value) -> Html:
    """An element. `class_` is `class`, `data_id` is `data-id`; None and False leave an attribute out."""
    begin = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    return Html(begin if name in _VOID else f"{begin}{join(*content)}</{name}>")


def join(*content: Content) -> Html:
    """Contents one after the other."""
    return Html("".join(_text(one) for one in content))


def _text(content: Content) -> str:
    if content is None:
        return ""
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return escape(content)
    return join(*content)


def _attribute(name: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    written = name.rstrip("_").replace("_", "-")
    return f" {written}" if value is True else f' {written}="{escape(str(value))}"'

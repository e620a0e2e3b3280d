"""The frame of every page: the head of the document, and what stands beside its own content."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from modelway.page.html import Content, Html, tag
from modelway.page.views.dialogs import dialogs
from modelway.page.views.look import Look
from modelway.page.views.sidebar import Listed, sidebar

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' "
    "height='32' rx='9' fill='%23315a4d'/%3E%3Cpath d='M8 22V11l8 7 8-7v11' fill='none' stroke='%23fff' "
    "stroke-width='2.8' stroke-linecap='round' stroke-linejoin='round'/%3E%3C/svg%3E"
)


def document(look: Look, title: str, scripts: Iterable[str], *body: Content, class_: str = "") -> Html:
    """A whole HTML document."""
    t = look.texts
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag(
            "meta",
            name="viewport",
            content="width=device-width, initial-scale=1, interactive-widget=resizes-content",
        ),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · Modelway" if title else "Modelway"),
        tag("link", rel="icon", href=_ICON),
        tag("link", rel="stylesheet", href=look.asset("style.css")),
        *(tag("script", type="module", src=look.asset(name)) for name in scripts),
        tag("script", _script_json(t.for_scripts()), type="application/json", id="texts"),
    )
    shown = tag("body", *body, class_=class_ or None)
    theme = look.theme if look.theme != "auto" else None
    return Html("<!doctype html>" + tag("html", head, shown, lang=t.language, data_theme=theme))


def _script_json(value: object) -> Html:
    """JSON that cannot end the element that it stands in."""
    return Html(msgspec.json.encode(value).decode().replace("<", "\\u003c"))


def page(
    look: Look, title: str, scripts: Iterable[str], listed: Listed, current: str, *content: Content
) -> Html:
    """A document with the sidebar. `current` is the address that is open."""
    t = look.texts
    return document(
        look,
        title,
        ["app.js", *scripts],
        tag("a", t("skip"), href="#main", class_="skip"),
        sidebar(look, listed, current),
        tag("div", *content, class_="column"),
        *dialogs(t),
        tag("div", id="toasts"),
        tag("p", id="status", role="status", class_="unseen"),
    )

"""The page that asks for a key."""

from __future__ import annotations

from modelway.page.html import Html, tag
from modelway.page.views.look import Look, brand
from modelway.page.views.shell import document


def login(look: Look) -> Html:
    """A form with one field."""
    t = look.texts
    field = tag(
        "input", type="password", name="key", required=True, autocomplete="current-password", autofocus=True
    )
    form = tag(
        "form",
        brand(),
        tag("h1", t("login.title")),
        tag("p", t("login.text")),
        tag("label", tag("span", t("login.key")), field, class_="field"),
        tag("p", id="problem", role="alert", class_="problem", hidden=True),
        tag("button", t("login.enter"), class_="small strong"),
        tag("noscript", tag("p", t("noscript"))),
        id="login",
    )
    return document(look, t("login.title"), ["login.js"], tag("main", form, id="main"), class_="alone")

"""The list of conversations beside every page, and the ways to the other pages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import groupby

from msgspec import Struct

from modelway.conversations import Summary
from modelway.page.html import Content, Html, tag
from modelway.page.texts import LANGUAGES, Texts
from modelway.page.views.icons import icon
from modelway.page.views.look import THEMES, Look, brand


class Listed(Struct, frozen=True):
    """The conversations of the sidebar. `running` are the ids of those that are being answered."""

    pinned: Sequence[Summary]
    others: Sequence[Summary]
    running: frozenset[str] = frozenset()
    has_more: bool = False


def sidebar(look: Look, listed: Listed, current: str) -> Html:
    """The list of conversations, and the ways to the other pages."""
    t = look.texts
    return tag(
        "aside",
        tag(
            "div",
            tag("a", brand(), tag("span", "Modelway"), href="/", class_="brand"),
            tag(
                "button",
                icon("menu"),
                type="button",
                class_="ghost",
                data_action="sidebar",
                aria_label=t("sidebar.hide"),
                title=t("sidebar.hide"),
            ),
            class_="sidebar-head",
        ),
        tag(
            "a",
            icon("new"),
            tag("span", t("sidebar.new")),
            href="/",
            class_="item primary",
            aria_current="page" if current == "/" else None,
        ),
        tag(
            "button",
            icon("search"),
            tag("span", t("sidebar.search")),
            tag("kbd", "Ctrl K"),
            type="button",
            class_="item",
            data_action="search",
        ),
        conversations(t, listed, current),
        tag(
            "nav",
            _link(t("sidebar.providers"), "plug", "/providers", current),
            _link(t("sidebar.figures"), "chart", "/figures", current) if look.shows_figures else None,
            tag("div", _import(t), _export(t), class_="pair"),
            tag(
                "button",
                icon("help"),
                tag("span", t("sidebar.keys")),
                tag("kbd", "?"),
                type="button",
                class_="item",
                data_action="keys",
            ),
            _preferences(look),
            aria_label=t("sidebar.more"),
            class_="sidebar-foot",
        ),
        id="sidebar",
        aria_label=t("sidebar.label"),
    )


def conversations(t: Texts, listed: Listed, current: str) -> Html:
    """The list by itself: pinned ones, then the others by date."""
    groups: list[Content] = []
    if listed.pinned:
        groups += _group(t, t("sidebar.pinned"), listed.pinned, listed, current)
    today = dt.datetime.now().astimezone().date()
    for label, some in groupby(listed.others, key=lambda one: _date_label(t, one.updated_at, today)):
        groups += _group(t, label, list(some), listed, current)
    if listed.has_more:
        more = tag("button", t("sidebar.older"), type="button", class_="small", data_action="older")
        groups.append(tag("p", more, class_="hint"))
    if not groups:
        groups.append(tag("p", t("sidebar.empty"), class_="hint"))
    return tag("nav", *groups, id="conversations", aria_label=t("sidebar.conversations"))


def _group(t: Texts, label: str, some: Sequence[Summary], listed: Listed, current: str) -> list[Content]:
    pinned = {one.conversation_id for one in listed.pinned}
    rows = [
        tag(
            "li",
            tag(
                "a",
                tag("span", one.title or t("untitled")),
                href=f"/c/{one.conversation_id}",
                aria_current="page" if current == f"/c/{one.conversation_id}" else None,
                title=one.title or None,
            ),
            tag("span", class_="dot", title=t("sidebar.running"))
            if one.conversation_id in listed.running
            else None,
            tag(
                "button",
                icon("more"),
                type="button",
                class_="ghost",
                data_action="row-menu",
                data_id=one.conversation_id,
                data_pinned=one.conversation_id in pinned,
                aria_label=t("sidebar.menu", title=one.title or t("untitled")),
                aria_haspopup="menu",
            ),
        )
        for one in some
    ]
    return [tag("h2", label), tag("ul", *rows)]


def _date_label(t: Texts, when: float, today: dt.date) -> str:
    day = dt.datetime.fromtimestamp(when).astimezone().date()
    ago = (today - day).days
    if ago <= 1:
        return t("date.today") if ago <= 0 else t("date.yesterday")
    if ago <= 7:
        return t("date.week")
    if ago <= 30:
        return t("date.month")
    return f"{t(f'date.month.{day.month}')} {day.year}"


def _link(label: str, drawing: str, address: str, current: str) -> Html:
    return tag(
        "a",
        icon(drawing),
        tag("span", label),
        href=address,
        class_="item",
        aria_current="page" if current == address else None,
    )


def _import(t: Texts) -> Html:
    label = tag("span", t("sidebar.import"))
    return tag("button", icon("upload"), label, type="button", class_="item", data_action="import")


def _export(t: Texts) -> Html:
    label = tag("span", t("sidebar.export"))
    return tag("a", icon("download"), label, href="/page/export", class_="item", download=True)


def _preferences(look: Look) -> Html:
    t = look.texts
    languages = [
        tag("option", label, value=code, selected=code == t.language) for code, label in LANGUAGES.items()
    ]
    themes = [tag("option", t(f"theme.{one}"), value=one, selected=one == look.theme) for one in THEMES]
    return tag(
        "div",
        tag("select", *themes, name="theme", aria_label=t("theme")),
        tag("select", *languages, name="lang", aria_label=t("language")),
        tag("button", t("sign_out"), type="button", class_="small", data_action="sign-out")
        if look.signs_in
        else None,
        class_="row preferences",
    )

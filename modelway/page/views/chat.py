"""The page of one conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from modelway.page.html import Content, Html, tag
from modelway.page.texts import Texts
from modelway.page.views.composer import Choice, composer, settings
from modelway.page.views.icons import icon
from modelway.page.views.look import brand


class Chat(Struct, frozen=True, kw_only=True):
    """What a page of a conversation shows. `seq` and `live` tell of an answer under way."""

    conversation: str
    title: str
    articles: Sequence[Html]
    choice: Choice
    models: Mapping[str, Sequence[str]]
    version: str = ""
    earlier: str = ""
    temporary: bool = False
    live: bool = False
    seq: int = 0


def chat(t: Texts, shown: Chat) -> list[Content]:
    """The column beside the sidebar."""
    return [
        top(t, shown),
        tag("main", thread(t, shown), id="main", tabindex="-1"),
        composer(t, shown.models, shown.choice),
        settings(t, shown.choice),
    ]


def top(t: Texts, shown: Chat) -> Html:
    """The line above: the title."""
    title = shown.title or (t("chat.temporary") if shown.temporary else t("chat.new"))
    toggle = None
    if not shown.conversation:
        address, label = ("/", t("chat.keep")) if shown.temporary else ("/?temporary=1", t("chat.temporary"))
        toggle = tag(
            "a",
            icon("ghost"),
            tag("span", label),
            href=address,
            class_="small temporary",
            aria_current="true" if shown.temporary else None,
        )
    menu = tag(
        "button",
        icon("more"),
        type="button",
        class_="ghost",
        data_action="row-menu",
        data_id=shown.conversation,
        aria_label=t("menu.label"),
        aria_haspopup="menu",
        hidden=not shown.conversation,
    )
    show = tag(
        "button",
        icon("menu"),
        type="button",
        class_="ghost show-sidebar",
        data_action="sidebar",
        aria_label=t("sidebar.show"),
        title=t("sidebar.show"),
    )
    return tag("header", show, tag("h1", title, id="title"), toggle, menu, class_="top")


def bare_top(t: Texts, title: str) -> Html:
    """The line above a page that is no conversation."""
    show = tag(
        "button",
        icon("menu"),
        type="button",
        class_="ghost show-sidebar",
        data_action="sidebar",
        aria_label=t("sidebar.show"),
        title=t("sidebar.show"),
    )
    return tag("header", show, tag("h1", title, id="title"), class_="top")


def thread(t: Texts, shown: Chat) -> Html:
    """The messages. Pages are told of a new `version` when something else is to be shown."""
    earlier = None
    if shown.earlier:
        address = f"/c/{shown.conversation}?before={shown.earlier}"
        earlier = tag(
            "a", t("thread.earlier"), href=address, class_="small earlier", data_before=shown.earlier
        )
    content: list[Content] = [earlier, *shown.articles]
    if not shown.articles:
        content = [welcome(t, temporary=shown.temporary)]
    return tag(
        "div",
        *content,
        id="thread",
        role="log",
        aria_live="off",
        aria_label=t("thread.label"),
        data_conversation=shown.conversation or None,
        data_title=shown.title or None,
        data_version=shown.version,
        data_temporary=shown.temporary,
        data_live=shown.live,
        data_seq=shown.seq,
    )


def welcome(t: Texts, *, temporary: bool) -> Html:
    """What an empty conversation shows."""
    ideas = [
        tag("button", t(f"welcome.idea.{n}"), type="button", class_="idea", data_action="idea")
        for n in (1, 2, 3, 4)
    ]
    said = t("welcome.temporary") if temporary else t("welcome.text")
    return tag(
        "section",
        brand(),
        tag("h2", t("welcome.title")),
        tag("p", said),
        tag("div", *ideas, class_="ideas"),
        class_="welcome",
    )

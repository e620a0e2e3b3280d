"""The page of one conversation: its messages, and where the next one is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from modelway.page.html import Content, Html, tag
from modelway.page.texts import Texts
from modelway.page.views.icons import icon
from modelway.page.views.look import brand

EFFORTS = ("", "none", "low", "medium", "high")


class Choice(Struct, frozen=True, kw_only=True):
    """What the next message is sent with. `model` is "Provider/model", "" for the default."""

    model: str = ""
    instructions: str = ""
    temperature: str = ""
    max_tokens: str = ""
    effort: str = ""


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
        composer(t, shown),
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


def composer(t: Texts, shown: Chat) -> Html:
    """The form in which the next message is written."""
    field = tag(
        "textarea",
        name="text",
        rows="1",
        placeholder=t("composer.placeholder"),
        aria_label=t("composer.label"),
        autofocus=True,
        enterkeyhint="send",
    )
    files = tag("input", type="file", multiple=True, hidden=True, id="files", aria_label=t("composer.attach"))
    bar = tag(
        "div",
        _button("attach", "attach", t("composer.attach")),
        _button("settings", "sliders", t("composer.settings")),
        model_picker(t, shown),
        tag("span", class_="grow"),
        tag(
            "button",
            icon("stop"),
            type="button",
            class_="round stop",
            data_action="stop",
            hidden=True,
            aria_label=t("composer.stop"),
            title=t("composer.stop"),
        ),
        tag(
            "button",
            icon("send"),
            type="submit",
            class_="round send",
            aria_label=t("composer.send"),
            title=t("composer.send"),
        ),
        class_="row bar",
    )
    editing = tag(
        "div",
        tag("span", t("composer.editing")),
        _button("cancel-edit", "close", t("cancel")),
        class_="row editing",
        hidden=True,
    )
    return tag(
        "form",
        tag("div", editing, tag("ul", class_="chips", hidden=True), field, bar, class_="card"),
        files,
        tag("p", t("composer.hint"), class_="hint"),
        tag("noscript", tag("p", t("noscript"))),
        id="composer",
    )


def model_picker(t: Texts, shown: Chat) -> Html:
    """Which provider and model answer the next message."""
    return tag(
        "label",
        tag("span", t("composer.model"), class_="unseen"),
        tag("select", model_options(t, shown.models, shown.choice.model), name="model"),
        class_="picker",
    )


def model_options(t: Texts, models: Mapping[str, Sequence[str]], chosen: str) -> list[Content]:
    """The models of each provider that is ready."""
    known = {f"{provider}/{model}" for provider, some in models.items() for model in some}
    options: list[Content] = [tag("option", t("composer.default_model"), value="", selected=not chosen)]
    if chosen and chosen not in known:
        options.append(tag("option", chosen, value=chosen, selected=True))
    for provider, some in models.items():
        inner = [
            tag(
                "option",
                f"{provider} · {model}" if model else provider,
                value=f"{provider}/{model}",
                selected=f"{provider}/{model}" == chosen,
            )
            for model in some
        ]
        options.append(tag("optgroup", *inner, label=provider))
    return options


def settings(t: Texts, choice: Choice) -> Html:
    """What answers are asked for with."""
    efforts = [
        tag("option", t(f"settings.effort.{one or 'default'}"), value=one, selected=one == choice.effort)
        for one in EFFORTS
    ]
    return tag(
        "dialog",
        tag("h2", t("settings.title")),
        _field(
            t("settings.instructions"),
            tag(
                "textarea",
                choice.instructions,
                name="instructions",
                rows="6",
                placeholder=t("settings.instructions.hint"),
            ),
        ),
        tag(
            "div",
            _field(
                t("settings.temperature"),
                tag(
                    "input",
                    type="number",
                    name="temperature",
                    min="0",
                    max="2",
                    step="0.1",
                    value=choice.temperature,
                    placeholder=t("settings.default"),
                ),
            ),
            _field(
                t("settings.max_tokens"),
                tag(
                    "input",
                    type="number",
                    name="max_tokens",
                    min="1",
                    step="1",
                    value=choice.max_tokens,
                    placeholder=t("settings.default"),
                ),
            ),
            _field(t("settings.effort"), tag("select", *efforts, name="effort")),
            class_="fields",
        ),
        tag("p", t("settings.note"), class_="hint"),
        tag(
            "div",
            tag("button", t("close"), type="button", class_="small", data_action="close"),
            class_="row end",
        ),
        id="settings",
        aria_label=t("settings.title"),
    )


def _field(label: str, control: Html) -> Html:
    return tag("label", tag("span", label), control, class_="field")


def _button(action: str, drawing: str, label: str) -> Html:
    return tag(
        "button",
        icon(drawing),
        type="button",
        class_="ghost",
        title=label,
        aria_label=label,
        data_action=action,
    )

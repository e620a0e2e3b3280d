"""Where the next message is written, and what it is sent with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from modelway.page.html import Content, Html, tag
from modelway.page.texts import Texts
from modelway.page.views.icons import icon

EFFORTS = ("", "none", "low", "medium", "high")


class Choice(Struct, frozen=True, kw_only=True):
    """What the next message is sent with. `model` is "Provider/model", "" for the default."""

    model: str = ""
    instructions: str = ""
    temperature: str = ""
    max_tokens: str = ""
    effort: str = ""


def composer(t: Texts, models: Mapping[str, Sequence[str]], choice: Choice) -> Html:
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
        model_picker(t, models, choice.model),
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


def model_picker(t: Texts, models: Mapping[str, Sequence[str]], chosen: str) -> Html:
    """Which provider and model answer the next message."""
    return tag(
        "label",
        tag("span", t("composer.model"), class_="unseen"),
        tag("select", model_options(t, models, chosen), name="model"),
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

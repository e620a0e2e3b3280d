"""The windows and menus that every page can open."""

from __future__ import annotations

from modelway.page.html import Content, Html, join, tag
from modelway.page.texts import Texts
from modelway.page.views.icons import icon

_KEYS = (
    ("Ctrl+K", "keys.search"),
    ("Ctrl+Shift+O", "keys.new"),
    ("Ctrl+B", "keys.sidebar"),
    ("Enter", "keys.send"),
    ("Shift+Enter", "keys.line"),
    ("Esc", "keys.stop"),
    ("↑", "keys.edit"),
    ("Alt+↑ Alt+↓", "keys.messages"),
    ("Alt+← Alt+→", "keys.branches"),
    ("/", "keys.focus"),
    ("Ctrl+Shift+C", "keys.copy"),
    ("Ctrl+Shift+Backspace", "keys.delete"),
    ("?", "keys.help"),
)


def dialogs(t: Texts) -> list[Content]:
    """All of them, closed."""
    return [_search_dialog(t), _keys_dialog(t), _rename_dialog(t), _row_menu(t)]


def _search_dialog(t: Texts) -> Html:
    field = tag(
        "input",
        type="search",
        name="q",
        placeholder=t("search.placeholder"),
        autocomplete="off",
        aria_label=t("search.label"),
        aria_controls="found",
    )
    return tag(
        "dialog",
        tag("form", icon("search"), field, method="dialog"),
        tag("div", id="found"),
        id="search",
        class_="search",
        aria_label=t("search.label"),
    )


def _rename_dialog(t: Texts) -> Html:
    field = tag("input", name="title", maxlength="200", autocomplete="off", aria_label=t("js.rename"))
    return tag(
        "dialog",
        tag("h2", t("menu.rename")),
        tag(
            "form",
            tag("div", field, class_="field"),
            tag(
                "div",
                tag("button", t("cancel"), class_="small", value="no", type="submit", formnovalidate=True),
                tag("button", t("menu.rename"), class_="small strong", value="yes", type="submit"),
                class_="row end",
            ),
            method="dialog",
        ),
        id="rename",
        aria_label=t("menu.rename"),
    )


def _keys_dialog(t: Texts) -> Html:
    rows = [join(tag("dt", *join_keys(keys)), tag("dd", t(said))) for keys, said in _KEYS]
    return tag(
        "dialog",
        tag("h2", t("keys.title")),
        tag("dl", *rows, class_="keys"),
        tag("form", tag("button", t("close"), class_="small"), method="dialog"),
        id="keys",
        aria_label=t("keys.title"),
    )


def join_keys(keys: str) -> list[Content]:
    """Each key as a key."""
    found: list[Content] = []
    for chord in keys.split():
        found += [*(tag("kbd", key) for key in chord.split("+")), " "]
    return found


def _row_menu(t: Texts) -> Html:
    def entry(action: str, drawing: str, label: str) -> Html:
        return tag(
            "button", icon(drawing), tag("span", label), type="button", role="menuitem", data_action=action
        )

    return tag(
        "div",
        entry("pin", "pin", t("menu.pin")),
        entry("unpin", "pin", t("menu.unpin")),
        entry("rename", "edit", t("menu.rename")),
        entry("export-md", "download", t("menu.export_md")),
        entry("export-html", "download", t("menu.export_html")),
        entry("export-jsonl", "download", t("menu.export_jsonl")),
        entry("delete", "trash", t("menu.delete")),
        id="row-menu",
        role="menu",
        popover="auto",
        aria_label=t("menu.label"),
    )

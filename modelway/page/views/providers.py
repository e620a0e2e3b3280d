"""The page of providers: who is there, what each can do."""

from __future__ import annotations

from collections.abc import Sequence

from modelway.page.html import Content, Html, tag
from modelway.page.texts import Texts
from modelway.provider import ProviderInfo

_SHOWN_MODELS = 6


def providers(t: Texts, infos: Sequence[ProviderInfo], signs_in: frozenset[str]) -> list[Content]:
    """Those that are ready, then the others folded. `signs_in` names those that can be signed in to here."""
    ready = [info for info in infos if info.ready]
    others = [info for info in infos if not info.ready]
    open_ones = [info for info in others if info.name in signs_in]
    rest = [info for info in others if info.name not in signs_in]
    shown: list[Content] = [
        tag("p", t("providers.text"), class_="hint"),
        tag(
            "div",
            *(card(t, info, can_sign_in=info.name in signs_in) for info in (*ready, *open_ones)),
            class_="cards",
        ),
    ]
    if rest:
        summary = tag("summary", t.counted("providers.others", len(rest)))
        cards = tag("div", *(card(t, info, can_sign_in=False) for info in rest), class_="cards")
        shown.append(tag("details", summary, cards, class_="others"))
    return shown


def card(t: Texts, info: ProviderInfo, *, can_sign_in: bool) -> Html:
    """One provider."""
    actions: list[Content] = []
    if info.ready:
        actions.append(_button(t("providers.test"), "test", info.name))
    if can_sign_in:
        actions.append(_button(t("providers.sign_in"), "sign-in", info.name))
    return tag(
        "section",
        tag("header", tag("h2", info.name), _state(t, info)),
        tag("p", info.label, class_="hint") if info.label and info.label != info.name else None,
        tag("p", info.missing, class_="missing") if info.missing else None,
        _facts(t, info),
        tag("div", *actions, class_="row") if actions else None,
        tag("div", class_="outcome", role="status"),
        class_="provider",
        data_name=info.name,
    )


def _state(t: Texts, info: ProviderInfo) -> Html:
    if not info.ready:
        return tag("span", t("providers.missing"), class_="badge")
    if info.untried:
        return tag("span", t("providers.untried"), class_="badge")
    return tag("span", t("providers.ready"), class_="badge good")


def _facts(t: Texts, info: ProviderInfo) -> Html:
    told: list[tuple[str, Content]] = []
    if info.credential_source:
        told.append((t("providers.credential"), t(f"providers.source.{info.credential_source}")))
    names = [name for name in dict.fromkeys((info.default_model, *info.models)) if name]
    if names:
        more = f" +{len(names) - _SHOWN_MODELS}" if len(names) > _SHOWN_MODELS else ""
        told.append((t("providers.models"), ", ".join(names[:_SHOWN_MODELS]) + more))
    if info.supports:
        chips = [
            tag("span", t(f"supports.{one}") if f"supports.{one}" in t else one, class_="tick")
            for one in info.supports
        ]
        told.append((t("providers.supports"), tag("span", *chips, class_="ticks")))
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in told), class_="facts")


def _button(label: str, action: str, name: str) -> Html:
    return tag("button", label, type="button", class_="small", data_action=action, data_name=name)

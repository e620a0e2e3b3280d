"""The page of figures: plots of the last hour, each with a table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from modelway.page.html import Content, Html, tag
from modelway.page.minutes import Minute, costs_of, minutes_of
from modelway.page.texts import Texts
from modelway.page.views.plots import Series, bars, lines, lying

_Column = tuple[str, list[float | None]]


def figures(t: Texts, snapshot: Mapping[str, Any]) -> Html:
    """All plots."""
    minutes = minutes_of(snapshot)
    times = [_clock(minute.at) for minute in minutes]
    good: list[float | None] = [minute.requests - minute.errors for minute in minutes]
    bad: list[float | None] = [minute.errors for minute in minutes]
    middle = [minute.first_p50 for minute in minutes]
    slow = [minute.first_p95 for minute in minutes]
    rate = [minute.rate for minute in minutes]
    tokens: list[float | None] = [minute.tokens for minute in minutes]
    running: list[float | None] = [minute.running for minute in minutes]
    requests = [Series(t("figures.answered"), "one", good), Series(t("figures.errors"), "bad", bad)]
    first = [Series(t("figures.p50"), "one", middle), Series(t("figures.p95"), "two", slow)]
    name = [Series(t("figures.rate"), "one", rate)]
    return tag(
        "div",
        _tiles(t, snapshot, minutes),
        _plot(
            t,
            t("figures.requests"),
            bars(requests, times, t("figures.requests")),
            _table(times, [(t("figures.answered"), good), (t("figures.errors"), bad)], t),
        ),
        _plot(
            t,
            t("figures.first"),
            lines(first, times, t("figures.first"), t("figures.seconds")),
            _table(times, [(t("figures.p50"), middle), (t("figures.p95"), slow)], t),
        ),
        _plot(
            t,
            t("figures.rate"),
            lines(name, times, t("figures.rate")),
            _table(times, [(t("figures.rate"), rate)], t),
        ),
        _plot(
            t,
            t("figures.tokens"),
            bars([Series(t("figures.tokens"), "one", tokens)], times, t("figures.tokens")),
            _table(times, [(t("figures.tokens"), tokens)], t),
        ),
        _plot(
            t,
            t("figures.running"),
            bars([Series(t("figures.running"), "two", running)], times, t("figures.running")),
            _table(times, [(t("figures.running"), running)], t),
        ),
        _costs(t, costs_of(snapshot)),
        id="figures",
        class_="plots",
    )


def _tiles(t: Texts, snapshot: Mapping[str, Any], minutes: Sequence[Minute]) -> Html:
    requests = sum(minute.requests for minute in minutes)
    errors = sum(minute.errors for minute in minutes)
    cost = sum(line["cost"] for line in snapshot["lines"])
    told = (
        (t("figures.hour"), str(requests)),
        (t("figures.errors"), str(errors)),
        (t("figures.tokens"), f"{sum(minute.tokens for minute in minutes):,}".replace(",", "\u202f")),
        (t("figures.running"), str(minutes[-1].running)),
        (t("figures.cost"), f"${cost:.2f}"),
    )
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in told), class_="tiles")


def _plot(t: Texts, title: str, plot: Html, table: Html) -> Html:
    folded = tag("details", tag("summary", t("figures.table")), table)
    return tag("section", tag("h2", title), plot, folded, class_="figure")


def _table(times: Sequence[str], columns: Sequence[_Column], t: Texts) -> Html:
    """The minutes in which there is anything to tell, newest first."""
    head = tag(
        "tr",
        tag("th", t("figures.time"), scope="col"),
        *(tag("th", name, scope="col") for name, _ in columns),
    )
    rows = [
        tag("tr", tag("td", times[n]), *(tag("td", _told(values[n])) for _, values in columns))
        for n in reversed(range(len(times)))
        if any(values[n] for _, values in columns)
    ]
    if not rows:
        return tag("p", t("figures.nothing"), class_="hint")
    return tag(
        "div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll prose", tabindex="0"
    )


def _costs(t: Texts, costs: Sequence[tuple[str, float, int]]) -> Html:
    title = t("figures.costs")
    if not costs:
        return tag(
            "section", tag("h2", title), tag("p", t("figures.nothing"), class_="hint"), class_="figure"
        )
    plot = lying([(name, cost, f"${cost:.4f}") for name, cost, _ in costs[:8]], title)
    head: list[Content] = [
        tag("th", t(key), scope="col") for key in ("figures.provider", "figures.cost", "figures.requests")
    ]
    rows = [
        tag("tr", tag("td", name), tag("td", f"${cost:.4f}"), tag("td", str(n))) for name, cost, n in costs
    ]
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows))
    return _plot(t, title, plot, tag("div", table, class_="scroll prose", tabindex="0"))


def _clock(at: float) -> str:
    return dt.datetime.fromtimestamp(at).astimezone().strftime("%H:%M")


def _told(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"

"""Plots as SVG: bars and lines over the last hour. Colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10

from msgspec import Struct

from modelway.page.html import Content, Html, tag

WIDTH, HEIGHT = 560, 170
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 22
_STEPS = (1, 2, 2.5, 5, 10)


class Series(Struct, frozen=True):
    """Values over time, None where there is none. `look` is the class that colours it."""

    label: str
    look: str
    values: Sequence[float | None]


def bars(series: Sequence[Series], times: Sequence[str], label: str) -> Html:
    """Bars, those of the later series on top of the earlier ones."""
    sums = [sum(filter(None, column)) for column in zip(*(one.values for one in series), strict=True)]
    top = _top(max(sums, default=0))
    count = max(1, len(times))
    width = (WIDTH - LEFT - RIGHT) / count
    drawn: list[Content] = []
    for n, when in enumerate(times):
        below = 0.0
        for one in series:
            value = one.values[n] or 0
            if value:
                y, height = _y(below + value, top), _y(below, top) - _y(below + value, top)
                told = tag("title", f"{when} · {one.label}: {_number(value)}")
                x = LEFT + n * width + width * 0.1
                drawn.append(
                    tag(
                        "rect",
                        told,
                        x=_short(x),
                        y=_short(y),
                        width=_short(width * 0.8),
                        height=_short(height),
                        rx="1.5",
                        class_=one.look,
                    )
                )
                below += value
    return _frame(drawn, top, times, label, series)


def lines(series: Sequence[Series], times: Sequence[str], label: str, unit: str = "") -> Html:
    """Lines; a gap where nothing was measured, a dot where a value stands alone."""
    top = _top(max((value for one in series for value in one.values if value is not None), default=0))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(times) - 1)
    drawn: list[Content] = []
    for one in series:
        for run in _runs(one.values):
            points = " ".join(f"{_short(LEFT + n * step)},{_short(_y(value, top))}" for n, value in run)
            drawn.append(tag("polyline", points=points, class_=f"line {one.look}"))
            for n, value in run:
                told = tag("title", f"{times[n]} · {one.label}: {_number(value)} {unit}".rstrip())
                drawn.append(
                    tag(
                        "circle",
                        told,
                        cx=_short(LEFT + n * step),
                        cy=_short(_y(value, top)),
                        r="2.5",
                        class_=f"dot-{one.look} {one.look}",
                    )
                )
    return _frame(drawn, top, times, label, series)


def lying(rows: Sequence[tuple[str, float, str]], label: str) -> Html:
    """A bar for each name, with what it says at its end."""
    most = max((value for _, value, _ in rows), default=0) or 1
    drawn: list[Content] = []
    for n, (name, value, said) in enumerate(rows):
        y = 8 + n * 26
        width = max(2.0, (WIDTH - 240) * value / most)
        drawn += [
            tag("text", name[:20], x="0", y=str(y + 13), class_="name"),
            tag("rect", x="140", y=str(y), width=_short(width), height="17", rx="4", class_="one"),
            tag("text", said, x=_short(148 + width), y=str(y + 13)),
        ]
    height = max(40, 12 + 26 * len(rows))
    return tag("svg", *drawn, viewBox=f"0 0 {WIDTH} {height}", class_="plot", role="img", aria_label=label)


def _frame(
    drawn: Sequence[Content], top: float, times: Sequence[str], label: str, series: Sequence[Series]
) -> Html:
    grid: list[Content] = []
    for part in (0, 0.5, 1):
        y = _y(top * part, top)
        grid.append(
            tag("line", x1=str(LEFT), x2=str(WIDTH - RIGHT), y1=_short(y), y2=_short(y), class_="grid")
        )
        grid.append(tag("text", _number(top * part), x=str(LEFT - 6), y=_short(y + 4), class_="end"))
    for n in range(0, len(times), 15):
        x = LEFT + n * (WIDTH - LEFT - RIGHT) / max(1, len(times) - 1)
        grid.append(tag("text", times[n], x=_short(x), y=str(HEIGHT - 5), class_="middle" if n else None))
    shown = tag(
        "svg", *grid, *drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="plot", role="img", aria_label=label
    )
    if len(series) < 2:
        return shown
    keys = [tag("span", tag("i", class_=one.look), one.label) for one in series]
    return tag("div", shown, tag("p", *keys, class_="legend"))


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    runs: list[list[tuple[int, float]]] = [[]]
    for n, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((n, value))
    return [run for run in runs if run]


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _top(most: float) -> float:
    """The next round number."""
    if most <= 0:
        return 1
    unit: float = 10 ** floor(log10(most))
    return next(step * unit for step in _STEPS if step * unit >= most * 0.999999)


def _number(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:.0f}k"
    if value >= 100 or value == ceil(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _short(value: float) -> str:
    return f"{value:.1f}"

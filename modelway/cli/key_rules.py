"""The rules of a key as the command line takes and shows them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.setup import Setup

if TYPE_CHECKING:
    from modelway.types import Rules

Providers = Annotated[str | None, typer.Option(metavar="NAMES", help="Only these, with commas.")]
Models = Annotated[
    str | None, typer.Option(metavar="PATTERNS", help='Only these, as "gpt-*,Groq/*", with commas.')
]
Count = Annotated[int | None, typer.Option(min=0, help="0: no limit.")]
Streams = Annotated[int | None, typer.Option(min=0, help="Answers at the same time; 0: no limit.")]
Dollars = Annotated[float | None, typer.Option(metavar="DOLLARS", min=0, help="0: no limit.")]
Expires = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="After 12h, 30d or 8w, at the end of 2027-12-31, or never."),
]

NEVER = "never"
_LEAST_NANOS, _MOST_NANOS = 0.5, 2.0**63
_SPAN = re.compile(r"(\d{1,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


def ruled(setup: Setup, rules: Rules, given: dict[str, Any]) -> Rules:
    """The rules with what was given in the place of what they had; ProviderNotFound for an unknown name."""
    from msgspec.structs import replace

    changed: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, str):
            changed[name] = _named(name, value, getattr(rules, name))
        elif value is not None:
            changed[name] = _nanos(name, value) if name.endswith("_budget") else value
    new = replace(rules, **changed)
    _check_providers(setup, new)
    return new


def expiry(text: str, now: datetime) -> float | None:
    """When a key expires, in seconds since 1970, None for never; CommandError where the text does not say."""
    word = text.strip().lower()
    if word == NEVER:
        return None
    if span := _SPAN.fullmatch(word):
        return (now + timedelta(hours=int(span[1]) * _HOURS[span[2]])).timestamp()
    try:
        end = datetime.strptime(word, "%Y-%m-%d").astimezone() + timedelta(days=1)
    except ValueError:
        raise CommandError(
            f'"{text}" is not a time', hint="write 12h, 30d, 8w, 2027-12-31 or never", code=ExitCode.USAGE
        ) from None
    if end <= now:
        raise CommandError(f"{text} is over", hint="name a day to come", code=ExitCode.USAGE)
    return end.timestamp()


def written(rules: Rules) -> dict[str, Any]:
    """The rules that there are; budgets in dollars."""
    import msgspec

    from modelway.prices import NANOS

    fields: dict[str, Any] = msgspec.to_builtins(rules)
    return {name: value / NANOS if name.endswith("_budget") else value for name, value in fields.items()}


def names_in(text: str) -> tuple[str, ...]:
    """The names that are written with commas between them."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _named(rule: str, text: str, before: tuple[str, ...]) -> tuple[str, ...]:
    """The names; CommandError where none is among them, because that would permit everything.

    An empty text takes a rule away that there is.
    """
    names = names_in(text)
    if not names and (text.strip() or not before):
        raise CommandError(
            f"--{rule} names nothing, and a key without {rule} may use all",
            hint='name some with commas, or "*" for all of them',
            code=ExitCode.USAGE,
        )
    return names


def _nanos(rule: str, dollars: float) -> int:
    """A budget in billionths of a dollar; CommandError where it would be none, or is no amount of money."""
    from modelway.prices import NANOS

    nanos = dollars * NANOS
    # Not a number is between no two.
    if dollars != 0 and not _LEAST_NANOS < nanos < _MOST_NANOS:
        raise CommandError(
            f"--{rule.replace('_', '-')} {dollars:g} is not an amount of money",
            hint="write dollars, at least 0.000000001, or 0 for no limit",
            code=ExitCode.USAGE,
        )
    return round(nanos)


def _check_providers(setup: Setup, rules: Rules) -> None:
    if rules.providers:
        from modelway.cli.providers import described, find

        known = described(setup)
        for name in rules.providers:
            find(known, name)

"""`modelway keys`: who may call, and what each may do."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelway.cli.examples import examples
from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.output import local_time, say, say_json, say_table, warn
from modelway.cli.setup import Setup, set_up
from modelway.cli.store import in_store

if TYPE_CHECKING:
    from modelway.conversations.spending import Spending
    from modelway.keys import ApiKey
    from modelway.types import Rules

app = typer.Typer(
    help="Make, list, show and revoke the API keys of callers; what they spend.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The caller's name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

_SPAN = re.compile(r"(\d{1,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


@app.command()
@examples(
    "modelway keys create alice",
    'modelway keys create ci --models "gpt-4o-mini,Local/*" --daily-budget 2 --expires 30d',
)
def create(
    context: typer.Context,
    name: NameArgument,
    providers: Annotated[str, typer.Option(metavar="NAMES", help="Only these, with commas.")] = "",
    models: Annotated[
        str, typer.Option(metavar="PATTERNS", help='Only these, as "gpt-*,Groq/*", with commas.')
    ] = "",
    requests_per_minute: Annotated[int, typer.Option(min=0, help="0: no limit.")] = 0,
    tokens_per_minute: Annotated[int, typer.Option(min=0, help="0: no limit.")] = 0,
    streams: Annotated[int, typer.Option(min=0, help="Answers at the same time; 0: no limit.")] = 0,
    daily_budget: Annotated[float, typer.Option(metavar="DOLLARS", min=0, help="0: no limit.")] = 0,
    monthly_budget: Annotated[float, typer.Option(metavar="DOLLARS", min=0, help="0: no limit.")] = 0,
    expires: Annotated[
        str, typer.Option(metavar="WHEN", help="After 12h, 30d or 8w, or at the end of 2027-12-31.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a key, and print it; it cannot be shown again."""
    from modelway.prices import NANOS
    from modelway.types import Rules

    setup = set_up(context)
    rules = Rules(
        providers=_names(providers),
        models=_names(models),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        streams=streams,
        daily_budget=round(daily_budget * NANOS),
        monthly_budget=round(monthly_budget * NANOS),
    )
    if name in setup.settings.auth.api_keys:
        raise CommandError(
            f"[auth] api_keys has a key for {name} already", hint="choose another name", code=ExitCode.USAGE
        )
    _check_providers(setup, rules)
    until = expiry(expires, datetime.now().astimezone()) if expires else None
    secret, key = in_store(setup, lambda store: store.callers.create(name, rules, expires_at=until))
    if as_json:
        say_json({"key": secret, **described(key)})
    else:
        say(secret)
        warn("Keep it: it cannot be shown again. A server that runs knows it within a second.")


@app.command("list")
def list_keys(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the keys that were made here, those that no longer count among them."""
    keys = in_store(set_up(context), lambda store: store.callers.keys())
    if as_json:
        say_json({"keys": [described(key) for key in keys]})
    else:
        say_table(
            ("name", "key", "state", "made", "expires", "rules"),
            (
                (
                    key.name,
                    key.hint,
                    _state(key),
                    local_time(key.created_at),
                    local_time(key.expires_at) if key.expires_at else "",
                    _text(written(key.rules)),
                )
                for key in keys
            ),
        )


@app.command()
def show(context: typer.Context, name: NameArgument, as_json: JsonOption = False) -> None:
    """Show what a key may do, and what became of the ones before it; never the key itself."""
    keys = [one for one in in_store(set_up(context), lambda store: store.callers.keys()) if one.name == name]
    if not keys:
        raise CommandError(f"no key has the name {name}", hint="`modelway keys list` shows them")
    if as_json:
        say_json({"keys": [described(key) for key in keys]})
        return
    for key in keys:
        for field, value in described(key).items():
            if value not in (None, {}):
                say(f"{field + ':':<12}{local_time(value) if field.endswith('_at') else _text(value)}")


@app.command()
@examples("modelway keys revoke alice")
def revoke(
    context: typer.Context,
    name: NameArgument,
    forget: Annotated[
        bool, typer.Option("--forget", help="Drop all that is known of its keys, not of its spending.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Let a key no longer count; the caller's conversations stay."""
    in_store(set_up(context), lambda store: store.callers.revoke(name, forget=forget))
    if as_json:
        say_json({"name": name, "revoked": True})
    else:
        warn(f"the key of {name} no longer counts; a server that runs knows it within a second")


@app.command()
@examples("modelway keys usage --by caller,model", "modelway keys usage alice --from 2026-11-01")
def usage(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only this caller.")] = "",
    first: Annotated[str, typer.Option("--from", metavar="DAY", help="Else thirty days in all.")] = "",
    last: Annotated[str, typer.Option("--to", metavar="DAY", help="Else today; days are of UTC.")] = "",
    by: Annotated[
        str, typer.Option(metavar="FIELDS", help="What sums are by: day, caller, provider, model.")
    ] = "caller,provider,model",
    as_json: JsonOption = False,
) -> None:
    """Show what was asked and spent."""
    from modelway.prices import NANOS

    fields = _fields(by)
    end = _day(last) if last else datetime.now(UTC).date()
    begin = _day(first) if first else end - timedelta(days=29)
    found = in_store(
        set_up(context), lambda store: store.callers.usage(name, begin.isoformat(), end.isoformat())
    )
    sums = summed(found, fields)
    if as_json:
        say_json({"from": begin.isoformat(), "to": end.isoformat(), "usage": sums})
        return
    say_table(
        (*fields, "requests", "tokens in", "tokens out", "dollars"),
        (
            (
                *(str(one[field]) for field in fields),
                str(one["requests"]),
                str(one["input_tokens"]),
                str(one["output_tokens"]),
                f"{one['cost']:.4f}" + ("?" if one["unpriced"] else "~" if one["estimated"] else ""),
            )
            for one in sums
        ),
    )
    warn(f"{sum(one.nanos for one in found) / NANOS:.4f} dollars from {begin} to {end}")


def summed(found: Sequence[Spending], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Sums by some fields, dearest first."""
    from modelway.prices import NANOS

    sums: dict[tuple[str, ...], dict[str, Any]] = {}
    counted = ("requests", "estimated", "unpriced", "input_tokens", "output_tokens", "nanos")
    for one in found:
        key = tuple(getattr(one, field) for field in fields)
        row = sums.setdefault(key, {**dict(zip(fields, key, strict=True)), **dict.fromkeys(counted, 0)})
        for field in counted:
            row[field] += getattr(one, field)
    rows = sorted(sums.values(), key=lambda row: (-row["nanos"], -row["requests"]))
    return [{**row, "cost": row.pop("nanos") / NANOS} for row in rows]


def expiry(text: str, now: datetime) -> float:
    """When a key expires, in seconds since 1970; CommandError where the text does not say."""
    if span := _SPAN.fullmatch(text.strip().lower()):
        return (now + timedelta(hours=int(span[1]) * _HOURS[span[2]])).timestamp()
    try:
        end = datetime.strptime(text.strip(), "%Y-%m-%d").astimezone() + timedelta(days=1)
    except ValueError:
        raise CommandError(
            f'"{text}" is not a time', hint="write 12h, 30d, 8w or 2027-12-31", code=ExitCode.USAGE
        ) from None
    if end <= now:
        raise CommandError(f"{text} is over", hint="name a day to come", code=ExitCode.USAGE)
    return end.timestamp()


def described(key: ApiKey) -> dict[str, Any]:
    """What may be told of a key."""
    return {
        "name": key.name,
        "hint": key.hint,
        "state": _state(key),
        "rules": written(key.rules),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def written(rules: Rules) -> dict[str, Any]:
    """The rules that there are; budgets in dollars."""
    import msgspec

    from modelway.prices import NANOS

    fields: dict[str, Any] = msgspec.to_builtins(rules)
    return {name: value / NANOS if name.endswith("_budget") else value for name, value in fields.items()}


def _fields(text: str) -> tuple[str, ...]:
    fields = _names(text)
    if not fields or not set(fields) <= {"day", "caller", "provider", "model"}:
        raise CommandError(
            f'"{text}" is not what sums can be by',
            hint="name some of day, caller, provider, model, with commas",
            code=ExitCode.USAGE,
        )
    return fields


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise CommandError(f'"{text}" is not a day', hint="write 2026-12-31", code=ExitCode.USAGE) from None


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.counts(time.time()) else "expired"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _check_providers(setup: Setup, rules: Rules) -> None:
    """ProviderNotFound for a name that no provider bears."""
    if rules.providers:
        from modelway.cli.providers import described as all_providers
        from modelway.cli.providers import find

        known = all_providers(setup)
        for name in rules.providers:
            find(known, name)

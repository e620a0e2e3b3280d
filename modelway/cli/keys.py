"""`modelway keys`: who may call, and what each may do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelway.cli.examples import examples
from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.key_rules import (
    NEVER,
    Count,
    Dollars,
    Expires,
    Models,
    Providers,
    Streams,
    expiry,
    names_in,
    ruled,
    written,
)
from modelway.cli.output import local_time, say, say_json, say_table, warn
from modelway.cli.setup import Setup, set_up
from modelway.cli.store import in_store

if TYPE_CHECKING:
    from modelway.conversations import Spending
    from modelway.keys import ApiKey

app = typer.Typer(
    help="Make, list, show and revoke the API keys of callers; what they spend.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The caller's name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
@examples(
    "modelway keys create alice",
    'modelway keys create ci --models "gpt-4o-mini,Local/*" --daily-budget 2 --expires 30d',
)
def create(
    context: typer.Context,
    name: NameArgument,
    providers: Providers = None,
    models: Models = None,
    requests_per_minute: Count = None,
    tokens_per_minute: Count = None,
    streams: Streams = None,
    daily_budget: Dollars = None,
    monthly_budget: Dollars = None,
    expires: Expires = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key, and print it; it cannot be shown again."""
    from modelway.types import Rules

    setup = set_up(context)
    rules = ruled(setup, Rules(), _given(context))
    if name in setup.settings.auth.api_keys:
        raise CommandError(
            f"[auth] api_keys has a key for {name} already", hint="choose another name", code=ExitCode.USAGE
        )
    until = expiry(expires or NEVER, datetime.now().astimezone())
    secret, key = in_store(setup, lambda store: store.callers.create(name, rules, expires_at=until))
    if as_json:
        say_json({"key": secret, **described(key)})
    else:
        say(secret)
        warn("Keep it: it cannot be shown again. A server that runs knows it within a second.")


@app.command()
@examples("modelway keys change alice --daily-budget 5 --models ''")
def change(
    context: typer.Context,
    name: NameArgument,
    providers: Providers = None,
    models: Models = None,
    requests_per_minute: Count = None,
    tokens_per_minute: Count = None,
    streams: Streams = None,
    daily_budget: Dollars = None,
    monthly_budget: Dollars = None,
    expires: Expires = None,
    as_json: JsonOption = False,
) -> None:
    """Change what a key may do; the key and what is not named stay as they are."""
    setup = set_up(context)
    old = _valid(setup, name)
    until = old.expires_at if expires is None else expiry(expires, datetime.now().astimezone())
    rules = ruled(setup, old.rules, _given(context))
    in_store(setup, lambda store: store.callers.change(name, rules, expires_at=until))
    if as_json:
        say_json(described(_valid(setup, name)))
    else:
        warn(f"the key of {name} is changed; a server that runs knows it within a second")


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


def _given(context: typer.Context) -> dict[str, Any]:
    """What the options say of rules, None for what they do not name."""
    from modelway.types import Rules

    return {name: context.params[name] for name in Rules.__struct_fields__}


def _valid(setup: Setup, name: str) -> ApiKey:
    """The key of this name that counts."""
    keys = in_store(setup, lambda store: store.callers.keys())
    found = next((key for key in keys if key.name == name and key.revoked_at is None), None)
    if found is None:
        raise CommandError(f"no key that counts has the name {name}", hint="`modelway keys list` shows them")
    return found


def _fields(text: str) -> tuple[str, ...]:
    fields = names_in(text)
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

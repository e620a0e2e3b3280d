"""`modelway keys`: made, listed, shown, revoked."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime

import pytest

from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.key_rules import expiry
from modelway.config import ConversationSettings
from modelway.conversations import Conversations
from modelway.conversations.spending import Spending
from modelway.keys import hash_key
from tests.cli.conftest import Home

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.check(39)
def test_a_key_is_printed_once_and_kept_as_a_hash(home: Home) -> None:
    done = home.run("keys", "create", "alice")
    assert done.code == 0
    secret = done.out.strip()
    assert secret.startswith("mw-")
    assert secret not in done.err
    assert secret.encode() not in (home.folder / "conversations.sqlite3").read_bytes()
    with sqlite3.connect(home.folder / "conversations.sqlite3") as database:
        assert database.execute("SELECT digest FROM api_keys").fetchall() == [(hash_key(secret),)]
    database.close()
    for command in (("list",), ("show", "alice"), ("list", "--json")):
        shown = home.run("keys", *command).out
        assert "alice" in shown
        assert secret not in shown


def test_rules_are_kept_as_they_were_given(home: Home) -> None:
    done = home.run(
        *("keys", "create", "ci", "--json", "--providers", "groq, Local", "--models", "gpt-*"),
        *("--requests-per-minute", "60", "--tokens-per-minute", "1000", "--streams", "2"),
        *("--daily-budget", "0.25", "--monthly-budget", "5", "--expires", "30d"),
    )
    made = done.json
    assert made["rules"] == {
        "providers": ["groq", "Local"],
        "models": ["gpt-*"],
        "requests_per_minute": 60,
        "tokens_per_minute": 1000,
        "streams": 2,
        "daily_budget": 0.25,
        "monthly_budget": 5.0,
    }
    assert made["expires_at"] - made["created_at"] == pytest.approx(30 * 86_400, abs=60)
    (listed,) = home.run("keys", "list", "--json").json["keys"]
    assert listed == {name: value for name, value in made.items() if name != "key"}


@pytest.mark.parametrize(
    "given",
    [
        ("--models", ""),
        ("--models", ","),
        ("--providers", " , "),
        ("--daily-budget", "1e-12"),
        ("--daily-budget", "nan"),
        ("--monthly-budget", "inf"),
        ("--monthly-budget", "1e300"),
    ],
)
def test_no_key_is_made_whose_limit_would_be_none(home: Home, given: tuple[str, str]) -> None:
    done = home.run("keys", "create", "a", *given)
    assert done.code == ExitCode.USAGE
    assert given[0] in done.err
    assert home.run("keys", "list", "--json").json["keys"] == []


def test_a_key_is_changed_where_it_is_named_and_nowhere_else(home: Home) -> None:
    secret = home.run("keys", "create", "a", "--models", "gpt-*", "--streams", "2", "--expires", "1d").out
    done = home.run(
        "keys", "change", "a", "--daily-budget", "5", "--models", "", "--expires", "never", "--json"
    )
    assert done.json["rules"] == {"streams": 2, "daily_budget": 5.0}
    assert done.json["expires_at"] is None
    assert secret.startswith(done.json["hint"].rstrip("…"))
    assert home.run("keys", "change", "b", "--streams", "1").code == 1


def test_a_name_has_one_key_at_a_time(home: Home) -> None:
    assert home.run("keys", "create", "alice").code == 0
    again = home.run("keys", "create", "alice")
    assert again.code == 2
    assert "revoke alice" in again.err
    assert home.run("keys", "revoke", "alice").code == 0
    assert home.run("keys", "create", "alice").code == 0
    states = [key["state"] for key in home.run("keys", "show", "alice", "--json").json["keys"]]
    assert states == ["revoked", "valid"]
    assert home.run("keys", "revoke", "alice", "--forget", "--json").json == {
        "name": "alice",
        "revoked": True,
    }
    assert home.run("keys", "list", "--json").json == {"keys": []}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("revoke", "nobody"), "nobody"),
        (("show", "nobody"), "nobody"),
        (("create", "no blanks"), "name of a key"),
        (("create", "a", "--providers", "Grok"), "Groq"),
        (("create", "a", "--expires", "soon"), "30d"),
        (("create", "a", "--expires", "2020-01-01"), "over"),
    ],
)
def test_what_cannot_be_is_told(home: Home, arguments: tuple[str, ...], said: str) -> None:
    done = home.run("keys", *arguments)
    assert done.code in (1, 2)
    assert said in done.err
    assert not done.out


def test_a_name_of_the_configuration_is_taken(home: Home) -> None:
    with home.config.open("a") as file:
        file.write(f'[auth.api_keys]\nalice = "{hash_key("sk-fake")}"\n')
    assert "[auth]" in home.run("keys", "create", "alice").err


def test_what_was_spent_is_shown_by_what_is_asked_for(home: Home) -> None:
    day = datetime.now(UTC).date().isoformat()

    def charge(caller: str, model: str, nanos: int, **fields: int) -> Spending:
        return Spending(day=day, caller=caller, provider="P", model=model, nanos=nanos, **fields)

    async def spend() -> None:
        store = Conversations.open(home.folder / "conversations.sqlite3", ConversationSettings())
        dear, cheap = charge("a", "m", 10**9, input_tokens=5), charge("b", "n", 10**6, estimated=1)
        await store.callers.spend([dear, cheap, dear, charge("b", "o", 0, unpriced=1)], day)
        await store.aclose()

    asyncio.run(spend())
    told = home.run("keys", "usage", "--by", "caller", "--json").json["usage"]
    assert [(one["caller"], one["requests"], one["cost"]) for one in told] == [("a", 2, 2.0), ("b", 2, 0.001)]
    shown = home.run("keys", "usage", "--by", "model")
    assert shown.out.splitlines() == ["m\t2\t10\t0\t2.0000", "n\t1\t0\t0\t0.0010~", "o\t1\t0\t0\t0.0000?"]
    assert "2.0010 dollars" in shown.err
    assert home.run("keys", "usage", "b", "--to", "2020-01-31").out == ""
    assert "day, caller" in home.run("keys", "usage", "--by", "hour").err


def test_an_expiry_is_a_span_or_the_end_of_a_day() -> None:
    assert expiry("12h", NOW) == NOW.timestamp() + 12 * 3600
    assert expiry("2w", NOW) == NOW.timestamp() + 14 * 86_400
    assert expiry("2026-12-31", NOW) == datetime(2027, 1, 1).astimezone().timestamp()
    assert expiry("never", NOW) is None
    with pytest.raises(CommandError):
        expiry("", NOW)

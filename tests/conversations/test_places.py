"""SQL with its parameters by place does what it does with them by name."""

import math
import re
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.conversations.composed import STATEMENTS
from modelway.conversations.places import PlacedOnce, placed, take_as_they_are

NAMES = ("id", "tree", "tree_of", "a1")
words = st.sampled_from([*(f":{name}" for name in NAMES), "':id'", "''", "1", '1 AS ":tree"'])


@given(st.lists(words, min_size=1, max_size=8))
def test_a_tuple_says_what_names_say(words: list[str]) -> None:
    sql = f"SELECT {', '.join(words)}"
    values = {name: f"the {name}" for name in NAMES}
    sql_with_places, order = placed(sql)
    with sqlite3.connect(":memory:") as connection:
        named = connection.execute(sql, values).fetchone()
        assert connection.execute(sql_with_places, order(values)).fetchone() == named
    connection.close()


def test_a_value_that_is_missing_is_not_guessed() -> None:
    for sql in ("SELECT :id", "SELECT :id, :tree"):
        with pytest.raises(KeyError):
            placed(sql).order({"name": 1})


def test_every_statement_of_the_store_is_placed_without_rest() -> None:
    for name in STATEMENTS.__struct_fields__:
        text = placed(getattr(STATEMENTS, name)).sql
        assert ":" not in text, name
        # Some releases of CPython 3.12 take a numbered one for a name.
        assert not re.search(r"\?\d", text), name


def test_a_text_is_placed_once() -> None:
    known = PlacedOnce()
    assert known["SELECT :id"] is known["SELECT :id"]


def test_the_adapters_of_a_program_that_embeds_us_stay() -> None:
    before = dict(sqlite3.adapters)
    try:
        sqlite3.register_adapter(bool, lambda value: "yes" if value else "no")
        take_as_they_are()
        with sqlite3.connect(":memory:") as connection:
            assert connection.execute("SELECT ?", (True,)).fetchone() == ("yes",)
        connection.close()
    finally:
        sqlite3.adapters.clear()
        sqlite3.adapters.update(before)


@given(st.none() | st.booleans() | st.binary() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats())
def test_values_are_stored_as_they_are(value: object) -> None:
    with sqlite3.connect(":memory:") as connection:
        asked = "SELECT ?, typeof(?)"
        take_as_they_are()
        stored, kind = connection.execute(asked, (value, value)).fetchone()
    connection.close()
    if isinstance(value, float) and math.isnan(value):
        value = None  # SQLite knows no such number
    assert (stored, type(stored)) == (value, int if isinstance(value, bool) else type(value))
    kinds = {bool: "integer", int: "integer", bytes: "blob", str: "text", float: "real"}
    assert kind == kinds.get(type(value), "null")

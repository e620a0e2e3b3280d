"""Parameters of SQL as SQLite's driver takes them soonest: by their places, and with no search for adapters.

For each name of a mapping the driver makes a string and looks it up; a tuple it goes through as it is. For
each None, bool and bytes it looks for what could turn them into something else, in vain, with an exception.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

# A name, or something quoted, in which a colon is only a colon. Our own statements have no comments.
_NAME = re.compile(r"""'[^']*'|"[^"]*"|:([a-z_]\w*)""", re.IGNORECASE)

Values = Mapping[str, object]


class Placed(NamedTuple):
    """SQL with a `?` for each name, and what brings the values of the names into their order."""

    sql: str
    order: Callable[[Any], tuple[object, ...]]


def take_as_they_are() -> None:
    """Let the driver take None, bool and bytes as they are, in all of the process; again is harmless.

    A program that has adapters of its own for these keeps them.
    """
    nothing: dict[None, None] = {}
    # Functions written in C that give back what they are given: `get` of an empty mapping gives None.
    own: dict[type, Callable[[Any], Any]] = {type(None): nothing.get, bool: int, bytes: bytes}
    for kind, as_it_is in own.items():
        if (kind, sqlite3.PrepareProtocol) not in sqlite3.adapters:
            sqlite3.register_adapter(kind, as_it_is)


class PlacedOnce(dict[str, Placed]):
    """Each text as placed() gives it, which is done once."""

    def __missing__(self, sql: str) -> Placed:
        found = self[sql] = placed(sql)
        return found


def placed(sql: str) -> Placed:
    """SQL with named parameters, as the driver takes it with a tuple; a name may come several times."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return found[0]
        names.append(name)
        # Not `?1`: some releases of CPython 3.12 take that for a name, and warn of each value.
        return "?"

    return Placed(_NAME.sub(number, sql), _in_order(names))


def _in_order(names: list[str]) -> Callable[[Any], tuple[object, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    if names:
        (name,) = names
        return lambda values: (values[name],)
    return lambda _: ()

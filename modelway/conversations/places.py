"""Parameters of SQL by their places: SQLite's driver takes a tuple in half of the time of a mapping of names.

For each name the driver makes a string and looks it up; a tuple it goes through as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

# A name, or a literal, in which a colon is only a colon.
_NAME = re.compile(r"'[^']*'|:([a-z_]\w*)", re.IGNORECASE)

Values = Mapping[str, object]


class Placed(NamedTuple):
    """SQL with numbered parameters, and what brings the values of the names into their order."""

    sql: str
    order: Callable[[Any], tuple[object, ...]]


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
        if name not in names:
            names.append(name)
        return f"?{names.index(name) + 1}"

    return Placed(_NAME.sub(number, sql), _in_order(names))


def _in_order(names: list[str]) -> Callable[[Any], tuple[object, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    if names:
        (name,) = names
        return lambda values: (values[name],)
    return lambda _: ()

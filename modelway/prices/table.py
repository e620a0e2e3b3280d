"""The published prices that come with Modelway, and how a model's name finds one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from modelway.prices.price import Price

# Dates as 20261211 at the end of a name; the table writes them 2026-12-11.
_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class Vendor(Struct, frozen=True):
    """`models` begin with how to know one by its name; prices follow, the first for any length."""

    address: str
    others: tuple[str, ...]
    models: list[list[Any]]


class Table(Struct, frozen=True):
    """The prices of all vendors, in dollars for a million tokens, as they were on a day."""

    source: str
    as_of: str
    unit: str
    providers: dict[str, Vendor]

    def vendor_at(self, address: str) -> str:
        """The vendor whose API is at an address; "" where none is known to be."""
        for name, vendor in self.providers.items():
            if re.match(vendor.address, address):
                return name
        return ""

    def price(self, vendor: str, model: str) -> Price | None:
        """The price of a model by its name in lower case; None where the table does not have it."""
        dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", model)
        for name in (model, dashed) if dashed != model else (model,):
            own = self.providers.get(vendor)
            for one in (vendor, *(own.others if own else ())):
                for match, *prices in self.providers[one].models if one in self.providers else ():
                    if _fits(match, name):
                        return _price(prices)
        return None


def load_table() -> Table:
    """Read the table."""
    return msgspec.json.decode(Path(__file__).with_name("table.json").read_bytes(), type=Table)


def _price(prices: list[dict[str, Any]]) -> Price:
    longer = tuple(Price.of_a_million(**one) for one in prices[1:])
    return Price.of_a_million(**prices[0], longer=longer)


def _fits(match: list[Any], name: str) -> bool:
    word, *values = match
    match word:
        case "any":
            return any(_fits(one, name) for one in values)
        case "all":
            return all(_fits(one, name) for one in values)
        case "fits":
            return re.search(values[0], name) is not None
    text = values[0].lower()
    tests: dict[str, bool] = {
        "is": name == text,
        "begins": name.startswith(text),
        "ends": name.endswith(text),
        "has": text in name,
    }
    return tests[word]

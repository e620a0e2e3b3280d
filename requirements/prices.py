"""Writes modelway/prices/table.json out of genai-prices, which is installed for this alone.

The package itself takes a second and 80 MB to load, so that its prices are kept in a form that takes neither.
"""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

from genai_prices import types
from genai_prices.data_snapshot import get_snapshot

TABLE = Path(__file__).parent.parent / "modelway" / "prices" / "table.json"
KNOWN = (
    *(
        "anthropic",
        "aws",
        "azure",
        "cerebras",
        "cohere",
        "deepseek",
        "fireworks",
        "google",
        "groq",
        "minimax",
    ),
    *("mistral", "moonshotai", "openai", "openrouter", "perplexity", "together", "x-ai", "zai", "zhipuai"),
)
WORDS = (
    (types.ClauseEquals, "is", "equals"),
    (types.ClauseStartsWith, "begins", "starts_with"),
    (types.ClauseEndsWith, "ends", "ends_with"),
    (types.ClauseContains, "has", "contains"),
    (types.ClauseRegex, "fits", "regex"),
    (types.ClauseOr, "any", "or_"),
    (types.ClauseAnd, "all", "and_"),
)
FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
}


def main() -> None:
    now = datetime.now(UTC)
    providers = {one.id: one for one in get_snapshot().providers}
    table = {
        "source": f"genai-prices {version('genai-prices')}, MIT License, (c) Pydantic Services Inc.",
        "as_of": f"{now:%Y-%m-%d}",
        "unit": "dollars for a million tokens",
        "providers": {
            name: {
                "address": providers[name].api_pattern,
                "others": [
                    other for other in providers[name].fallback_model_providers or () if other in KNOWN
                ],
                "models": [
                    [matched(model.match), *prices]
                    for model in providers[name].models
                    if (prices := tiers(model.get_prices(now)))
                ],
            }
            for name in KNOWN
        },
    }
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False)
    TABLE.write_text(re.sub(r"(\],|\[)(?=\[\[)", r"\1\n", text) + "\n")


def matched(clause: object) -> list[object]:
    for kind, word, field in WORDS:
        if isinstance(clause, kind):
            value = getattr(clause, field)
            return [word, *map(matched, value)] if isinstance(value, list) else [word, value]
    raise TypeError(clause)


def tiers(price: types.ModelPrice) -> list[object]:
    """The price, and the prices above some lengths of the input; empty where tokens have none."""
    values = {name: getattr(price, field) for name, field in FIELDS.items()}
    if values["input"] is None and values["output"] is None:
        return []
    starts = {
        tier.start
        for value in values.values()
        if isinstance(value, types.TieredPrices)
        for tier in value.tiers
    }
    return [
        {"above": start, **at(values, start)} if start else at(values, 0) for start in (0, *sorted(starts))
    ]


def at(values: dict[str, object], start: int) -> dict[str, float]:
    return {name: float(found) for name, value in values.items() if (found := one(value, start)) is not None}


def one(value: object, start: int) -> Decimal | None:
    if isinstance(value, types.TieredPrices):
        return (
            next((tier.price for tier in reversed(value.tiers) if tier.start <= start), value.base)
            if start
            else value.base
        )
    return value  # type: ignore[return-value]


if __name__ == "__main__":
    main()

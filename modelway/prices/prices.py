"""Finds the price of a model: the user's own, else the one that is published."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from modelway.config import PriceSettings
from modelway.prices.price import Price
from modelway.prices.table import Table, load_table

# What the table calls our providers, by our names in lower case.
_VENDORS = {
    "anthropic": "anthropic",
    "azure": "azure",
    "bedrock": "aws",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "gemini": "google",
    "gemini-openai": "google",
    "groq": "groq",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
    "vertex": "google",
    "xai": "x-ai",
    "zhipu": "zai",
}
_ALL = "*"
_MOST_KNOWN = 2048
_LONGEST_NAME = 200


class Prices:
    """Prices by provider and model.

    `own` are the user's, by "Provider/model" (patterns too); the first that fits wins. The pattern "*" is for
    what has no other price, a published one included. `addresses` are the base URLs of providers that the
    user has named, by which the table knows a vendor under any name.
    """

    def __init__(
        self, own: Mapping[str, PriceSettings] | None = None, addresses: Mapping[str, str] | None = None
    ) -> None:
        prices = {pattern.casefold(): _price(settings) for pattern, settings in (own or {}).items()}
        self._others = prices.pop(_ALL, None)
        self._own = prices
        self._addresses = {name.casefold(): address for name, address in (addresses or {}).items()}
        self._known: dict[tuple[str, str], Price | None] = {}
        self._table: Table | None = None

    def of(self, provider: str, model: str) -> Price | None:
        """The price of a provider's model; None where nobody has told it."""
        try:
            return self._known[provider, model]
        except KeyError:
            # Callers choose the names of models: what is remembered must not grow with them.
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._find(provider.casefold(), model.casefold()) or self._others
            self._known[provider, model] = found
            return found

    def _find(self, provider: str, model: str) -> Price | None:
        if not model or len(model) > _LONGEST_NAME:
            return None
        for pattern, price in self._own.items():
            if fnmatchcase(f"{provider}/{model}", pattern):
                return price
        address = self._addresses.get(provider, "")
        if not address and provider not in _VENDORS:
            return None
        if self._table is None:
            self._table = load_table()
        vendor = self._table.vendor_at(address) if address else _VENDORS[provider]
        return self._table.price(vendor, model)


def _price(settings: PriceSettings) -> Price:
    return Price.of_a_million(
        input=settings.input,
        output=settings.output,
        cached=settings.cached,
        cache_write=settings.cache_write,
    )

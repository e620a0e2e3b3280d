"""The price of a model, and what an answer costs by it."""

from __future__ import annotations

from msgspec import Struct

from modelway.types import Usage

# Billionths of a dollar, in which money is counted: a token may cost less than a millionth.
NANOS = 1_000_000_000
# No answer costs a million dollars, whatever price somebody has set; so sums stay numbers that can be stored.
MOST_NANOS = 1_000_000 * NANOS


class Price(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a thousand tokens cost, in billionths of a dollar (a million of them costs as many dollars / 1e6).

    `above`: this is the price of all tokens where there are more than so many of input; `longer` are such
    prices, in rising order.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    above: int = 0
    longer: tuple[Price, ...] = ()

    @classmethod
    def of_a_million(
        cls,
        *,
        input: float = 0.0,
        output: float = 0.0,
        cached: float | None = None,
        cache_write: float | None = None,
        above: int = 0,
        longer: tuple[Price, ...] = (),
    ) -> Price:
        """A price in dollars for a million tokens, as vendors tell theirs."""
        return cls(
            input=_nanos(input),
            output=_nanos(output),
            cached=_nanos(input if cached is None else cached),
            cache_write=_nanos(input if cache_write is None else cache_write),
            above=above,
            longer=longer,
        )

    def cost(self, usage: Usage) -> int:
        """What an answer costs, in billionths of a dollar, rounded up."""
        price = self
        if self.longer:
            for one in self.longer:
                if usage.input_tokens > one.above:
                    price = one
        plain = max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens)
        thousandths = (
            plain * price.input
            + usage.cached_tokens * price.cached
            + usage.cache_write_tokens * price.cache_write
            + usage.output_tokens * price.output
        )
        return min(-(-thousandths // 1000), MOST_NANOS)


def _nanos(dollars_for_a_million: float) -> int:
    return round(dollars_for_a_million * NANOS / 1000)

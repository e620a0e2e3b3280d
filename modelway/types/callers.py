"""Who asks, what its rules permit, and the models that it can be told of."""

from __future__ import annotations

from msgspec import Struct


class Rules(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a caller may do; empty and 0 mean no limit.

    `providers` are names in any case; `models` are patterns ("gpt-*", "Groq/*") for the names that callers
    use and for the upstreams'. Budgets are in billionths of a dollar, by the day and month of UTC.
    """

    providers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    streams: int = 0
    daily_budget: int = 0
    monthly_budget: int = 0


class Caller(Struct, frozen=True):
    """Who asks. Conversations belong to a caller and are invisible to every other one.

    `rules` is None where there are none.
    """

    name: str
    rules: Rules | None = None


class Model(Struct, frozen=True, omit_defaults=True):
    """A model that a provider offers. `context_length` is in tokens, 0: not known."""

    id: str
    created: int = 0
    owned_by: str = ""
    context_length: int = 0

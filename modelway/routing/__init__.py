"""Turns what a caller names into candidates, and decides what a failed attempt permits."""

from modelway.routing.breakers import Breakers, BreakerState
from modelway.routing.candidates import Candidate, Limits, Route
from modelway.routing.explaining import Explanation, Prospect, explain, health
from modelway.routing.retrying import RetryPolicy
from modelway.routing.router import BadSetting, Router, nearest, unknown_provider

__all__ = [
    "BadSetting",
    "BreakerState",
    "Breakers",
    "Candidate",
    "Explanation",
    "Limits",
    "Prospect",
    "RetryPolicy",
    "Route",
    "Router",
    "explain",
    "health",
    "nearest",
    "unknown_provider",
]

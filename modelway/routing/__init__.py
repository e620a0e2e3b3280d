"""Turns what a caller names into candidates, and decides what a failed attempt permits."""

from modelway.routing.breakers import Breakers, BreakerState
from modelway.routing.candidates import Candidate, Limits, Route
from modelway.routing.retrying import RetryPolicy
from modelway.routing.router import BadSetting, Router, unknown_provider

__all__ = [
    "BadSetting",
    "BreakerState",
    "Breakers",
    "Candidate",
    "Limits",
    "RetryPolicy",
    "Route",
    "Router",
    "unknown_provider",
]

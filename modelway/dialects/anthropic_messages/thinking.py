"""How much a model is to think: from `reasoning_effort` to Anthropic's fields, and back."""

from __future__ import annotations

import re
from typing import Any

from modelway.errors import InvalidRequest
from modelway.types import Params

MIN_BUDGET = 1024
EFFORTS = ("low", "medium", "high", "xhigh", "max")

# Tokens of thought for models that are told a budget.
_BUDGETS = {"low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 30_720}
# Models before 4.6 do not choose themselves how long to think. Source: "Adaptive thinking", 2026-11.
_needs_budget = re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4-(?:[015]\b|20\d\d))").search
# Up-front thinking of these is turned off with another word. Source: their migration guide.
_keeps_notes = re.compile(r"claude-sonnet-5-5\b").search


def thinking_fields(model: str, params: Params, body: dict[str, Any]) -> dict[str, Any]:
    """The fields that make a model think as much as was asked; none where nothing was asked.

    Newer models leave the text of their thinking out unless it is asked for, which it is here.
    """
    asked = params.reasoning_effort
    if asked is None:
        return {}
    if asked == "none":
        return {"thinking": {"type": "between_tools" if _keeps_notes(model) else "disabled"}}
    effort = "low" if asked == "minimal" else asked
    if effort not in EFFORTS:
        raise InvalidRequest(
            f"Anthropic does not know the `reasoning_effort` {asked[:80]!r}",
            param="reasoning_effort",
            hint="use one of none, minimal, " + ", ".join(EFFORTS),
        )
    if _needs_budget(model):
        budget = _budget(effort, body["max_tokens"])
        return {"thinking": {"type": "enabled", "budget_tokens": budget}}
    config = {**body.get("output_config", {}), "effort": effort}
    return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": config}


def effort_asked(thinking: dict[str, Any] | None, output_config: dict[str, Any]) -> str | None:
    """The effort that a caller of Anthropic's format asks for, for upstreams of other formats."""
    kind = (thinking or {}).get("type")
    if kind in ("disabled", "between_tools"):
        return "none"
    if kind == "enabled":
        budget = (thinking or {}).get("budget_tokens")
        if not isinstance(budget, int):
            return None
        return next((effort for effort in EFFORTS[:3] if budget <= _BUDGETS[effort]), "high")
    effort = output_config.get("effort")
    return effort if effort in EFFORTS else None


def _budget(effort: str, max_tokens: int) -> int:
    """Tokens of thought, which are part of `max_tokens` and must leave some for the answer."""
    if max_tokens <= MIN_BUDGET:
        raise InvalidRequest(
            f"to think, this model needs more than {MIN_BUDGET} `max_tokens`",
            param="max_tokens",
            hint="raise it, or leave `reasoning_effort` out",
        )
    return max(min(_BUDGETS[effort], max_tokens * 3 // 4), MIN_BUDGET)

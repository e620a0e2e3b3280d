"""How much a model is to think: a budget of tokens for Gemini 2.5, a level for those after it."""

from __future__ import annotations

from typing import Any

from modelway.errors import InvalidRequest

# The numbers are those of Google's own OpenAI-compatible address (ai.google.dev/gemini-api/docs/openai).
BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
LEVELS = ("minimal", "low", "medium", "high", "xhigh")


def thinking_config(model: str, effort: str) -> dict[str, Any]:
    """`thinkingConfig` for a model's bare name. InvalidRequest for a word that it cannot obey.

    "max", which is Anthropic's, is as much as there is.
    """
    if effort == "max":
        effort = LEVELS[-1] if must_think(model) else "high"
    if not must_think(model):
        if effort not in BUDGETS:
            raise _unknown(effort, tuple(BUDGETS))
        budget = BUDGETS[effort]
        return {"thinkingBudget": budget, "includeThoughts": budget > 0}
    if effort == "none":
        raise InvalidRequest(
            f"{model} cannot be kept from thinking",
            param="reasoning_effort",
            hint='ask for "minimal" or "low", or choose a model of Gemini 2.5',
        )
    if effort not in LEVELS:
        raise _unknown(effort, LEVELS)
    return {"thinkingLevel": effort.upper(), "includeThoughts": True}


def must_think(model: str) -> bool:
    """Whether a model, by its bare name, cannot be kept from thinking."""
    return not model.startswith("gemini-2")


def _unknown(effort: str, known: tuple[str, ...]) -> InvalidRequest:
    return InvalidRequest(
        f"Gemini has no reasoning effort {effort[:40]!r}",
        param="reasoning_effort",
        hint=f"choose one of {', '.join(known)}",
    )

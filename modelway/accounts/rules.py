"""What the rules of a key let a caller use."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from modelway.errors import PermissionDenied
from modelway.routing import Candidate
from modelway.types import Caller, ChatRequest, Rules


def may_use(rules: Rules, provider: str, model: str, asked: str = "") -> bool:
    """Whether a provider's model may be used, which the caller asked for under a name (of a route, say)."""
    if not may_see(rules, provider):
        return False
    if not rules.models:
        return True
    names = {model.casefold(), f"{provider}/{model}".casefold(), asked.casefold()} - {""}
    patterns = [pattern.casefold() for pattern in rules.models]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def may_see(rules: Rules, provider: str) -> bool:
    """Whether anything of a provider may be used."""
    return not rules.providers or provider.casefold() in {name.casefold() for name in rules.providers}


def permitted(caller: Caller, candidates: Sequence[Candidate], request: ChatRequest) -> list[Candidate]:
    """Those of the candidates that the caller may use; PermissionDenied where there are none."""
    rules = caller.rules
    if rules is None:
        return list(candidates)
    # Where a provider is named, the model is the upstream's name and not one of ours.
    asked = "" if request.provider else request.model
    left = [one for one in candidates if may_use(rules, one.name, one.model, asked)]
    if not left:
        raise denied(caller, candidates[0].name, candidates[0].model)
    return left


def only_without_rules(caller: Caller, what: str) -> None:
    """PermissionDenied where the caller is held by rules: what concerns all callers is not for its key."""
    if caller.rules is not None:
        raise PermissionDenied(
            f"the key of {caller.name} has rules and does not permit {what}", hint="use a key without rules"
        )


def denied(caller: Caller, provider: str, model: str) -> PermissionDenied:
    """The error for what a caller may not use; it names the rule."""
    rules = caller.rules or Rules()
    if not may_see(rules, provider):
        what, rule, param = provider, f"providers {', '.join(rules.providers)}", "provider"
    else:
        what = f"{provider}/{model}" if model else provider
        rule, param = f"models {', '.join(rules.models)}", "model"
    return PermissionDenied(
        f"the key of {caller.name} does not permit {what}",
        hint=f"its rule permits the {rule}",
        param=param,
    )

"""What the rules of a key let a caller use."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from modelway.errors import PermissionDenied
from modelway.routing import Candidate
from modelway.types import Caller, Rules


def may_use(rules: Rules, provider: str, model: str, route: str = "") -> bool:
    """Whether a provider's model may be asked, to which a route of this name leads, if any does."""
    if not may_see(rules, provider):
        return False
    return not rules.models or any(_fits(pattern, provider, model, route) for pattern in rules.models)


def may_go(rules: Rules, candidate: Candidate) -> bool:
    """Whether a candidate may be asked."""
    route = candidate.route.name if candidate.route is not None else ""
    return may_use(rules, candidate.name, candidate.model, route)


def may_see(rules: Rules, provider: str) -> bool:
    """Whether anything of a provider may be used."""
    return not rules.providers or provider.casefold() in {name.casefold() for name in rules.providers}


def permitted(caller: Caller, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of the candidates that the caller may use; PermissionDenied where there are none."""
    rules = caller.rules
    if rules is None or not (rules.providers or rules.models):
        return list(candidates)
    left = [one for one in candidates if may_go(rules, one)]
    if not left:
        raise denied(caller, candidates[0].name, candidates[0].model)
    return left


def only_without_rules(caller: Caller, what: str) -> None:
    """PermissionDenied where the caller is held by rules: what concerns all callers is not for its key."""
    if caller.rules is not None:
        raise PermissionDenied(
            f"the key of {caller.name} has rules and does not permit {what}", hint="use a key without rules"
        )


def check_may_watch(caller: Caller) -> None:
    """PermissionDenied where the caller may not see what everybody asks and spends."""
    only_without_rules(caller, "the figures of all callers")


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


def _fits(pattern: str, provider: str, model: str, route: str) -> bool:
    """Whether a pattern is for what is really asked: of a provider where it has a slash, else of any."""
    folded = pattern.casefold()
    if route and fnmatchcase(route.casefold(), folded):
        return True
    of, slash, name = folded.partition("/")
    if not slash:
        return fnmatchcase(model.casefold(), folded)
    return fnmatchcase(provider.casefold(), of) and fnmatchcase(model.casefold(), name)

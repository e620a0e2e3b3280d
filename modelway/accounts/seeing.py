"""What a caller with rules is told of: providers, models, and what is near a name that nobody bears."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from modelway.accounts.rules import may_go, may_see, may_use, permitted
from modelway.errors import GatewayError, ModelNotFound, ProviderNotFound
from modelway.offering import Offering
from modelway.provider import ProviderInfo
from modelway.routing import Candidate, Router, nearest
from modelway.types import Caller, ChatRequest, Rules

MOST_NAMED = 10


def resolved(router: Router, request: ChatRequest, caller: Caller) -> list[Candidate]:
    """Who may answer a request, in the order in which they are tried; PermissionDenied where nobody may."""
    if caller.rules is None:
        return router.resolve(request)
    try:
        candidates = router.resolve(request)
    except (ProviderNotFound, ModelNotFound) as error:
        # For every request that goes well, a context manager would be dear.
        _hint_at_permitted(router, caller.rules, request.provider, request.model, error)
        raise
    return permitted(caller, candidates)


@contextmanager
def discreet(router: Router, caller: Caller, provider: str, model: str = "") -> Iterator[None]:
    """Let errors about these names tell only such names beside them as the caller may use."""
    try:
        yield
    except (ProviderNotFound, ModelNotFound) as error:
        if caller.rules is not None:
            _hint_at_permitted(router, caller.rules, provider, model, error)
        raise


def _hint_at_permitted(
    router: Router, rules: Rules, provider: str, model: str, error: ProviderNotFound | ModelNotFound
) -> None:
    if isinstance(error, ProviderNotFound):
        seen = [name for name in router.providers if may_see(rules, name)]
        error.hint = nearest(provider, seen) + "GET /v1/providers lists those that the key permits"
    else:
        seen = [name for name in router.model_names() if leads(router, rules, name)]
        error.hint = nearest(model, seen) + "GET /v1/models lists those that the key permits"


def name_others(caller: Caller, candidates: Sequence[Candidate], error: GatewayError) -> None:
    """Let an upstream's error about a model name others that it has, as far as the caller may use them."""
    if not isinstance(error, ModelNotFound) or not error.others:
        return
    asked, rules, seen = candidates[0].model, caller.rules, error.others
    if rules is not None:
        seen = [name for name in seen if any(may_use(rules, one.name, name) for one in candidates)]
    told = nearest(asked, seen) or (f"there are: {', '.join(seen[:MOST_NAMED])}; " if seen else "")
    error.hint = told + error.hint


def leads(router: Router, rules: Rules, name: str) -> bool:
    """Whether a model's name leads to anybody who may be asked."""
    return any(may_go(rules, one) for one in router.resolve(ChatRequest(messages=(), model=name)))


async def visible_infos(
    offering: Offering, caller: Caller, names: Iterable[str] = (), *, refresh: bool = False
) -> list[ProviderInfo]:
    """The providers of these names, or all, as far as the caller may know of them and of their models."""
    infos, rules = await offering.infos(names, refresh=refresh), caller.rules
    if rules is None:
        return infos
    return [_as_permitted(rules, info) for info in infos if may_see(rules, info.name)]


def _as_permitted(rules: Rules, info: ProviderInfo) -> ProviderInfo:
    known = (info.default_model, *info.models)
    default, *models = [model if may_use(rules, info.name, model) else "" for model in known]
    return replace(info, default_model=default, models=tuple(model for model in models if model))

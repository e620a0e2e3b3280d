"""Turns what a caller names into candidates, and decides what a failed attempt permits."""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterable, Mapping

from msgspec import Struct

from modelway.config import RouteSettings, Settings
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotFound,
    UpstreamError,
    UpstreamTimeout,
)
from modelway.provider import Provider
from modelway.types import ChatRequest

FIRST_PAUSE_S = 0.25


class Candidate(Struct, frozen=True):
    """A provider and the model that is asked of it."""

    provider: Provider
    model: str
    failover_on_context: bool = False

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.provider.info.name

    def may_fail_over(self, error: GatewayError) -> bool:
        """Whether the next candidate may answer in place of this one."""
        return error.failover or (self.failover_on_context and isinstance(error, ContextTooLong))


class RetryPolicy(Struct, frozen=True):
    """How often the same candidate is asked again, and after which pause."""

    retries: int = 2
    max_wait_s: float = 10.0

    def pause(self, error: GatewayError, attempt: int, *, stateful: bool) -> float | None:
        """Seconds to wait before attempt number `attempt + 1` (from 0); None: do not try again."""
        # A timeout has used up its share of the caller's patience already.
        unsent = (
            isinstance(error, UpstreamError) and not error.sent and not isinstance(error, UpstreamTimeout)
        )
        allowed = unsent or (error.retryable and not stateful)
        if not allowed or attempt >= self.retries:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.max_wait_s else None
        ceiling = min(FIRST_PAUSE_S * 2.0**attempt, self.max_wait_s)
        # Jitter keeps many callers that failed together from coming back together.
        share: float = random.uniform(0.5, 1.0)  # noqa: S311
        return ceiling * share


class Router:
    """Knows every provider by its name (in any case), the routes, and the models that providers list.

    Candidates are found in this order: the named provider; "Provider/model" or "Provider:model"; a
    route; a model that a provider lists; a provider's name used as model; with nothing named, the
    configured default. What is none of these is an error that names what is near: never a substitute.
    """

    def __init__(self, providers: Iterable[Provider], settings: Settings) -> None:
        self.providers: dict[str, Provider] = {provider.info.name: provider for provider in providers}
        self._by_name = {name.casefold(): provider for name, provider in self.providers.items()}
        self._routes: Mapping[str, RouteSettings] = settings.routes
        self._default = (settings.provider, settings.model)
        # What the settings name is looked up now: a wrong name must not wait for a request.
        self._fallback = [self._configured(name) for name in settings.fallback]
        self.provider(settings.provider)
        for route in settings.routes.values():
            for name in route.candidates:
                self._configured(name)

    def provider(self, name: str) -> Provider:
        """The provider of this name, in any case."""
        found = self._by_name.get(name.casefold())
        if found is None:
            raise unknown_provider(name, self.providers)
        return found

    def resolve(self, request: ChatRequest) -> list[Candidate]:
        """The candidates for a request, in the order in which they are tried; never empty."""
        candidates = self._named(request.provider, request.model)
        known = {candidate.name for candidate in candidates}
        return candidates + [candidate for candidate in self._fallback if candidate.name not in known]

    def choose(self, provider_name: str, model: str) -> tuple[Provider, str]:
        """Who takes a request that is no chat, and how the model is called there, "" where none is named.

        The default provider takes what names no provider and no model that is known: which models it has
        for other things than chats, only its upstream knows.
        """
        if provider_name or not model:
            return self.provider(provider_name or self._default[0]), model
        if model not in self._routes and (named := self._by_name.get(model.casefold())):
            return named, ""
        if found := self._led_to(model):
            return found[0].provider, found[0].model
        return self.provider(self._default[0]), model

    def model_names(self) -> list[str]:
        """Every model name that somebody who is ready answers to without being named, routes first."""
        return self._names(provider for provider in self.providers.values() if provider.info.ready)

    def _names(self, providers: Iterable[Provider]) -> list[str]:
        return list(dict.fromkeys([*self._routes, *(name for one in providers for name in _models(one))]))

    def _named(self, provider_name: str, model: str) -> list[Candidate]:
        if provider_name:
            return [_candidate(self.provider(provider_name), model)]
        if not model:
            name, default_model = self._default
            return [_candidate(self.provider(name), default_model)]
        if found := self._led_to(model):
            return found
        raise ModelNotFound(
            f"no route leads to the model {_quoted(model)}",
            hint=_nearest(model, self._names(self.providers.values()))
            + "name a provider too, or add [routes] to the configuration",
            param="model",
        )

    def _led_to(self, model: str) -> list[Candidate]:
        """The candidates that a model's name leads to by itself."""
        if prefixed := self._prefixed(model):
            return [prefixed]
        if route := self._routes.get(model):
            return [self._route_candidate(name, route) for name in route.candidates]
        if listed := self._listed(model):
            return [listed]
        if provider := self._by_name.get(model.casefold()):
            return [_candidate(provider, "")]
        return []

    def _prefixed(self, model: str) -> Candidate | None:
        for separator in "/:":
            prefix, found, rest = model.partition(separator)
            provider = self._by_name.get(prefix.casefold())
            if found and provider is not None:
                return _candidate(provider, rest)
        return None

    def _route_candidate(self, name: str, route: RouteSettings) -> Candidate:
        candidate = self._configured(name)
        return Candidate(candidate.provider, candidate.model, route.failover_on_context)

    def _configured(self, name: str) -> Candidate:
        """A candidate as the settings name it: "Provider/model" or "Provider"."""
        return self._prefixed(name) or _candidate(self.provider(name), "")

    def _listed(self, model: str) -> Candidate | None:
        offering = [provider for provider in self.providers.values() if model in _models(provider)]
        if not offering:
            return None
        # Several may list the same model: one that can be reached goes before one without a key.
        return Candidate(min(offering, key=lambda provider: not provider.info.ready), model)


def unknown_provider(name: str, known: Iterable[str]) -> ProviderNotFound:
    """The error for a name that no provider bears; it tells the nearest ones."""
    return ProviderNotFound(
        f"no provider is called {_quoted(name)}",
        hint=_nearest(name, known) + "`modelway providers` lists them",
        param="provider",
    )


def _models(provider: Provider) -> tuple[str, ...]:
    """The models that lead to a provider by their names alone: none while it lacks an address."""
    info = provider.info
    if not info.ready and not info.needs_auth:
        return ()
    if not info.default_model or info.default_model in info.models:
        return info.models
    return (info.default_model, *info.models)


def _candidate(provider: Provider, model: str) -> Candidate:
    chosen = model or provider.info.default_model
    if not chosen and provider.info.ready and not provider.info.finds_model:
        raise InvalidRequest(
            f"the provider {provider.info.name} has no default model",
            hint=f"name one in `model`, or set [providers.{provider.info.name}] default_model",
            param="model",
        )
    return Candidate(provider, chosen)


def _nearest(name: str, known: Iterable[str]) -> str:
    folded = {entry.casefold(): entry for entry in known if entry}
    near = difflib.get_close_matches(name.casefold()[:100], folded, n=3, cutoff=0.5)
    return f"nearest: {', '.join(folded[entry] for entry in near)}; " if near else ""


def _quoted(name: str) -> str:
    """A caller's word as it may be repeated in an error: printable and short."""
    shown = name if len(name) <= 80 else name[:80] + "…"
    return '"' + "".join(letter if letter.isprintable() else "?" for letter in shown) + '"'

"""Finds the candidates for what a caller names."""

from __future__ import annotations

import difflib
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence

from modelway.config import RouteSettings, Settings
from modelway.errors import GatewayError, InvalidRequest, ModelNotFound, ProviderNotFound
from modelway.provider import Provider
from modelway.routing.candidates import Candidate, Limits, Route, limits_of
from modelway.types import ChatRequest

_FOUND_S = 1.0
_MOST_FOUND = 1000
_MOST_LETTERS = 200


class BadSetting(Exception):
    """A setting names what does not exist: `key` is the setting, `error` says what it lacks."""

    def __init__(self, key: str, error: GatewayError) -> None:
        super().__init__(f"{key}: {error}")
        self.key = key
        self.error = error


class Router:
    """Knows every provider by its name (in any case), the routes, and the models that providers list.

    Candidates are found in this order: the named provider; "Provider/model" or "Provider:model"; a
    route; a model that a provider lists; a provider's name used as model; with nothing named, the
    configured default. What is none of these is an error that names what is near: never a substitute.
    """

    def __init__(
        self,
        providers: Iterable[Provider],
        settings: Settings,
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.providers: dict[str, Provider] = {provider.info.name: provider for provider in providers}
        self._by_name = {name.casefold(): provider for name, provider in self.providers.items()}
        self._default = (settings.provider, settings.model)
        self._random = rng or random.Random()  # noqa: S311 - nothing is kept secret by it
        self._clock = clock
        self._offerings: dict[str, list[Provider]] = {}
        self._resolved: dict[tuple[str, str], list[Candidate]] = {}
        self._found_until = -math.inf
        # What the settings name is looked up now: a wrong name must not wait for a request.
        self._checked("provider", settings.provider)
        self._fallback = self._all_checked("fallback", settings.fallback)
        self._routes = {name: self._route(name, route) for name, route in settings.routes.items()}

    @property
    def routes(self) -> list[str]:
        """The names of all routes."""
        return list(self._routes)

    def provider(self, name: str) -> Provider:
        """The provider of this name, in any case."""
        found = self._by_name.get(name.casefold())
        if found is None:
            raise unknown_provider(name, self.providers)
        return found

    def resolve(self, request: ChatRequest) -> list[Candidate]:
        """The candidates for a request, in the order in which they are tried; never empty."""
        self._forget_in_time()
        named = request.provider, request.model
        if (candidates := self._resolved.get(named)) is None:
            candidates = self._named(*named, request.conversation_id)
            if self._fallback:
                candidates += self.fallback_for(candidates)
            is_drawn = not request.provider and self.weights(request.model)
            if not is_drawn and len(request.model) <= _MOST_LETTERS and len(self._resolved) < _MOST_FOUND:
                self._resolved[named] = candidates
        return list(candidates)

    def fallback_for(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Who is tried after these: no model twice, and nobody again who keeps conversations himself."""
        keys = {candidate.key for candidate in candidates}
        names = {candidate.name for candidate in candidates if candidate.provider.info.stateful}
        return [one for one in self._fallback if one.key not in keys and one.name not in names]

    def in_order(self, model: str) -> list[Candidate]:
        """The candidates for a model's name, without the fallback, as the settings have them."""
        route = self._routes.get(model) if not self._prefixed(model) else None
        return route.candidates() if route is not None else self._named("", model)

    def weights(self, model: str) -> Sequence[float]:
        """The weights of a route; nothing where the name is none's, or where its order is fixed."""
        route = self._routes.get(model) if not self._prefixed(model) else None
        return route.weights if route is not None else ()

    def choose(self, provider_name: str, model: str) -> Candidate:
        """Who takes a request that is no chat, and how the model is called there, "" where none is named.

        The default provider takes what names no provider and no model that is known: which models it has
        for other things than chats, only its upstream knows.
        """
        if provider_name or not model:
            return Candidate(self.provider(provider_name or self._default[0]), model)
        if model not in self._routes and (named := self._by_name.get(model.casefold())):
            return Candidate(named, "")
        if found := self._led_to(model):
            return found[0]
        return Candidate(self.provider(self._default[0]), model)

    def model_names(self) -> list[str]:
        """Every model name that somebody who is ready answers to without being named, routes first."""
        return self._names(provider for provider in self.providers.values() if provider.info.ready)

    def _names(self, providers: Iterable[Provider]) -> list[str]:
        return list(dict.fromkeys([*self._routes, *(name for one in providers for name in _models(one))]))

    def _named(self, provider_name: str, model: str, conversation_id: str = "") -> list[Candidate]:
        if provider_name:
            return [_candidate(self.provider(provider_name), model)]
        if not model:
            name, default_model = self._default
            return [_candidate(self.provider(name), default_model)]
        if found := self._led_to(model, conversation_id):
            return found
        raise ModelNotFound(
            f"no route leads to the model {_quoted(model)}",
            hint=nearest(model, self._names(self.providers.values()))
            + "name a provider too, or add [routes] to the configuration",
            param="model",
        )

    def _led_to(self, model: str, conversation_id: str = "") -> list[Candidate]:
        """The candidates that a model's name leads to by itself; the same ones for all of a conversation."""
        if prefixed := self._prefixed(model):
            return [prefixed]
        if route := self._routes.get(model):
            drawn_alike = conversation_id and route.weights
            return route.draw(random.Random(conversation_id) if drawn_alike else self._random)  # noqa: S311
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

    def _route(self, name: str, settings: RouteSettings) -> _Way:
        key = f"routes.{name}"
        shadow = self._checked(f"{key}.shadow", settings.shadow) if settings.shadow else None
        if shadow is not None and shadow.provider.info.stateful:
            raise BadSetting(
                f"{key}.shadow",
                InvalidRequest(
                    f"{shadow.name} keeps conversations itself and cannot be a shadow",
                    hint="name another one",
                ),
            )
        route = Route(
            name,
            continues=settings.on_break == "continue",
            retries=settings.retries,
            deadline_s=settings.deadline_s,
            hedge_after_s=settings.hedge_after_s,
            shadow=shadow,
            shadow_share=settings.shadow_share,
        )
        self._all_checked(f"{key}.candidates", settings.candidates)
        limits = [
            limits_of(settings.limits.get(one), settings, deadline_s=settings.deadline_s)
            for one in settings.candidates
        ]
        return _Way(self, route, settings, limits)

    def _checked(self, key: str, name: str) -> Candidate:
        try:
            return self.configured(name)
        except GatewayError as error:
            raise BadSetting(key, error) from error

    def _all_checked(self, key: str, names: Iterable[str]) -> list[Candidate]:
        """The candidates of these names, which may say the same in two ways: a provider and its default."""
        found: dict[tuple[str, str], Candidate] = {}
        for name in names:
            candidate = self._checked(key, name)
            if candidate.key in found:
                twice = "/".join(filter(None, candidate.key))
                raise BadSetting(key, InvalidRequest(f"{twice} is named twice", hint=f"leave out {name}"))
            found[candidate.key] = candidate
        return list(found.values())

    def configured(self, name: str) -> Candidate:
        """A candidate as the settings name it: "Provider/model" or "Provider"."""
        return self._prefixed(name) or _candidate(self.provider(name), "")

    def _listed(self, model: str) -> Candidate | None:
        offering = self._offering(model)
        if not offering:
            return None
        if len(offering) == 1:
            return Candidate(offering[0], model)
        # Several may list the same model: one that can be reached goes before one without a key.
        return Candidate(min(offering, key=lambda provider: not provider.info.ready), model)

    def _offering(self, model: str) -> list[Provider]:
        """Who lists a model."""
        self._forget_in_time()
        if (offering := self._offerings.get(model)) is None:
            offering = [provider for provider in self.providers.values() if model in _models(provider)]
            if offering:
                self._offerings[model] = offering
        return offering

    def _forget_in_time(self) -> None:
        """What was found counts for a second: to describe themselves, providers look for keys and files."""
        now = self._clock()
        if now >= self._found_until:
            self._offerings.clear()
            self._resolved.clear()
            self._found_until = now + _FOUND_S


class _Way:
    """A route, ready to give its candidates: in the order of the settings, or drawn by weight."""

    def __init__(
        self, router: Router, route: Route, settings: RouteSettings, limits: Sequence[Limits | None]
    ) -> None:
        self._router = router
        self._route = route
        self._named = tuple(zip(settings.candidates, limits, strict=True))
        self.weights = settings.weights
        self._failover_on_context = settings.failover_on_context

    def candidates(self) -> list[Candidate]:
        """All candidates, in the order of the settings."""
        return [self._candidate(name, limits) for name, limits in self._named]

    def draw(self, rng: random.Random) -> list[Candidate]:
        """All candidates, each once: the heavier, the earlier (Efraimidis and Spirakis, 2006)."""
        candidates = self.candidates()
        if not self.weights:
            return candidates
        keys = [-math.log(1.0 - rng.random()) / weight for weight in self.weights]
        return [candidates[index] for index in sorted(range(len(keys)), key=keys.__getitem__)]

    def _candidate(self, name: str, limits: Limits | None) -> Candidate:
        found = self._router.configured(name)
        return Candidate(found.provider, found.model, self._failover_on_context, self._route, limits)


def unknown_provider(name: str, known: Iterable[str]) -> ProviderNotFound:
    """The error for a name that no provider bears; it tells the nearest ones."""
    return ProviderNotFound(
        f"no provider is called {_quoted(name)}",
        hint=nearest(name, known) + "`modelway providers` lists them",
        param="provider",
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The beginning of a hint: which of the known names are much like this one; "" where none is."""
    folded = {entry.casefold(): entry for entry in known if entry}
    near = difflib.get_close_matches(name.casefold()[:100], folded, n=3, cutoff=0.5)
    return f"nearest: {', '.join(folded[entry] for entry in near)}; " if near else ""


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


def _quoted(name: str) -> str:
    """A caller's word as it may be repeated in an error: printable and short."""
    shown = name if len(name) <= 80 else name[:80] + "…"
    return '"' + "".join(letter if letter.isprintable() else "?" for letter in shown) + '"'

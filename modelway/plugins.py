"""Providers out of packages that the user has installed: the entry points of the group modelway.providers."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points

from msgspec import Struct, field

from modelway.config import ProviderSettings, settings_of
from modelway.errors import GatewayError, ProviderNotConfigured
from modelway.provider import Provider, ProviderInfo
from modelway.providers._settings import Key, KeyLookup, key_of
from modelway.providers.announced import Announced
from modelway.providers.http import HTTPClient, Secret, events_of, events_of_body, good_response
from modelway.types import Model

__all__ = [
    "GROUP",
    "Key",
    "Plugin",
    "PluginContext",
    "Secret",
    "events_of",
    "events_of_body",
    "good_response",
    "installed",
    "load_plugins",
]

GROUP = "modelway.providers"
MAX_REASON = 300

_log = logging.getLogger("modelway.plugins")


class PluginContext(Struct, frozen=True):
    """What a plug-in gets to make its provider.

    `name` is the entry point's, which the provider must bear. `settings` are those under
    [providers.NAME]. `http` calls upstreams and is shared: the provider does not close it. `key_lookup`
    takes the name of an environment variable and the path of a file, "" for none, and gives the key or "".
    """

    name: str
    settings: ProviderSettings
    http: HTTPClient
    key_lookup: KeyLookup
    keys: list[Key] = field(default_factory=list)

    def key(self, *variables: str, needed: bool = True) -> Key:
        """The credential: the one that the settings name, else that of the first variable that is set."""
        key = key_of(self.name, self.settings, variables, self.key_lookup, needed=needed)
        self.keys.append(key)
        return key


class Plugin:
    """What most plug-ins have in common: the models that they describe, and nothing to close."""

    info: ProviderInfo

    async def models(self) -> list[Model]:
        """Those of the description."""
        names = dict.fromkeys((self.info.default_model, *self.info.models))
        return [Model(id=name) for name in names if name]

    async def aclose(self) -> None:
        """Nothing is held here: the connections belong to the shared HTTP client."""


def installed() -> list[EntryPoint]:
    """The entry points of all installed plug-ins."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def load_plugins(
    entries: Iterable[EntryPoint],
    settings: Mapping[str, ProviderSettings],
    http: HTTPClient,
    *,
    taken: Collection[str],
    key_lookup: KeyLookup,
) -> list[Provider]:
    """The providers that the entry points make; one that fails is listed as not ready, with the reason.

    A name that is `taken` (in any case) stays with whom it belongs to. `key_lookup` takes the name of an
    environment variable and the path of a file, "" for none, and gives the key or "".
    """
    used = {name.casefold() for name in taken}
    providers: list[Provider] = []
    for entry in entries:
        name = entry.name.casefold()
        if name in used:
            _log.warning("the plug-in %s is left out: another provider is called %s", entry.value, entry.name)
            continue
        used.add(name)
        context = PluginContext(entry.name, settings_of(entry.name, settings), http, key_lookup)
        providers.append(_load(entry, context))
    return providers


def _load(entry: EntryPoint, context: PluginContext) -> Provider:
    try:
        provider = entry.load()(context)
        reason = _fault(provider, entry.name)
    # A stranger's code may fail in any way, and the other providers must still answer.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        said = error.explanation if isinstance(error, GatewayError) else str(error)
        reason = f"{type(error).__name__}: {said}"
    if not reason:
        return provider  # type: ignore[no-any-return]
    return _not_ready(entry, _without_key(reason, context))


def _fault(provider: object, name: str) -> str:
    """Why this cannot be the provider, "" where it can."""
    if not isinstance(provider, Provider) or not isinstance(provider.info, ProviderInfo):
        return "what it makes is not a provider"
    if provider.info.name != name:
        return f"its provider is called {provider.info.name!r}"
    return ""


def _without_key(reason: str, context: PluginContext) -> str:
    for key in (context.key(), *context.keys):
        with suppress(GatewayError):
            reason = Secret(key()).out_of_text(reason)
    return " ".join(reason.split())[:MAX_REASON]


def _not_ready(entry: EntryPoint, reason: str) -> Provider:
    missing = f"the plug-in {entry.value} does not work: {reason}"
    _log.warning("%s", missing)
    return Announced(
        ProviderInfo(name=entry.name, label=entry.name, ready=False, missing=missing),
        ProviderNotConfigured,
        "correct or uninstall it",
    )

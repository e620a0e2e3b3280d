"""Providers out of packages that the user has installed: the entry points of the group modelway.providers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from msgspec import Struct

from modelway.config import ProviderSettings, settings_of
from modelway.errors import GatewayError, ProviderNotConfigured
from modelway.provider import Provider, ProviderInfo
from modelway.providers.announced import Announced
from modelway.providers.http import HTTPClient, Secret

GROUP = "modelway.providers"
MAX_REASON = 300

_log = logging.getLogger("modelway.plugins")


class PluginContext(Struct, frozen=True):
    """What a plug-in gets to make its provider.

    `name` is the entry point's, which the provider must bear. `settings` are those under
    [providers.NAME]. `http` calls upstreams and is shared: the provider does not close it. `key()` gives
    the credential that the settings name, "" where there is none.
    """

    name: str
    settings: ProviderSettings
    http: HTTPClient
    key: Callable[[], str]


def installed() -> list[EntryPoint]:
    """The entry points of all installed plug-ins."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def load_plugins(
    entries: Iterable[EntryPoint],
    settings: Mapping[str, ProviderSettings],
    http: HTTPClient,
    *,
    taken: Collection[str],
    key_lookup: Callable[[str, str], str],
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
        providers.append(
            _load(entry, _context(entry.name, settings_of(entry.name, settings), http, key_lookup))
        )
    return providers


def _context(
    name: str, chosen: ProviderSettings, http: HTTPClient, key_lookup: Callable[[str, str], str]
) -> PluginContext:

    def key() -> str:
        return key_lookup(chosen.api_key_env or "", chosen.api_key_file or "")

    return PluginContext(name, chosen, http, key)


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
    try:
        key = context.key()
    except GatewayError:
        key = ""
    return " ".join(Secret(key).out_of_text(reason).split())[:MAX_REASON]


def _not_ready(entry: EntryPoint, reason: str) -> Provider:
    missing = f"the plug-in {entry.value} does not work: {reason}"
    _log.warning("%s", missing)
    return Announced(
        ProviderInfo(name=entry.name, label=entry.name, ready=False, missing=missing),
        ProviderNotConfigured,
        "correct or uninstall it",
    )

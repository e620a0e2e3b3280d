"""Builds a gateway out of settings; the only place that names concrete providers and the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path

from msgspec.structs import replace

from modelway.config import Settings, settings_of
from modelway.conversations import Conversations
from modelway.gateway import Gateway
from modelway.models import resolve
from modelway.plugins import installed, load_plugins
from modelway.prices import Prices
from modelway.provider import Provider, ProviderInfo
from modelway.providers.anthropic import Anthropic
from modelway.providers.any_llm import AnyLLM
from modelway.providers.bedrock import Bedrock
from modelway.providers.copilot import Copilot, SignIns
from modelway.providers.copilot.by_code import CodeSignIn
from modelway.providers.copilot.door import Door
from modelway.providers.copilot.github import GitHubDoor
from modelway.providers.copilot.microsoft import MicrosoftDoor
from modelway.providers.copilot.profiles import PROFILES, transports_of
from modelway.providers.copilot.vault import system_vault
from modelway.providers.gemini import Gemini
from modelway.providers.http import HTTPClient
from modelway.providers.local import Local
from modelway.providers.lockchat import Lockchat
from modelway.providers.ollama import Ollama
from modelway.providers.openai_compatible import OpenAICompatible, build_provider, load_presets
from modelway.providers.vertex import Vertex
from modelway.routing import BadSetting, Breakers, RetryPolicy, Router
from modelway.settings import SettingsError, credential

STORE_FILE = "conversations.sqlite3"
SIGN_IN_FOLDER = "credentials"
COPILOT_FOLDER = "copilot"


def build(
    settings: Settings,
    *,
    data_dir: Path,
    on_progress: Callable[[str], None] | None = None,
    origins: Mapping[str, str] = {},
) -> Gateway:
    """A gateway with every provider; nothing is connected or started yet.

    `on_progress` is told what the embedded model is doing while it starts. `origins` tells, for the message
    of a SettingsError, where a setting came from.
    """
    http = HTTPClient(settings.upstream)
    providers = build_providers(settings, http, data_dir=data_dir, on_progress=on_progress)
    path = Path(settings.conversations.path) if settings.conversations.path else data_dir / STORE_FILE
    router = build_router(providers, settings, origins)
    upstream = settings.upstream
    return Gateway(
        router,
        Conversations.open(path, settings.conversations),
        RetryPolicy(upstream.retries, upstream.max_retry_wait_s, upstream.deadline_s),
        resources=(http,),
        breakers=Breakers(upstream.breaker_failures, upstream.breaker_cool_down_s),
        prices=build_prices(settings),
    )


def build_prices(settings: Settings) -> Prices:
    """What models cost, also those of upstreams that the user has given names of their own."""
    addresses = {name: own.base_url for name, own in settings.providers.items() if own.base_url}
    return Prices(settings.prices, addresses)


def build_router(
    providers: Iterable[Provider], settings: Settings, origins: Mapping[str, str] = {}
) -> Router:
    """The routes and the names behind them; SettingsError, with the place, where one leads nowhere."""
    try:
        return Router(providers, settings)
    except BadSetting as bad:
        place = origins.get(bad.key, "settings")
        raise SettingsError(f"{place}: {bad.key}: {bad.error.message}", bad.error.hint) from bad


def build_providers(
    settings: Settings,
    http: HTTPClient,
    *,
    data_dir: Path,
    on_progress: Callable[[str], None] | None = None,
) -> list[Provider]:
    """Every provider: the embedded model, the known names, plug-ins, the presets, and the user's own."""

    def child(base_url: str, key: str) -> Provider:
        info = ProviderInfo(name="Local", needs_auth=True)
        return OpenAICompatible(info, base_url, http=http, key=lambda: key)

    local = Local(
        settings.local,
        lambda: resolve(settings.local.model, data_dir),
        child,
        on_progress=on_progress,
    )
    chosen = settings_of("Lockchat", settings.providers)
    lockchat = Lockchat(
        chosen, http=http, key=lambda: credential(chosen.api_key_env or "", chosen.api_key_file or "")
    )
    providers: list[Provider] = [
        local,
        build_copilot(settings, data_dir),
        lockchat,
        *build_native(settings, http),
    ]
    providers += build_any_llm(settings, taken=[provider.info.name for provider in providers])
    presets = load_presets()
    names = [provider.info.name for provider in providers]
    providers += load_plugins(
        installed(), settings.providers, http, taken=[*names, *presets], key_lookup=credential
    )
    taken = {provider.info.name.casefold() for provider in providers}
    # Names are the same in any case: [providers.groq] changes the preset Groq.
    known = {name.casefold() for name in presets}
    others = [*presets, *(name for name in settings.providers if name.casefold() not in known)]
    providers.extend(
        build_provider(name, presets.get(name), settings_of(name, settings.providers), http, credential)
        for name in others
        if name.casefold() not in taken
    )
    return providers


def build_native(settings: Settings, http: HTTPClient) -> list[Provider]:
    """The upstreams that are spoken to in formats of their own."""
    own = settings.providers
    return [
        Anthropic(settings_of("Anthropic", own), http=http, key_lookup=credential),
        Bedrock(settings_of("Bedrock", own), http=http, key_lookup=credential),
        Gemini(settings_of("Gemini", own), http=http, key_lookup=credential),
        Ollama(settings_of("Ollama", own), http=http, key_lookup=credential),
        Vertex(settings_of("Vertex", own), settings.vertex, http=http, key_lookup=credential),
    ]


def build_any_llm(settings: Settings, taken: Collection[str]) -> list[Provider]:
    """The upstreams that the user's settings leave to any-llm, presets among them."""
    known = {name.casefold() for name in taken}
    return [
        AnyLLM(
            name,
            chosen,
            key_lookup=credential,
            timeout_s=settings.upstream.first_byte_timeout_s,
        )
        for name, chosen in settings.providers.items()
        if chosen.any_llm and name.casefold() not in known
    ]


def build_copilot(settings: Settings, data_dir: Path) -> Copilot:
    """Copilot, with connections of its own, which may be silent for as long as its settings say."""
    copilot, sign_ins = settings.copilot, sign_ins_of(data_dir)
    silence = copilot.idle_timeout_s
    http = HTTPClient(replace(settings.upstream, first_byte_timeout_s=silence, idle_timeout_s=silence))
    doors: list[Door] = []
    for transport in transports_of(copilot):
        if transport == "github":
            doors.append(build_github(settings, data_dir, sign_ins))
        else:
            doors.append(MicrosoftDoor(PROFILES[transport], copilot, http=http, sign_ins=sign_ins))

    async def who(token: str) -> str:
        async with aclosing(build_github(settings, data_dir, sign_ins)) as door:
            return await door.who(token)

    return Copilot(copilot, doors, http=http, by_code=CodeSignIn(copilot, sign_ins, http, who))


def build_github(settings: Settings, data_dir: Path, sign_ins: SignIns) -> GitHubDoor:
    """GitHub's door to Copilot."""
    home = data_dir / COPILOT_FOLDER
    return GitHubDoor(settings.copilot, sign_ins=sign_ins, home=home, variable=variable)


def variable(name: str) -> str:
    """A variable of the environment, "" where it is not set."""
    return credential(name, "")


def sign_ins_of(data_dir: Path) -> SignIns:
    """Where sign-ins are kept."""
    return SignIns(data_dir / SIGN_IN_FOLDER, system_vault)

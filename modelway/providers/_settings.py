"""What the user's settings say of a provider: its address, its key, its headers, its description."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from modelway.config import ProviderSettings
from modelway.errors import GatewayError, ProviderNotConfigured, SignInRequired
from modelway.provider import ProviderInfo
from modelway.providers.http import parse_url

KeyLookup = Callable[[str, str], str]


class Key:
    """A provider's key. `read` gives it, "" where there is none.

    `needed`: nothing works without it. `hint` tells a person where it is set, `origin` a program where it
    comes from, when it is there.
    """

    def __init__(
        self,
        provider: str,
        read: Callable[[], str],
        *,
        needed: bool = True,
        hint: str = "",
        origin: str = "environment",
    ) -> None:
        self.hint = hint or f"set [providers.{provider}] api_key_env or api_key_file"
        self._provider = provider
        self._read = read
        self._needed = needed
        self.origin = origin
        self._was_there = False
        self._was_looked_for = False
        self._told: tuple[ProviderInfo, ProviderInfo] | None = None

    def __call__(self) -> str:
        """The key, "" where there is none."""
        key = self._read()
        self._was_there = bool(key)
        self._was_looked_for = True
        return key

    def required(self) -> str:
        """The key, "" where none is needed; SignInRequired where a needed one is not there."""
        if (key := self()) or not self._needed:
            return key
        raise SignInRequired(f"{self._provider} has no API key here", hint=self.hint)

    def source(self) -> str:
        """Where the key that is there comes from; "" where there is none."""
        return self.origin if self._is_there()[0] else ""

    def told_in(self, info: ProviderInfo) -> ProviderInfo:
        """The description, with what is known of the key."""
        is_there, problem = self._is_there()
        if is_there:
            if self._told is None or self._told[0] is not info:
                self._told = (info, replace(info, credential_source=self.origin))
            return self._told[1]
        return replace(info, ready=False, missing=problem, untried=False) if problem and info.ready else info

    def _is_there(self) -> tuple[bool, str]:
        """Whether it is there, as far as it was looked for last, and what is wrong with that."""
        # Descriptions are asked for at every request, and a file may be far away. Only a key that is needed
        # and not there is looked for each time: it may have come.
        if self._was_there or (self._was_looked_for and not self._needed):
            return self._was_there, ""
        try:
            is_there = bool(self())
        except GatewayError as error:
            return False, error.explanation
        return is_there, f"no API key: {self.hint}" if self._needed and not is_there else ""


def key_of(
    name: str,
    settings: ProviderSettings,
    variables: tuple[str, ...],
    lookup: KeyLookup,
    *,
    needed: bool = True,
) -> Key:
    """The key of a provider: from the file that the user named, or the first variable that is set.

    `variables` are those of the vendor, which the user's own replaces. `lookup` takes the name of a
    variable and the path of a file, "" for none, and gives the key or "".
    """
    own, file = settings.api_key_env, settings.api_key_file or ""
    chosen = tuple(filter(None, variables if own is None else (own,)))

    def read() -> str:
        if file:
            return lookup("", file)
        return next(filter(None, (lookup(variable, "") for variable in chosen)), "")

    hint = ""
    if file:
        hint = f"put the key into the file named by [providers.{name}] api_key_file"
    elif chosen:
        hint = f"set the environment variable {' or '.join(chosen)}, or [providers.{name}] api_key_file"
    return Key(name, read, needed=needed, hint=hint, origin="file" if file else "environment")


def as_set(info: ProviderInfo, settings: ProviderSettings) -> ProviderInfo:
    """The description, with what the user has set in place of the provider's own."""
    fields = ("label", "default_model", "models", "supports")
    own = {field: value for field in fields if (value := getattr(settings, field)) not in (None, "")}
    return replace(info, **own)


def address_of(name: str, settings: ProviderSettings, default: str) -> str:
    """The base URL without a slash at its end; ProviderNotConfigured where it can be none."""
    base_url = (settings.base_url or default).rstrip("/")
    try:
        parse_url(base_url)
    except ProviderNotConfigured as error:
        raise ProviderNotConfigured(f"[providers.{name}] base_url: {error.explanation}") from error
    if "?" in base_url or "#" in base_url:
        raise ProviderNotConfigured(f"[providers.{name}] base_url must not have a query or a fragment")
    return base_url


def headers_of(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers of each call, the user's own among them."""
    own = {name.lower(): value for name, value in (headers or {}).items()}
    return {"content-type": "application/json", **own}

"""What the user's settings say of a provider that has code of its own: its address and its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelway.config import ProviderSettings
from modelway.errors import GatewayError, ProviderNotConfigured, SignInRequired
from modelway.providers.http import parse_url, redact

KeyLookup = Callable[[str, str], str]


class Key:
    """Where a provider's key comes from: the file that the user named, or the first variable that is set.

    `lookup` takes the name of a variable and the path of a file, "" for none, and gives the key or "".
    """

    def __init__(self, provider: str, variables: tuple[str, ...], file: str, lookup: KeyLookup) -> None:
        self.provider = provider
        self.variables = variables
        self.file = file
        self._lookup = lookup
        self._was_there = False

    def __call__(self) -> str:
        """The key, "" where there is none."""
        if self.file:
            key = self._lookup("", self.file)
        else:
            key = next(filter(None, (self._lookup(variable, "") for variable in self.variables)), "")
        self._was_there = bool(key)
        return key

    def required(self) -> str:
        """The key; SignInRequired where there is none."""
        if key := self():
            return key
        raise SignInRequired(f"{self.provider} has no API key here", hint=self.hint)

    @property
    def hint(self) -> str:
        """Where a person sets it."""
        if self.file:
            return f"put the key into the file named by [providers.{self.provider}] api_key_file"
        named = " or ".join(self.variables)
        start = f"set the environment variable {named}, or " if named else "set "
        return f"{start}[providers.{self.provider}] api_key_file"

    def missing(self) -> str:
        """What is wrong with it; "" where it is there, as far as it was looked for last."""
        # Descriptions are asked for at every request, and a file may be far away.
        if self._was_there:
            return ""
        try:
            return "" if self() else f"no API key: {self.hint}"
        except GatewayError as error:
            return error.explanation

    def source(self) -> str:
        """Where the key that is there comes from; "" where there is none."""
        if self.missing():
            return ""
        return "file" if self.file else "environment"


def key_of(name: str, settings: ProviderSettings, variables: tuple[str, ...], lookup: KeyLookup) -> Key:
    """The key of a provider: `variables` are those of the vendor, which the user's own replaces."""
    own = settings.api_key_env
    chosen = variables if own is None else tuple(filter(None, (own,)))
    return Key(name, chosen, settings.api_key_file or "", lookup)


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


@contextmanager
def kept_out_of_errors(secret: str) -> Iterator[None]:
    """Take a secret that an upstream repeats out of an error that passes."""
    try:
        yield
    except GatewayError as error:
        if secret and secret in error.message:
            error.message = redact(error.message, secret)
            error.args = (error.message,)
        raise


def headers_of(settings: ProviderSettings) -> dict[str, str]:
    """The headers of each call, the user's own among them."""
    own = {name.lower(): value for name, value in (settings.headers or {}).items()}
    return {"content-type": "application/json", **own}

"""Tells who is asking: an API key names a caller."""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from modelway.errors import AuthenticationError
from modelway.keys import ApiKey, hash_key
from modelway.types import Caller, Rules

LOCAL_CALLER = Caller("local")
_NO_RULES = Rules()
_HINT = 'send "Authorization: Bearer KEY" with a key of `modelway keys create` or [auth] api_keys'

__all__ = ["LOCAL_CALLER", "Auth", "Found", "hash_key"]


class _Known(Struct, frozen=True):
    """A key by its hash: whose it is, and until when it counts; `why` tells what ended it."""

    digest: str
    caller: Caller
    until: float = math.inf
    why: str = ""


_LOCAL = _Known("", LOCAL_CALLER)


class Found(Struct, frozen=True):
    """Whose a key was found to be, among which keys: a known one need not be hashed for each request.

    It keeps these keys in memory, so it is for a connection, which asks again or ends.
    """

    among: Mapping[str, _Known]
    known: _Known


class Auth:
    """Knows the API keys by their hashes. Without any, everybody is the caller "local".

    `api_keys` are those of the configuration; `learn` adds those of the store, the revoked ones too: who has
    taken away the last key has not opened the door. `needs_key`: nobody is let in without one, even where
    there is none.
    """

    def __init__(
        self,
        api_keys: Mapping[str, str],
        *,
        needs_key: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        configured = (_Known(digest.lower(), Caller(name)) for name, digest in api_keys.items())
        self._configured = {known.digest: known for known in configured}
        self._known = self._configured
        self._needs_key = needs_key
        self._clock = clock

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return not (self._known or self._needs_key)

    @property
    def callers(self) -> list[Caller]:
        """Everybody who has a key that may count."""
        return [known.caller for known in self._known.values() if known.until]

    def learn(self, keys: Iterable[ApiKey]) -> None:
        """Take the keys of the store in the place of those that came from there before."""
        self._known = {key.digest: _known(key) for key in keys} | self._configured

    def identify(self, key: str) -> Caller:
        """The caller with this key; AuthenticationError if there is none."""
        return self.caller(self.find(key))

    def recall(self, found: Found) -> Caller | None:
        """The caller with a key that was found before; None where keys have changed since: find it again."""
        return self.caller(found) if found.among is self._known else None

    def caller(self, found: Found) -> Caller:
        """The caller with a key that has just been found; AuthenticationError where it has ended."""
        if self._clock() >= found.known.until:
            raise AuthenticationError(f"the API key has {found.known.why}", hint="ask for a new one")
        return found.known.caller

    def find(self, key: str) -> Found:
        """Whose key this is; AuthenticationError where it is nobody's. It may have ended."""
        if not self._known and not self._needs_key:
            return Found(self._known, _LOCAL)
        digest = hash_key(key)
        found = self._known.get(digest)
        # How long the search for a hash takes says nothing about the key; the comparison must not either.
        if found is None or not hmac.compare_digest(found.digest, digest):
            what = "the API key is not known here" if key else "the API key is missing"
            raise AuthenticationError(what, hint=_HINT)
        return Found(self._known, found)


def _known(key: ApiKey) -> _Known:
    # A caller without rules is asked no question on the way of a request.
    caller = Caller(key.name, None if key.rules == _NO_RULES else key.rules)
    if key.revoked_at is not None:
        return _Known(key.digest, caller, 0.0, "been revoked")
    return _Known(key.digest, caller, math.inf if key.expires_at is None else key.expires_at, "expired")

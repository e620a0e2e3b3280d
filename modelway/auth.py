"""Tells who is asking: an API key names a caller."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from modelway.errors import AuthenticationError
from modelway.types import Caller

LOCAL_CALLER = Caller("local")


def hash_key(key: str) -> str:
    """The SHA-256 of an API key, as the configuration holds it."""
    return hashlib.sha256(key.encode()).hexdigest()


class Auth:
    """Knows the API keys by their hashes. Without any, everybody is the caller "local"."""

    def __init__(self, api_keys: Mapping[str, str]) -> None:
        self._callers = [(digest.lower(), Caller(name)) for name, digest in api_keys.items()]

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return not self._callers

    def identify(self, key: str) -> Caller:
        """The caller with this key; AuthenticationError if there is none."""
        if not self._callers:
            return LOCAL_CALLER
        digest = hash_key(key)
        found = None
        # Every entry is compared, so that the time taken says nothing about which one is near.
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise AuthenticationError(
                "the API key is missing" if not key else "the API key is not known here",
                hint='send "Authorization: Bearer KEY" with a key from [auth] api_keys',
            )
        return found

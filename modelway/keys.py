"""API keys: what is kept of one, and how one is made."""

from __future__ import annotations

import hashlib
import re
import secrets

from msgspec import Struct

from modelway.errors import InvalidRequest
from modelway.types import Rules

PREFIX = "mw-"
_HINT_LENGTH = len(PREFIX) + 5
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)


class ApiKey(Struct, frozen=True, kw_only=True):
    """What is known of a caller's key: never the key itself, only its SHA-256 and its beginning, `hint`.

    Times are seconds since 1970; None: it does not expire, it was not revoked.
    """

    name: str
    digest: str
    hint: str
    rules: Rules = Rules()
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None

    def counts(self, now: float) -> bool:
        """Whether it opens anything now."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def make_key() -> str:
    """A new key that nobody can guess: 192 bits."""
    return PREFIX + secrets.token_urlsafe(24)


def hash_key(key: str) -> str:
    """The SHA-256 of an API key, as it is kept."""
    return hashlib.sha256(key.encode()).hexdigest()


def hint_of(key: str) -> str:
    """As much of a key as may be shown, so that people tell keys apart."""
    return key[:_HINT_LENGTH] + "…"


def check_name(name: str) -> None:
    """Raises InvalidRequest where this cannot name a caller."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "the name of a key must be 1 to 64 of the characters A-Z, a-z, 0-9, '.', '_', '@' and '-'",
            param="name",
        )

"""Lets a browser in with an API key, where the server wants one."""

from __future__ import annotations

import hashlib
import secrets
import time

import msgspec
from msgspec import Struct

from modelway.server.exchange import Exchange

COOKIE = "modelway"
LASTS_S = 12 * 3600
MOST = 1000


class Badge(Struct, frozen=True):
    """What a cookie stands for: the key that was shown, and until when."""

    key: str
    until: float


class Badges:
    """Cookies that stand for keys until the server ends; what a browser keeps is not the key."""

    def __init__(self) -> None:
        self._badges: dict[str, Badge] = {}

    def issue(self, key: str) -> str:
        """A new token for a key that has been checked."""
        token = secrets.token_urlsafe(32)
        self._drop_old()
        self._badges[_digest(token)] = Badge(key, time.time() + LASTS_S)
        return token

    def key(self, exchange: Exchange) -> str:
        """The key behind a request's cookie, "" where there is none."""
        badge = self._badges.get(_digest(_token(exchange)))
        return badge.key if badge is not None and badge.until > time.time() else ""

    def revoke(self, exchange: Exchange) -> None:
        """Let the request's cookie count no more."""
        self._badges.pop(_digest(_token(exchange)), None)

    def _drop_old(self) -> None:
        now = time.time()
        self._badges = {digest: badge for digest, badge in self._badges.items() if badge.until > now}
        while len(self._badges) >= MOST:
            del self._badges[next(iter(self._badges))]


class Shown(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the login page sends."""

    key: str


def cookie(token: str, *, secure: bool) -> bytes:
    """The header that gives a browser its token; "" takes it away."""
    lasts = LASTS_S if token else 0
    ending = "; Secure" if secure else ""
    return f"{COOKIE}={token}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict{ending}".encode()


def read_shown(body: bytes) -> str:
    """The key in what the login page sent, "" where it is nothing of the kind."""
    try:
        return msgspec.json.decode(body, type=Shown).key
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _token(exchange: Exchange) -> str:
    pairs = (part.strip().partition("=") for part in exchange.header(b"cookie").split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), "")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()

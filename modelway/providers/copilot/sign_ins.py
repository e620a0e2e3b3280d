"""Keeps sign-ins: one file each, which only the user can read.

A file holds the refresh token. Access tokens are never written.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from modelway.errors import ProviderNotConfigured
from modelway.providers.copilot.profiles import Authority, Transport


class SignIn(Struct, frozen=True, kw_only=True):
    """Who has signed in. `refresh_token` is "" where the sign-in has ended, and `ended` then says why.

    `account` is what a conversation is bound to, `username` is for people. `at` is in seconds since 1970.
    """

    transport: Transport
    authority: Authority
    account: str
    username: str = ""
    refresh_token: str = ""
    at: float = 0.0
    ended: str = ""

    def __repr__(self) -> str:
        return f"SignIn({self.transport}, {self.username})"


class SignIns:
    """The sign-ins in one directory, as other processes leave them there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[Transport, tuple[tuple[int, int, int], SignIn]] = {}

    def load(self, transport: Transport) -> SignIn | None:
        """The sign-in of a transport, or None; ProviderNotConfigured where others could read it."""
        path = self._path(transport)
        try:
            state = path.stat()
            version = (state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
            known = self._known.get(transport)
            if known is None or known[0] != version:
                known = self._known[transport] = (version, _read(path))
            return known[1]
        except FileNotFoundError:
            self._known.pop(transport, None)
            return None
        except OSError as error:
            raise ProviderNotConfigured(f"the sign-in {path} cannot be read: {error.strerror}") from error

    def save(self, sign_in: SignIn) -> None:
        """Keep a sign-in in place of the one before it; a crash leaves the one or the other, whole."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_if_open_to_others(self._directory, self._directory.stat().st_mode, "700")
        number, name = tempfile.mkstemp(dir=self._directory, prefix=".copilot-")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(msgspec.json.encode(sign_in))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path(sign_in.transport))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def remove(self, transport: Transport) -> bool:
        """Forget a sign-in; tells whether there was one."""
        try:
            self._path(transport).unlink()
        except FileNotFoundError:
            return False
        return True

    def _path(self, transport: Transport) -> Path:
        return self._directory / f"copilot-{transport}.json"


def _read(path: Path) -> SignIn:
    with path.open("rb") as file:
        _refuse_if_open_to_others(path, os.fstat(file.fileno()).st_mode, "600")
        content = file.read()
    try:
        return msgspec.json.decode(content, type=SignIn)
    except msgspec.DecodeError:
        # The reason would quote the file.
        raise ProviderNotConfigured(
            f"the sign-in {path} is damaged", hint="run `modelway login copilot` again"
        ) from None


def _refuse_if_open_to_others(path: Path, mode: int, fit: str) -> None:
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise ProviderNotConfigured(f"others may read {path}", hint=f"run `chmod {fit} {path}`")

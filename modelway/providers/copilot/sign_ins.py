"""Keeps sign-ins: one file each, which only the user can read.

The secret, a refresh token or GitHub's token, is in the system's keyring where there is one, else in the
file. Microsoft's access tokens are never written.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.errors import ProviderNotConfigured
from modelway.providers.copilot.profiles import Authority, Transport
from modelway.providers.copilot.refusals import sign_in_required
from modelway.providers.copilot.vault import Vault, VaultError

Kept = Literal["file", "keyring", "copilot-cli"]


class SignIn(Struct, frozen=True, kw_only=True):
    """Who has signed in. `refresh_token` is "" where the sign-in has ended, and `ended` then says why.

    `account` is what a conversation is bound to, `username` is for people. `at` is in seconds since 1970.
    `kept` tells where the secret is; in a keyring, `refresh_token` is "" and `renewed` counts its changes.
    `tried`: GitHub has taken the token.
    """

    transport: Transport
    authority: Authority
    account: str
    username: str = ""
    refresh_token: str = ""
    at: float = 0.0
    kept: Kept = "file"
    renewed: int = 0
    tried: bool = False
    ended: str = ""

    def __repr__(self) -> str:
        return f"SignIn({self.transport}, {self.username})"


class SignIns:
    """The sign-ins in one directory, as other processes leave them there. `open_vault` may find none."""

    def __init__(self, directory: Path, open_vault: Callable[[], Vault | None] = lambda: None) -> None:
        self._directory = directory
        self._open_vault = open_vault
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

    def secret_of(self, sign_in: SignIn) -> str:
        """The secret of a sign-in; SignInRequired where the keyring does not give it. It may block."""
        if sign_in.kept != "keyring":
            return sign_in.refresh_token
        try:
            secret = self._vault.get(self._name(sign_in.transport)) if self._vault else ""
        except VaultError as error:
            raise sign_in_required(f"the system's keyring does not open ({error})") from error
        if not secret:
            raise sign_in_required("the sign-in is no longer in the system's keyring")
        return secret

    def save(self, sign_in: SignIn) -> SignIn:
        """Keep a sign-in in place of the one before it; a crash leaves the one or the other, whole.

        It may block. What is given back says where the secret is now.
        """
        if sign_in.kept != "copilot-cli":
            sign_in = self._put_away(sign_in)
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
        return sign_in

    def remove(self, transport: Transport) -> bool:
        """Forget a sign-in; tells whether there was one. It may block."""
        self._forget(transport)
        try:
            self._path(transport).unlink()
        except FileNotFoundError:
            return False
        return True

    def _put_away(self, sign_in: SignIn) -> SignIn:
        """The sign-in with its secret in the vault, if that takes it."""
        if self._vault is not None and sign_in.refresh_token:
            with suppress(VaultError):
                self._vault.put(self._name(sign_in.transport), sign_in.refresh_token)
                return replace(sign_in, refresh_token="", kept="keyring")
        self._forget(sign_in.transport)
        return replace(sign_in, kept="file")

    def _forget(self, transport: Transport) -> None:
        with suppress(VaultError):
            if self._vault is not None:
                self._vault.remove(self._name(transport))

    @cached_property
    def _vault(self) -> Vault | None:
        return self._open_vault()

    def _name(self, transport: Transport) -> str:
        # The keyring is one for all data directories.
        where = sha256(str(self._directory.resolve()).encode()).hexdigest()[:16]
        return f"copilot-{transport}-{where}"

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

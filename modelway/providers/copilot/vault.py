"""The keyring of the operating system, where a real one answers."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Protocol

NAME = "modelway"
# What Windows takes, in bytes of UTF-16.
WINDOWS_LIMIT = 2500


class VaultError(Exception):
    """The vault does not give or take the secret: it is locked, or the secret is too long."""


class Vault(Protocol):
    """Where secrets are kept by name. Everything may block, and may raise VaultError."""

    def get(self, name: str) -> str:
        """The secret, "" where there is none."""
        ...

    def put(self, name: str, secret: str) -> None:
        """Keep a secret in place of the one before it."""
        ...

    def remove(self, name: str) -> None:
        """Forget a secret, if there is one."""
        ...


def system_vault() -> Vault | None:
    """The system's keyring; None where it has none, or the `keyring` package is not installed."""
    if find_spec("keyring") is None:
        return None
    import keyring
    from keyring.backends import chainer, fail, null

    found = keyring.get_keyring()
    is_empty = isinstance(found, chainer.ChainerBackend) and not found.backends
    return None if is_empty or isinstance(found, fail.Keyring | null.Keyring) else _System()


class _System:
    def get(self, name: str) -> str:
        import keyring

        try:
            return keyring.get_password(NAME, name) or ""
        except keyring.errors.KeyringError as error:
            raise VaultError(type(error).__name__) from error

    def put(self, name: str, secret: str) -> None:
        import keyring

        if os.name == "nt" and len(secret.encode("utf-16-le")) > WINDOWS_LIMIT:
            raise VaultError("the secret is too long")
        try:
            keyring.set_password(NAME, name, secret)
        except keyring.errors.KeyringError as error:
            raise VaultError(type(error).__name__) from error

    def remove(self, name: str) -> None:
        import keyring

        try:
            keyring.delete_password(NAME, name)
        except keyring.errors.PasswordDeleteError:
            return
        except keyring.errors.KeyringError as error:
            raise VaultError(type(error).__name__) from error

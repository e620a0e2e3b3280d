"""How a command ends: one line on stderr, and an exit code for scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum
from types import TracebackType

from modelway.errors import (
    AuthenticationError,
    ConversationBusy,
    GatewayError,
    InvalidRequest,
    PermissionDenied,
    ProviderNotConfigured,
    StoreUnavailable,
    UpstreamError,
    UpstreamRefusedCredential,
)


class ExitCode(IntEnum):
    """What a script can tell apart."""

    OK = 0
    ERROR = 1
    USAGE = 2
    CONFIG = 3
    AUTH = 4
    UPSTREAM = 5
    INTERRUPTED = 130


# The first class that fits decides.
_CODES: tuple[tuple[type[GatewayError], ExitCode], ...] = (
    (AuthenticationError, ExitCode.AUTH),
    (PermissionDenied, ExitCode.AUTH),
    (UpstreamRefusedCredential, ExitCode.AUTH),
    (UpstreamError, ExitCode.UPSTREAM),
    (InvalidRequest, ExitCode.USAGE),
    (ConversationBusy, ExitCode.CONFIG),
    (ProviderNotConfigured, ExitCode.CONFIG),
    (StoreUnavailable, ExitCode.CONFIG),
)


class CommandError(Exception):
    """A command cannot go on; `message` and `hint` are for the person at the terminal."""

    def __init__(self, message: str, *, hint: str = "", code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


def known_errors() -> tuple[type[Exception], ...]:
    """What a command may raise: its message is meant for people."""
    from modelway.settings import SettingsError

    return (CommandError, GatewayError, SettingsError, OSError)


def exit_code(error: Exception) -> ExitCode:
    """The code for an error of `known_errors`."""
    from modelway.settings import SettingsError

    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, SettingsError):
        return ExitCode.USAGE if error.from_flag else ExitCode.CONFIG
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.ERROR)


def explain(error: Exception) -> str:
    """One or two lines: what happened, and what to do about it."""
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror or error}"
    message, hint = getattr(error, "message", str(error)), getattr(error, "hint", "")
    if type(error) is AuthenticationError:
        # Only a server asks the command line for a key; inside this process nobody does.
        hint = "set MODELWAY_API_KEY to a key that the server knows"
    return f"{message}\n  {hint}" if hint else str(message)


def complain(text: str) -> None:
    """Say it on stderr."""
    from modelway.cli.output import warn

    warn(f"modelway: {text}")


def hide_tracebacks() -> None:
    """Tell of a bug in one line; MODELWAY_DEBUG=1 keeps the traceback."""
    shown: Callable[[type[BaseException], BaseException, TracebackType | None], object] = sys.__excepthook__

    def hook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        from modelway.settings import debugging

        if debugging():
            shown(kind, value, trace)
        else:
            complain(f"internal error: {kind.__name__}: {value}\n  MODELWAY_DEBUG=1 shows where")

    sys.excepthook = hook

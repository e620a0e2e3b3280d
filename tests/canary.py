"""One word in the tests' fake keys and tokens, so that it can be looked for where it must not be.

It may be in the header that carries a credential, and where sign-ins are kept; in no log record, error, URL,
repr or database.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

CANARY = "canary5d41402abc"


def key(name: str = "sk") -> str:
    """A fake key or token."""
    return f"{name}-{CANARY}"


class Listener(logging.Handler):
    """Notes which log records tell a secret, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of any logger."""
        text = self.format(record)
        if CANARY in text:
            self.told.append(text)


def files_that_tell(folder: Path) -> Iterator[Path]:
    """The databases below a folder, and their logs, that hold a secret."""
    for path in folder.rglob("*.sqlite3*"):
        if path.is_file() and CANARY.encode() in path.read_bytes():
            yield path


def lines_that_tell(texts: Iterable[str]) -> list[str]:
    """Those of the texts that hold a secret."""
    return [text for text in texts if CANARY in text]

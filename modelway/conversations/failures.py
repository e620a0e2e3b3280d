"""What the database's failures look like to a caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from modelway.errors import StoreUnavailable


@contextmanager
def unavailable(attempt: str) -> Iterator[None]:
    """Turn what the driver raises into StoreUnavailable."""
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        raise unavailable_error(attempt, exc) from exc


def unavailable_error(attempt: str, cause: Exception) -> StoreUnavailable:
    """The error for a database that could not be "opened", "read" or "written"."""
    reason = cause.strerror if isinstance(cause, OSError) else str(cause)
    return StoreUnavailable(
        f"the conversation store could not be {attempt}: {reason}",
        hint="check the disk space and the permissions of its directory",
        retry_after=1,
    )

"""Who holds conversations open, and whether they still live.

Every holder keeps a lock on a file of its own. The operating system gives the lock back however the
process ends, so a lock that can be taken is a dead holder's, known at once and not only when its leases
run out.
"""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex

from filelock import BaseFileLock, FileLock, Timeout

# Another process may hold a new file's lock for the moment in which it looks whether it is a dead one's.
_PATIENCE_S = 5.0


class Leases:
    """One holder's lock, and the view on those of the others."""

    def __init__(self, store: Path) -> None:
        self._directory = store.parent / "leases"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._prefix = f"{store.name}."
        self.owner = token_hex(8)
        self._lock = FileLock(self._file(self.owner), thread_local=False)
        self._lock.acquire(timeout=_PATIENCE_S)

    def is_dead(self, owner: str) -> bool:
        """Whether this holder has certainly ended. Without a lock file one cannot know."""
        lock = None if owner == self.owner else _take(self._file(owner))
        if lock is not None:
            lock.release()
        return lock is not None

    def lives(self, owner: str) -> bool:
        """Whether this holder's lock file is there and held."""
        return owner == self.owner or (self._file(owner).exists() and not self.is_dead(owner))

    def dead(self) -> set[str]:
        """The holders that have certainly ended and of whom something may be left."""
        files = self._directory.glob(f"{self._prefix}*.lock")
        owners = [file.name.removeprefix(self._prefix).removesuffix(".lock") for file in files]
        return {owner for owner in owners if self.is_dead(owner)}

    def alone(self) -> BaseFileLock:
        """A lock for what one process at a time may do: open the store."""
        return FileLock(self._directory / f"{self._prefix}opening", timeout=_PATIENCE_S)

    def sweep(self) -> None:
        """Remove the files of dead holders."""
        for file in self._directory.glob(f"{self._prefix}*.lock"):
            lock = None if file == self._file(self.owner) else _take(file)
            if lock is not None:
                # While it is held: a new holder of the same file notices that it is gone and makes another.
                file.unlink(missing_ok=True)
                lock.release()

    def release(self) -> None:
        """Give up the own lock."""
        self._lock.release()
        self._file(self.owner).unlink(missing_ok=True)

    def _file(self, owner: str) -> Path:
        return self._directory / f"{self._prefix}{owner}.lock"


def _take(file: Path) -> BaseFileLock | None:
    """The lock of a holder that has ended, None where it lives or is unknown."""
    if not file.exists():
        return None
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock

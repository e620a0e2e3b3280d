"""An event loop whose clock stands still while anybody works, and then jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from selectors import EVENT_READ, BaseSelector, SelectorKey
from typing import Any, TypeVar

T = TypeVar("T")

DAY_S = 86_400.0


class NothingLeft(Exception):
    """Everybody waits, and nothing will ever happen."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only by timers, so that hours take milliseconds and every run is the same.

    What would go to a thread runs at once: the order in which threads end is nobody's to repeat. While one
    works nevertheless, of which `is_awaited` knows, the clock stands still: otherwise a loaded machine would
    make hours of its moments. Ends with NothingLeft where all wait for each other, or after a day.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.is_awaited: Callable[[], bool] = lambda: False
        super().__init__(_Idle(self))

    def time(self) -> float:
        """The moment, in seconds since the loop was made."""
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run it now."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever awaits it gets it
            future.set_exception(error)
        return future


class _Idle(BaseSelector):
    """Waits for files as others do, and for timers by moving the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if self._loop.is_awaited():
            return self._real.select(None)
        if timeout is None or self._loop.now + timeout > DAY_S:
            raise NothingLeft
        self._loop.now += timeout
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int = EVENT_READ, data: Any = None) -> SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

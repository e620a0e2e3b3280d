"""An event loop that notes which connections nobody has closed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

if sys.platform == "win32":
    from asyncio import ProactorEventLoop as EventLoop
else:
    from asyncio import SelectorEventLoop as EventLoop


class CarefulLoop(EventLoop):
    """Once it is closed, `left_open` tells whose connections were still open: the classes of their protocols.

    Such a one stays until the garbage is collected, while another test runs or none does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left_open: list[str] = []
        self._made: WeakKeyDictionary[asyncio.BaseTransport, str] = WeakKeyDictionary()

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        """Connect, and note it."""
        transport, protocol = await super().create_connection(*args, **options)
        self._made[transport] = f"{type(protocol).__module__}.{type(protocol).__name__}"
        return transport, protocol

    def close(self) -> None:
        """End, and note what is left."""
        self.left_open += [whose for transport, whose in self._made.items() if not transport.is_closing()]
        super().close()


@contextmanager
def careful_loops() -> Iterator[Callable[[], CarefulLoop]]:
    """Gives what makes event loops; at the end all of their connections must have been closed."""
    loops: list[CarefulLoop] = []

    def new_loop() -> CarefulLoop:
        loops.append(CarefulLoop())
        return loops[-1]

    yield new_loop
    assert [whose for loop in loops for whose in loop.left_open] == []

"""An event loop that notes which connections nobody has closed."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary


class CarefulLoop(asyncio.SelectorEventLoop):
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

"""A turn outside any conversation: nothing of it is stored."""

from __future__ import annotations

import time
from os import urandom
from typing import Any

from msgspec.structs import replace

from modelway.conversations.charging import Bill
from modelway.errors import GatewayError
from modelway.types import ChatRequest, Collector, Completion


def new_turn_id() -> str:
    """A name for a turn that nobody can guess. It begins with the time, so that new rows come last."""
    return f"turn_{time.time_ns() >> 22:010x}{urandom(7).hex()}"


def first_turn_id(at: float) -> str:
    """What the names of turns from this time on are not less than."""
    return f"turn_{int(at * 1e9) >> 22:010x}"


class Ephemeral:
    """What a Turn is, for a request without a conversation."""

    log = None
    finished_at = 0.0
    survives = False

    def __init__(self, request: ChatRequest) -> None:
        self.id = new_turn_id()
        self.conversation_id = ""
        self.opened_at = time.time()
        self.request = request
        self.bill: Bill | None = None
        self._collector = Collector()
        # Takes the next event of the answer.
        self.record = self._collector.add

    def take_state(self, provider: str) -> dict[str, Any] | None:
        """Nothing is known from before."""
        return None

    async def stored(self) -> None:
        """Nothing is."""

    def pay_anew(self) -> None:
        """Nobody would read it after a crash."""

    def so_far(self) -> Completion:
        """What has come of the answer."""
        return self._collector.completion()

    async def finish(self, provider: str, model: str) -> Completion:
        """The whole answer."""
        return self.end(provider)

    def end(self, provider: str) -> Completion:
        """As finish(), which has nothing to wait for."""
        completion = self._collector.completion()
        if self.bill is not None:
            self.bill.settle_apart(completion)
        return replace(completion, provider=provider)

    def interrupt(self, provider: str = "", model: str = "") -> None:
        """Nothing is kept but what it costs."""
        if self.bill is not None:
            self.bill.settle_apart(self._collector.completion())

    async def fail(self, error: GatewayError, provider: str = "", model: str = "") -> None:
        """Nothing is kept but what it costs."""
        self.interrupt(provider, model)

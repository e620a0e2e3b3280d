"""What a turn asks of the bill that the gateway has made out for it."""

from __future__ import annotations

from typing import Protocol

from modelway.conversations.spending import Charge, Tab
from modelway.types import Completion


class Bill(Protocol):
    """Who pays for an answer; settled once, by whichever comes first."""

    def settle(self, completion: Completion) -> Charge | None:
        """What is to be written down with the turn; None where it has been settled."""
        ...

    def settle_apart(self, completion: Completion) -> None:
        """Settle it where no turn is kept."""
        ...

    def tab(self) -> Tab:
        """Who pays, while the answer is under way."""
        ...

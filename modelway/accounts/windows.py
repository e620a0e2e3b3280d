"""Counts what happened within the last minute."""

from __future__ import annotations

_SECONDS = 60
# The second in which something happened is over only a second later.
_SLOTS = _SECONDS + 1


class Window:
    """How much there was within the last minute, in slots of a second; times are monotonic.

    A slot counts until all of it is a minute ago: no minute ever holds more than what was let in, and nobody
    waits longer than a second more than a minute.
    """

    __slots__ = ("_last", "_newest", "_slots", "total")

    def __init__(self) -> None:
        self._slots = [0] * _SLOTS
        self._newest = 0
        self._last = -_SLOTS
        self.total = 0

    def add(self, amount: int, now: float) -> int:
        """Count an amount; gives the number of its slot."""
        if now >= self._newest + 1:
            self.forget(now)
        self._slots[self._newest % _SLOTS] += amount
        self.total += amount
        self._last = self._newest
        return self._newest

    def correct(self, slot: int, amount: int, now: float) -> None:
        """Change what was counted in a slot. What is more than was thought counts now if that is over."""
        self.forget(now)
        if self._newest - slot < _SLOTS:
            self._slots[slot % _SLOTS] += amount
            self.total += amount
        elif amount > 0:
            self.add(amount, now)

    def forget(self, now: float) -> None:
        """Drop what is over."""
        second = int(now)
        gap = second - self._newest
        if gap <= 0:
            return
        if gap >= _SLOTS:
            self._slots = [0] * _SLOTS
            self.total = 0
        else:
            for number in range(self._newest + 1, second + 1):
                self.total -= self._slots[number % _SLOTS]
                self._slots[number % _SLOTS] = 0
        self._newest = second

    def reset(self, now: float) -> float:
        """Seconds until all of it is over."""
        return max(0.0, self._last + _SLOTS - now) if self.total else 0.0

    def wait(self, excess: int, now: float) -> float:
        """Seconds until at least so much of the total is over; all of it where it is less."""
        self.forget(now)
        last = now
        for number in range(self._newest - _SECONDS, self._newest + 1):
            amount = self._slots[number % _SLOTS]
            if amount > 0:
                last = number + _SLOTS
                excess -= amount
                if excess <= 0:
                    break
        return max(0.0, last - now)

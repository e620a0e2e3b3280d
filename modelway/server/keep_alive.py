"""Keeps a silent stream alive."""

from __future__ import annotations

import asyncio

from modelway.dialects.envelope import Envelope
from modelway.server.dialect import Dialect
from modelway.server.exchange import Exchange, Headers
from modelway.server.numbering import END_OF_COMMENT


class KeepAlive:
    """Sends what says nothing whenever a stream has been silent for a while.

    Before the first event that begins the reply: from then on nobody in between hangs up, and an error is an
    event of the stream. `follows_ids`: its events are numbered.
    """

    def __init__(self, exchange: Exchange, dialect: Dialect, headers: Headers, period_s: float) -> None:
        self._exchange = exchange
        self._dialect = dialect
        self._headers = headers
        self._period_s = period_s
        self._loop = asyncio.get_running_loop()
        self.follows_ids = False
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> KeepAlive:
        if self._dialect.KEEP_ALIVE:
            self._timer = self._loop.call_later(self._period_s, self._tick)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def broken(self) -> None:
        """Note that something was sent."""
        self._last = self._loop.time()

    def break_now(self) -> None:
        """It has been silent for long enough already."""
        if self._dialect.KEEP_ALIVE:
            self._last -= self._period_s
            self._tick()

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        silent = self._loop.time() - self._last
        if silent >= self._period_s and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._say_nothing())
            self.broken()
            silent = 0
        self._timer = self._loop.call_later(self._period_s - silent, self._tick)

    async def _say_nothing(self) -> None:
        exchange = self._exchange
        if not exchange.started:
            nobody = Envelope(id="", created=0, model="", provider="")
            exchange.encode_error_event = self._dialect.EventEncoder(nobody).error
            await exchange.start(200, self._headers)
        await exchange.write(nothing(self._dialect, follows_ids=self.follows_ids))


def nothing(dialect: Dialect, *, follows_ids: bool) -> bytes:
    """What says nothing, also behind events that are numbered."""
    said = dialect.KEEP_ALIVE
    return said.rstrip() + END_OF_COMMENT if follows_ids and said.startswith(b":") else said

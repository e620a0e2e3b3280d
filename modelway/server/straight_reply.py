"""Writes the reply to a chat as its answer comes, without a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from modelway.answer import Answer
from modelway.server.dialect import Encoder
from modelway.server.exchange import ON_GONE, Exchange
from modelway.straight import Straight
from modelway.types import ChatRequest, Event, Finish

if TYPE_CHECKING:
    from modelway.server.chat import ChatEndpoint

# Goes on with a request in a task; `work` is what is left of it.
GoOn = Callable[[Exchange, Callable[[], Awaitable[None]]], None]


class StraightReply:
    """One reply on its way. Where it has to wait for anything, `go_on` is told, once, and goes on in a task.

    `on_end` is told where it comes to its end by itself.
    """

    __slots__ = (
        "_encoder",
        "_endpoint",
        "_exchange",
        "_go_on",
        "_has_left",
        "_last",
        "_loop",
        "_on_end",
        "_request",
        "_straight",
        "_timer",
    )

    def __init__(
        self,
        endpoint: ChatEndpoint,
        exchange: Exchange,
        request: ChatRequest,
        straight: Straight,
        *,
        go_on: GoOn,
        on_end: Callable[[Exchange], None],
    ) -> None:
        self._endpoint = endpoint
        self._exchange = exchange
        self._request = request
        self._straight = straight
        self._go_on = go_on
        self._on_end = on_end
        self._encoder: Encoder | None = None
        self._has_left = False
        self._loop = asyncio.get_running_loop()
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The request is on its way: write what comes."""
        self._exchange.scope[ON_GONE] = self._gone
        if self._request.stream and self._endpoint.keep_alive_s:
            self._last = self._loop.time()
            self._look_again_after(self._endpoint.keep_alive_s)
        self._straight.listen(self._news)
        if self._straight.must_wait:
            self.wait()

    def wait(self, *, silent: bool = False) -> None:
        """Go on by waiting; `silent`: the client has heard nothing for so long that it must."""
        if self._straight.is_being_stored:
            return
        self._leave()
        straight, encoder = self._straight, self._encoder

        async def rest() -> None:
            try:
                await self._endpoint.rest(self._exchange, self._request, straight, encoder, silent=silent)
            except BaseException:
                straight.leave()
                raise

        self._go_on(self._exchange, rest)

    def _news(self) -> None:
        if self._has_left:
            return
        try:
            self._write(self._straight.take())
        except Exception as error:  # noqa: BLE001 - a bug, which ends the request as all others do
            self._fail(error)
            return
        if not self._has_left and (self._straight.must_wait or self._exchange.is_slow):
            self.wait()

    def _write(self, events: list[Event]) -> None:
        answer = self._straight.answer
        if not events or answer is None:
            return
        has_ended = isinstance(events[-1], Finish)
        if not self._request.stream:
            self._endpoint.note_begin(self._exchange, answer)
            if has_ended:
                self._leave()
                self._endpoint.reply(self._exchange, self._request, answer)
                self._end()
            return
        encoder = self._encoder or self._started(answer)
        if len(events) == 1:
            written = encoder.encode(events[0])
        else:
            written = b"".join([encoder.encode(event) for event in events])
        if has_ended:
            written += encoder.end()
        if written:
            self._exchange.write_now(written, last=has_ended)
            self._last = self._loop.time()
        if has_ended:
            self._leave()
            self._endpoint.note_end(self._exchange, answer)
            self._end()

    def _started(self, answer: Answer) -> Encoder:
        """Note that the answer has begun, and begin its stream; what writes it."""
        self._endpoint.note_begin(self._exchange, answer)
        self._encoder = self._endpoint.start_stream(self._exchange, self._request, answer)
        return self._encoder

    def _look_at_silence(self) -> None:
        silent_s = self._loop.time() - self._last
        period_s = self._endpoint.keep_alive_s
        answer = self._straight.answer
        if silent_s < period_s:
            self._look_again_after(period_s - silent_s)
        elif self._straight.is_being_stored and answer is not None:
            # The store takes its time, and nobody else may wait for that.
            self._endpoint.break_silence(self._exchange, self._encoder or self._started(answer))
            self._last = self._loop.time()
            self._look_again_after(period_s)
        else:
            self._timer = None
            self.wait(silent=True)

    def _look_again_after(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look_at_silence)

    def _gone(self) -> None:
        """The client has closed its connection."""
        if self._has_left or self._exchange.complete:
            return
        self._leave()
        self._straight.leave()
        self._exchange.note_gone()
        self._end()

    def _fail(self, error: Exception) -> None:
        self._leave()
        self._straight.leave()

        async def fail() -> None:
            raise error

        self._go_on(self._exchange, fail)

    def _leave(self) -> None:
        """Nothing is written here from now on."""
        self._has_left = True
        self._straight.listen(None)
        self._exchange.scope.pop(ON_GONE, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._on_end(self._exchange)

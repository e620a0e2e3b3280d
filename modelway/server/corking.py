"""What is written to a client, with few system calls, and how far it is read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

_MANY_WAIT = 16

log = logging.getLogger("modelway.server")


class CorkedTransport:
    """A transport that sends what was written in one turn of the event loop with one system call.

    uvicorn writes the head, each piece of the body and the end separately; a system call costs more than
    everything else that is done for a piece.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.is_closing = transport.is_closing
        self._call_soon = asyncio.get_running_loop().call_soon
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send data, together with what else is written before the loop turns."""
        if not self._held:
            self._call_soon(self._flush)
        self._held.append(data)

    def write_now(self, data: bytes) -> None:
        """Send data behind what is held; nothing is waited for: what could join it comes in another turn."""
        if self._held:
            self._held.append(data)
        elif not self.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        """Send what is held, then tell the client that no more comes."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Send what is held, then close."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        held, self._held = self._held, []
        # To a client that has gone meanwhile nothing can be sent any more.
        if held and not self._transport.is_closing():
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))


class Taking:
    """Hangs up on a client that takes nothing of its answer; whoever is slow gets all of its time again."""

    def __init__(self, transport: asyncio.Transport, limit_s: float) -> None:
        self._transport = transport
        self._limit_s = limit_s
        # How much the client had still to take when that was last looked at.
        self._untaken = 0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, lags: bool) -> None:
        """From now on it does not keep up, or does again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if lags:
            self._untaken = self._transport.get_write_buffer_size()
            self._timer = asyncio.get_running_loop().call_later(self._limit_s, self._look)

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() < self._untaken:
            self.watch(True)
        else:
            log.info("a client took nothing of its answer for %g s", self._limit_s)
            self._transport.abort()


class Flow(FlowControl):
    """uvicorn's, which reads no further as long as many requests wait behind another.

    uvicorn itself reads on with each reply that is complete: a client that asks without end and reads nothing
    fills the memory with its requests. Behind a few it is read on: only so it is seen to leave.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, unless many requests wait."""
        if self.read_paused and len(self._waiting) < _MANY_WAIT:
            super().resume_reading()

"""A client's connection to an upstream on loopback, which plays what it is told to answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any, cast

import httptools


class LoopbackConnection(asyncio.Protocol):
    """One client. Its requests are read whole and answered one after another; `opened` knows who is there."""

    def __init__(self, opened: set[LoopbackConnection]) -> None:
        self._opened = opened
        self.transport: asyncio.Transport
        self.parser = httptools.HttpRequestParser(self)
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost = asyncio.Event()

    @abstractmethod
    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> Coroutine[Any, Any, None]:
        """What answers a request, which is noted before this returns; header names are in lower case."""

    def reset(self) -> None:
        """End the connection as a crash would."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def end(self) -> None:
        """Give up the answer and close."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        self.transport.abort()
        await self.lost.wait()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a client."""
        self.transport = cast(asyncio.Transport, transport)
        self._opened.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop answering a client that has gone."""
        self._opened.discard(self)
        self.lost.set()
        self.writable.set()
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """The client keeps up again."""
        self.writable.set()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = self._body = b""
        self._headers: dict[str, str] = {}

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer the request."""
        method = self.parser.get_method().decode()
        answer = self.answer(method, self._url.decode("latin-1"), self._headers, self._body)
        self.task = asyncio.create_task(answer)

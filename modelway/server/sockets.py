"""Responses over a WebSocket: each `response.create` is a request, each event of its stream a message.

Source: the Open Responses specification, 2026-04-24, and OpenAI's guide to its WebSocket mode.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from asyncio import FIRST_COMPLETED
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from modelway.dialects import openai_responses
from modelway.dialects.openai_responses import Chain, read_create, warmed
from modelway.errors import GatewayError, InvalidRequest, UpstreamProtocolError
from modelway.server.exchange import IS_GONE, ON_GONE, Receive, Scope, Send

ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
Event = MutableMapping[str, Any]

LONGEST_S = 60 * 60
# These belong to the handshake, and to one request: the connection has several.
_OF_HANDSHAKE = frozenset(
    {
        *(b"connection", b"upgrade", b"content-length", b"content-type", b"transfer-encoding"),
        *(b"idempotency-key", b"last-event-id", b"x-modelway-detach"),
    }
)
_NORMAL, _GOING_AWAY = 1000, 1001


def handshake(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """The handshake as a request that can be checked, and what sends its refusal."""

    async def refuse(message: Event) -> None:
        await send({**message, "type": "websocket." + message["type"]})

    return {**scope, "type": "http", "method": "GET"}, refuse


class Socket:
    """One connection, whose responses are written one after the other.

    `app` answers each as a request of its own: with its own line in the log, its own limits and errors.
    """

    def __init__(self, app: ASGI, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._send = send
        self._receive = receive
        self._chain = Chain()
        self._turn: Scope = {}
        self._is_gone = False
        self._leave = asyncio.get_running_loop().create_future()
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name not in _OF_HANDSHAKE and not name.startswith(b"sec-websocket-")
        ]
        self._scope = {**scope, "type": "http", "method": "POST", "headers": headers}

    async def run(self) -> None:
        """Answer until the client leaves, the server ends, or the connection has lasted for too long."""
        await self._send({"type": "websocket.accept"})
        deadline = time.monotonic() + LONGEST_S
        coming = self._read_ahead()
        try:
            while True:
                wait_s = max(0.0, deadline - time.monotonic())
                await asyncio.wait({coming, self._leave}, timeout=wait_s, return_when=FIRST_COMPLETED)
                if self._is_gone:
                    return
                if self._leave.done() or not coming.done():
                    await self._end()
                    return
                message, coming = coming.result(), self._read_ahead()
                await self._answer(message.get("text") or message.get("bytes") or b"")
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    def leave(self) -> None:
        """End the connection, after the response that is being written."""
        if not self._leave.done():
            self._leave.set_result(None)

    def _read_ahead(self) -> asyncio.Task[Event]:
        """Read the next message while a response is written, so that a client that leaves is noticed."""
        coming: asyncio.Task[Event] = asyncio.ensure_future(self._receive())
        coming.add_done_callback(self._look)
        return coming

    def _look(self, coming: asyncio.Task[Event]) -> None:
        if coming.cancelled() or coming.exception() or coming.result()["type"] != "websocket.disconnect":
            return
        self._is_gone = True
        self._turn[IS_GONE] = True
        if on_gone := self._turn.get(ON_GONE):
            on_gone()

    async def _answer(self, text: str | bytes) -> None:
        try:
            asked = read_create(text.encode() if isinstance(text, str) else text)
            body = self._chain.continued(asked)
            if asked.get("generate") is False:
                await self._warm(body)
                return
        except GatewayError as error:
            await self._fail(error)
            return
        reply = _Reply(self._tell, self._chain)
        self._turn = {**self._scope, "state": {}}
        await self._app(self._turn, _body(body), reply.send)
        if not self._is_gone:
            await reply.end()

    async def _warm(self, body: bytes) -> None:
        """Take what the next request begins with; nobody is asked."""
        for event in warmed(body, openai_responses.ID_PREFIX + secrets.token_hex(12), time.time()):
            await self._tell(self._chain.told(event))

    async def _fail(self, error: GatewayError) -> None:
        body = openai_responses.encode_error(error)
        await self._tell(openai_responses.encode_failure(error.status, body))

    async def _tell(self, event: bytes) -> None:
        if not self._is_gone:
            await self._send({"type": "websocket.send", "text": event.decode()})

    async def _end(self) -> None:
        """Say why, and close."""
        if not self._leave.done():
            await self._fail(
                InvalidRequest(
                    "a connection lasts for an hour at most",
                    hint="open another one, and go on there",
                    code="websocket_connection_limit_reached",
                )
            )
        if not self._is_gone:
            code = _GOING_AWAY if self._leave.done() else _NORMAL
            await self._send({"type": "websocket.close", "code": code})


class _Reply:
    """Turns the reply to a request into messages: an event each, or an error."""

    def __init__(self, tell: Callable[[bytes], Awaitable[None]], chain: Chain) -> None:
        self._tell = tell
        self._chain = chain
        self._status = 0
        self._rest = b""

    async def send(self, message: Event) -> None:
        """Take a piece of the reply, as ASGI has it."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._rest += message.get("body", b"")
        if self._status != 200:
            return
        *events, self._rest = self._rest.split(b"\n\n")
        for event in events:
            for line in event.split(b"\n"):
                if line.startswith(b"data: {") and (told := self._chain.told(line[6:])):
                    await self._tell(told)

    async def end(self) -> None:
        """Tell what went wrong, where the response has not said so itself."""
        if self._status != 200 and self._rest:
            self._chain.broken()
            await self._tell(openai_responses.encode_failure(self._status, self._rest))
        elif self._status == 200 and not self._chain.has_ended:
            self._chain.broken()
            error = UpstreamProtocolError("the response was cut off", code="upstream_truncated")
            body = openai_responses.encode_error(error)
            await self._tell(openai_responses.encode_failure(error.status, body))


def _body(body: bytes) -> Receive:
    """The request, and then nothing: whether the client is there is told in the scope."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Event:
        for message in messages:
            return message
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    return receive

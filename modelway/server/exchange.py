"""One request and its reply, as the endpoints see them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from os import urandom
from typing import Any
from urllib.parse import parse_qs, quote

from modelway.auth import LOCAL_CALLER
from modelway.dialects import openai_chat
from modelway.errors import (
    AuthenticationError,
    GatewayError,
    InvalidRequest,
    RequestTooLarge,
    SignInRequired,
    TurnInterrupted,
    UpstreamError,
)
from modelway.server.cycle import CYCLE, Cycle
from modelway.telemetry import RequestRecord, Telemetry, trail
from modelway.types import Caller

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# Under these names of the scope the protocol says, and is asked to say, that the connection is lost.
IS_GONE = "modelway.is_gone"
ON_GONE = "modelway.on_gone"
CLIENT_CLOSED = 499


class ClientGone(Exception):
    """The client closed its connection before the reply was complete."""


class Exchange:
    """The scope, the headers that matter (last one wins), the caller, and what has been sent so far.

    `encode_error` writes an error in the dialect of the address; `encode_error_event` writes one into the
    stream that has begun: the endpoint sets it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, telemetry: Telemetry) -> None:
        self.scope = scope
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = "req_" + urandom(12).hex()
        self.caller: Caller = LOCAL_CALLER
        self.telemetry = telemetry
        self.record: RequestRecord = telemetry.start(self.request_id)
        if telemetry.traces is not None:
            self.record.traceparent = self.header(b"traceparent")
        self.started = False
        self.complete = False
        # Gives back its place among the requests that are answered at the same time.
        self.release: Callable[[], None] | None = None
        self.reply_headers: Headers = [(b"x-request-id", self.request_id.encode())]
        self.encode_error: Callable[[GatewayError], bytes] = openai_chat.encode_error
        self.encode_error_event: Callable[[GatewayError], bytes] | None = None
        self.receive = receive
        self._send = send
        self._body: bytes | None = None
        # It has the scope too: together they would stay until the garbage is collected.
        self._cycle: Cycle | None = scope.pop(CYCLE, None)

    def header(self, name: bytes) -> str:
        """A header's value, "" where it is absent. `name` in lower case."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def api_key(self) -> str:
        """The key that the client sent, as `Authorization: Bearer` or `x-api-key`."""
        scheme, _, key = self.header(b"authorization").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else self.header(b"x-api-key")

    def body_now(self) -> bytes | None:
        """The whole body, if it is there and the protocol is our own; it can be had again."""
        if self._body is None and self._cycle is not None:
            self._body = self._cycle.take_body()
            self.record.bytes_in = len(self._body or b"")
        return self._body

    async def body(self, limit: int) -> bytes:
        """The whole body; RequestTooLarge before more than `limit` bytes are held."""
        too_large = RequestTooLarge(
            f"the body is larger than {limit} bytes",
            hint="send less, or raise [server] max_body_bytes",
        )
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > limit:
            raise too_large
        if (whole := self.body_now()) is not None:
            if len(whole) > limit:
                raise too_large
            return whole
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > limit:
                raise too_large
            more = message.get("more_body", False)
        self.record.bytes_in = size
        self._body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self._body

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status and the headers."""
        if self._cycle is not None:
            await self._cycle.keep_up()
            self.start_now(status, headers)
        else:
            headers = self._started(status, headers)
            await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, last: bool = False) -> None:
        """Send a piece of the body."""
        if self._cycle is not None:
            self.complete = self.complete or last
            await self._cycle.keep_up()
            self.record.bytes_out += len(body)
            self._cycle.write(body, last=last)
        else:
            self.complete = self.complete or last
            self.record.bytes_out += len(body)
            await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    @property
    def is_slow(self) -> bool:
        """Whether the client does not keep up."""
        return self._cycle is not None and self._cycle.is_slow

    def start_now(self, status: int, headers: Headers) -> None:
        """As start(), whether the client keeps up or not; where the protocol is our own."""
        if self._cycle is not None:
            self._cycle.begin(status, self._started(status, headers))

    def write_now(self, body: bytes, *, last: bool = False) -> None:
        """As write(), whether the client keeps up or not; where the protocol is our own.

        For who has nothing more to write before the event loop turns.
        """
        self.complete = self.complete or last
        self.record.bytes_out += len(body)
        if self._cycle is not None:
            self._cycle.write_now(body, last=last)

    def reply_now(self, status: int, body: bytes, headers: Headers) -> None:
        """As reply(), whether the client keeps up or not; where the protocol is our own."""
        self.complete = True
        self.record.bytes_out += len(body)
        if self._cycle is not None:
            self._cycle.reply(status, self._started(status, _of_json(body, headers)), body)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Pass on what an ASGI application sends, with our headers added."""
        if message["type"] == "http.response.start":
            headers = self._started(message["status"], list(message.get("headers", [])))
            message = {**message, "headers": headers}
        await self._send(message)

    async def reply(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        """Send a whole JSON reply."""
        if self._cycle is None:
            await self.start(status, _of_json(body, headers or []))
            await self.write(body, last=True)
            return
        self.complete = True
        await self._cycle.keep_up()
        self.reply_now(status, body, headers or [])

    def _started(self, status: int, headers: Headers) -> Headers:
        """Note that the reply begins; all of its headers."""
        self.started = True
        self.record.status = status
        if self.record.attempts:
            headers = [*headers, (b"x-modelway-attempts", trail(self.record.attempts).encode())]
        return headers + self.reply_headers

    def note_gone(self) -> None:
        """The client has closed its connection before the reply was complete."""
        self.record.status, self.record.code = CLIENT_CLOSED, "client_closed"

    def cut(self) -> None:
        """Send no more: the connection is closed, so that the client sees that the end is missing."""
        self.complete = True

    async def fail(self, error: GatewayError) -> None:
        """Tell the client of an error: as the reply or, once a stream has begun, inside it.

        One that comes after the end of the reply is only recorded.
        """
        self.record.code = error.code
        if self.complete:
            return
        if self.started:
            event = self.encode_error_event(error) if self.encode_error_event else b""
            await self.write(event, last=True)
            return
        headers: Headers = []
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after))))
        headers += as_sent(error.headers)
        if isinstance(error, AuthenticationError) and not isinstance(error, SignInRequired):
            headers.append((b"www-authenticate", b"Bearer"))
        if isinstance(error, UpstreamError | TurnInterrupted):
            # Our own retries are spent; an SDK that retries too would multiply them.
            headers.append((b"x-should-retry", b"false"))
        await self.reply(error.status, self.encode_error(error), headers)


def _of_json(body: bytes, headers: Headers) -> Headers:
    return [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]


def as_sent(headers: Iterable[tuple[str, str]]) -> Headers:
    """Headers as they are sent."""
    return [(name.encode(), value.encode()) for name, value in headers]


def header_value(text: str) -> bytes:
    """Text as it may stand in a header: what is not printable ASCII is percent-encoded."""
    if text.isascii() and text.isprintable():
        return text.encode()
    return quote(text, safe=" /:@.,;+-_()[]").encode()


def addressed(exchange: Exchange, name: str, header: bytes, in_body: str) -> str:
    """One value out of path, body, query and header; two different ones are refused, not ranked."""
    query = parse_qs(exchange.scope["query_string"].decode("latin-1"))
    in_path = exchange.scope.get("path_params", {}).get(name, "")
    said = {
        "path": {in_path},
        "body": {in_body},
        "query": set(query.get(name, ())),
        "header": {value.decode("latin-1") for key, value in exchange.scope["headers"] if key == header},
    }
    values = set().union(*said.values()) - {""}
    # A provider's name is the same in any case, a conversation's is not.
    distinct = {value.casefold() for value in values} if name == "provider" else values
    if len(distinct) > 1:
        places = " and ".join(place for place, words in said.items() if any(words))
        raise InvalidRequest(f"`{name}` differs in {places}", param=name, hint="send it once")
    return values.pop() if values else ""


class until_client_is_gone:  # noqa: N801
    """Cancel what is inside when the client closes its connection; ClientGone is raised then.

    The server's protocol calls `ON_GONE` of the scope: a task that waits for the news would cost every
    request more than its whole reply. A connection that ends after the reply harms nobody.
    """

    __slots__ = ("_exchange", "_gone", "_task")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._gone = False
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        scope = self._exchange.scope
        if IS_GONE in scope:
            raise ClientGone
        self._task = asyncio.current_task()
        scope[ON_GONE] = self._cancel

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._exchange.scope.pop(ON_GONE, None)
        if self._gone and kind is asyncio.CancelledError and self._task is not None:
            self._task.uncancel()
            raise ClientGone from None

    def _cancel(self) -> None:
        if not self._exchange.complete and self._task is not None:
            self._gone = True
            self._task.cancel()

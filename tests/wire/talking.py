"""Raw bytes to a server and what comes back, read by a parser that is not ours (h11)."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import h11
from msgspec import Struct

SILENCE_S = 3.0


class Reply(Struct, frozen=True):
    """One reply. Header names are in lower case; `whole` says whether its end has come."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Seen(Struct, frozen=True):
    """One request, as a server understood it."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: str


def talk(port: int, pieces: Iterable[bytes]) -> bytes:
    """Send the pieces one after another; all that came until the server hung up.

    Where it is silent it is told that no more comes: what was sent may have ended between two requests. An
    AssertionError where it does not hang up even then.
    """
    received: list[bytes] = []
    with socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
        with suppress(ConnectionResetError):
            try:
                received.extend(_read(connection))
            except TimeoutError:
                connection.shutdown(socket.SHUT_WR)
                received.extend(_read(connection))
    return b"".join(received)


def _read(connection: socket.socket) -> Iterator[bytes]:
    while data := connection.recv(65536):
        yield data


def hang_up(connection: socket.socket, *, reset: bool) -> None:
    """Close a connection, in order or not."""
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def replies(received: bytes, methods: Sequence[str] = ()) -> list[Reply]:
    """The replies in what came, interim ones left out. AssertionError where it is not HTTP.

    `methods` are those of the requests, where one of them is HEAD.
    """
    found: list[Reply] = []
    while received:
        method = methods[len(found)] if len(found) < len(methods) else "POST"
        reply, received = _first(received, method)
        found.append(reply)
    return found


def _first(received: bytes, method: str) -> tuple[Reply, bytes]:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    client.receive_data(received)
    head, body = None, bytearray()
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                rest = client.trailing_data[0]
                break
            elif event is h11.NEED_DATA:
                client.receive_data(b"")
    except h11.RemoteProtocolError as error:
        if head is None:
            raise AssertionError(f"not HTTP: {received[:200]!r}") from error
        return _reply(head, bytes(body), whole=False), b""
    assert head is not None, f"an end without a beginning: {received[:200]!r}"
    return _reply(head, bytes(body), whole=True), rest


def _reply(head: h11.Response, body: bytes, *, whole: bool) -> Reply:
    return Reply(head.status_code, _texts(head.headers), body, whole)


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]


def understood(data: bytes) -> list[Seen]:
    """The requests that h11 finds in bytes, up to the first that it refuses, or that ends the connection.

    Empty lines before a request are no part of it, and spaces around its target may be more than one
    (RFC 9112, 2.2 and 3); h11 itself would refuse them.
    """
    found: list[Seen] = []
    stays = True
    while stays:
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        server.receive_data(re.sub(rb"\A[\r\n]*([A-Z]+) +(\S+) +", rb"\1 \2 ", data))
        try:
            seen = _next(server)
        except h11.RemoteProtocolError:
            break
        if seen is None:
            break
        found.append(seen)
        data = server.trailing_data[0]
        # Who offers to upgrade asks all the same; in HTTP/1.0 each request ends its connection.
        stays = server.their_state is not h11.MUST_CLOSE and seen.version != "1.0"
    return found


def _next(server: h11.Connection) -> Seen | None:
    head, body = None, bytearray()
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return Seen(
                head.method.decode(),
                head.target.decode("latin-1"),
                head.http_version.decode(),
                _texts(head.headers),
                body.decode("latin-1"),
            )
        else:
            return None


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that answers with what it was asked."""
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    seen = {
        "method": scope["method"],
        "target": target.decode("latin-1"),
        "version": scope["http_version"],
        "headers": _texts(scope["headers"]),
        "body": body.decode("latin-1"),
    }
    answer = json.dumps(seen).encode()
    # As many pieces as the request asks for; none: as one with its length.
    pieces = dict(scope["headers"]).get(b"x-pieces", b"")
    headers = [(b"content-type", b"application/json")]
    if not pieces.isdigit():
        headers.append((b"content-length", b"%d" % len(answer)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(int(pieces) if pieces.isdigit() else 0):
        await send({"type": "http.response.body", "body": b" " * (number % 3), "more_body": True})
    await send({"type": "http.response.body", "body": answer, "more_body": False})

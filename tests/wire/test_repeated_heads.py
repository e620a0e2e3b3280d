"""A head that is known again reads as one that is parsed, whatever comes between, behind and inside."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import uvicorn
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from modelway.server.heads import MOST_BYTES, Head, head_of
from modelway.server.protocol import Protocol

# Turns of the loop; a request needs three.
PATIENCE = 20
START = b"POST /v1/chat/completions?a=1 HTTP/1.1\r\nHost: localhost\r\n"


class Forgetful(Protocol):
    """Parses everything."""

    def _keep_head(self, data: bytes) -> None:
        del data


class Client(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.got = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.got += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Tell what was understood, but not by the short way, so that bodies are waited for."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message.get("more_body", False)
    headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
    understood = scope["method"], scope["path"], scope["query_string"].decode(), headers, body.decode()
    said = json.dumps(understood).encode()
    headers_of_reply = [(b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 200, "headers": headers_of_reply})
    await send({"type": "http.response.body", "body": said})


async def talk(kind: type[Protocol], reads: list[tuple[bytes, bool]]) -> tuple[bytes, bool, int]:
    """What comes back, whether the connection was closed, and how many requests were answered."""
    config = uvicorn.Config(echo, log_config=None, access_log=False, ws="none", lifespan="off")
    config.load()
    state, client = ServerState(), Client()
    protocol = kind(config=config, server_state=state, app_state={})
    protocol.connection_made(client)
    for data, waits in reads:
        if client.closed:
            break
        protocol.data_received(data)
        for _ in range(PATIENCE if waits else 0):
            await asyncio.sleep(0)
    for _ in range(PATIENCE):
        await asyncio.sleep(0)
    was_closed = client.closed
    protocol.connection_lost(None)
    await asyncio.gather(*protocol.tasks)
    # The id of a reply to what is no request is another one each time.
    lines = [line for line in client.got.split(b"\r\n") if not line.startswith(b"x-request-id")]
    return b"\r\n".join(lines), was_closed, state.total_requests


bodies = st.sampled_from([b"", b"{}", b'{"a": 1}', b"x" * 99, START + b"Content-Length: 2\r\n\r\n{}"])
lengths = st.sampled_from(
    [b"%d", b"%d", b"%d", b"0%d", b" %d", b"%d ", b"+%d", b"-%d", b"%d,2", b"0x%d", b""]
)
names = st.sampled_from([b"Content-Length", b"Content-Length", b"content-length", b"X-Content-Length"])
others = st.sampled_from(
    [
        (b"", b""),
        (b"Accept: */*\r\n", b"Authorization: Bearer test\r\n"),
        (b"", b"Connection: close\r\n"),
        (b"", b"Expect: 100-continue\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b""),
        (b"X: 1\r\n Content-Length: 7\r\n", b""),
        (b"Content-Length: 2\r\n", b""),
        (b"", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"),
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request, most often of the usual kind; its length may be wrong, or said in an odd way."""
    before, after = draw(st.one_of(st.just((b"", b"")), others))
    body, wrong = draw(bodies), draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
    form = draw(lengths)
    length = form % (len(body) + wrong) if b"%d" in form else form
    return START + before + draw(names) + b": " + length + b"\r\n" + after + b"\r\n" + body


usual = bodies.map(lambda body: START + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
reads = st.lists(st.tuples(st.one_of(usual, usual, requests()), st.booleans()), min_size=2, max_size=6)
glued = st.tuples(usual, requests()).map(
    lambda two: [(two[0], True), (two[0] + two[1], True), (two[0], True)]
)
TWICE = [(START + b"Content-Length: 2\r\n\r\n{}", True)] * 2


@example(TWICE)
@given(st.one_of(reads, glued))
def test_a_known_head_reads_as_a_parsed_one(reads: list[tuple[bytes, bool]]) -> None:
    assert asyncio.run(talk(Protocol, reads)) == asyncio.run(talk(Forgetful, reads))


def test_a_head_is_parsed_once() -> None:
    class Once(Protocol):
        parsed = 0

        def on_headers_complete(self) -> None:
            Once.parsed += 1
            super().on_headers_complete()

    longer = START + b"Content-Length: 11\r\n\r\n" + b'{"b": "xx"}'
    answers, closed, answered = asyncio.run(talk(Once, [*TWICE, (longer, True)]))
    assert (Once.parsed, answered, closed) == (1, 3, False)
    assert answers.count(b"HTTP/1.1 200") == 3
    assert rb'"{\"b\": \"xx\"}"' in answers


@pytest.mark.anyio
async def test_heads_that_never_come_again_are_not_looked_at_for_ever() -> None:
    config = uvicorn.Config(echo, log_config=None, access_log=False, ws="none", lifespan="off")
    config.load()
    protocol = Protocol(config=config, server_state=ServerState(), app_state={})
    protocol.connection_made(Client())
    kept = []
    for number in range(9):
        protocol.data_received(START + b"X: %d\r\nContent-Length: 2\r\n\r\n{}" % number)
        for _ in range(PATIENCE):
            await asyncio.sleep(0)
        kept.append(protocol._head is not None)
    protocol.connection_lost(None)
    assert kept == [True] * 4 + [False] * 5


def _head(data: bytes, **scope: Any) -> Head | None:
    names = [line.partition(b":")[0].lower() for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    return head_of(data, b"/", {"headers": [(name, b"") for name in names], **scope})


def test_only_a_head_that_says_its_length_once_is_known_again() -> None:
    known = START + b"Content-Length: 2\r\n\r\n{}"
    assert _head(known) is not None
    assert _head(START + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}") is None
    assert _head(START + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}") is None
    assert _head(START + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{}") is None
    assert _head(START + b"Content-Length: 3\r\n\r\n{}") is None
    assert _head(START + b"\r\n") is None
    assert _head(START + b"X: " + b"x" * MOST_BYTES + b"\r\nContent-Length: 2\r\n\r\n{}") is None


def test_what_is_not_exactly_one_request_is_parsed() -> None:
    head = _head(START + b"Content-Length: 2\r\n\r\n{}")
    assert head is not None
    headers = [(b"host", b""), (b"content-length", b"4")]
    assert head.read(START + b"Content-Length: 4\r\n\r\n{{}}") == (headers, b"{{}}")
    for other in (
        START + b"Content-Length: 2\r\n\r\n{}" + START,
        START + b"Content-Length: 2\r\n\r\n{",
        START + b"Content-Length: +2\r\n\r\n{}",
        START + b"Content-Length: 2\r\nX: y\r\n\r\n{}",
        START + b"Content-Length: 2",
        START + "Content-Length: ²\r\n\r\n{}".encode(),
        START + b"Content-Length: \r\n\r\n",
        b"",
    ):
        assert head.read(other) is None

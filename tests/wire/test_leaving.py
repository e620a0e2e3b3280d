"""Clients that go away, do not read, or ask without end: nothing stays behind, little is held for them."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.bench.faults import TEXT, WORDS, Act, Step, chunked, event, status_line
from tests.wire.gate import Gate, by_model, gate
from tests.wire.serving import in_a_thread
from tests.wire.talking import hang_up, replies, talk
from tests.wire.traffic import GOODBYE, HOST, Sent

LONG_S = 20.0
MEGABYTE = 1 << 20
HEAD = status_line(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with in_a_thread(lambda: gate(tmp_path_factory.mktemp("gate") / "own")) as served:
        yield served


def asking(path: bytes = b"/v1/chat/completions", **fields: object) -> bytes:
    asked = {"messages": [{"role": "user", "content": "hi"}], "model": "ok", **fields}
    if path == b"/v1/messages":
        asked["max_tokens"] = 9
    body = json.dumps(asked).encode()
    return Sent(b"POST", path, b"1.1", (HOST, b"Content-Length: %d" % len(body)), body).wire


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_idle(server: Gate) -> bool:
    return all(one.task is None or one.task.done() for one in list(server.upstream.open))


@given(
    place=st.integers(0, 400),
    read=st.sampled_from([0, 0, 1, 200, 500]),
    stream=st.booleans(),
    reset=st.booleans(),
    path=st.sampled_from([b"/v1/chat/completions", b"/v1/messages", b"/v1/files"]),
)
def test_a_client_that_leaves_at_any_byte_leaves_nothing_behind(
    server: Gate, place: int, read: int, stream: bool, reset: bool, path: bytes
) -> None:
    started: list[Step] = [HEAD, *(chunked(event(word)) for word in WORDS), Act.HANG]
    server.upstream.play = lambda _: started
    request = asking(path, stream=stream)
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=LONG_S)
    connection.sendall(request[:place])
    if read and stream and place >= len(request) and path != b"/v1/files":
        connection.recv(read)
    hang_up(connection, reset=reset)
    eventually(lambda: is_idle(server))
    server.upstream.play = by_model
    reply = replies(talk(server.port, [asking(), GOODBYE]))[0]
    assert reply.json["choices"][0]["message"]["content"] == TEXT


@pytest.mark.check(28)
@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/messages", b"/api/chat"])
def test_a_client_that_does_not_read_stops_the_upstream_and_gets_everything_later(
    server: Gate, path: bytes
) -> None:
    size, count = 60_000, 800
    piece = chunked(event("x" * size))
    end = chunked(event(reason="stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"
    server.upstream.sent = 0
    server.upstream.play = lambda _: [HEAD, *[piece] * count, end]
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(LONG_S)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(asking(path, stream=True) + GOODBYE)
        # What the sockets' own buffers hold is the kernel's affair: some megabytes each.
        assert standstill(lambda: server.upstream.sent) < 20 * MEGABYTE
        got = b"".join(iter(lambda: connection.recv(MEGABYTE), b""))
    stream, _ = replies(got)
    assert stream.whole
    assert stream.body.count(b"x" * size) == count


def standstill(figure: Callable[[], int]) -> int:
    """What a figure has come to when it no longer grows."""
    last, since = 0, time.monotonic()
    deadline = since + LONG_S
    while time.monotonic() - since < 0.4 or not last:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        if (now := figure()) != last:
            last, since = now, time.monotonic()
    return last


def test_a_client_that_asks_without_end_and_does_not_read_is_read_no_further(server: Gate) -> None:
    request = b"GET /healthz HTTP/1.1\r\n%b\r\n\r\n" % HOST
    many = request * 20_000
    sent = 0
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.settimeout(1)
        connection.connect(("127.0.0.1", server.port))
        with contextlib.suppress(TimeoutError):
            while sent < 64 * MEGABYTE:
                sent += connection.send(many[sent % len(request) :][: MEGABYTE // 4])
        assert sent < 16 * MEGABYTE, "the kernel's buffers hold less"
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
    assert replies(talk(server.port, [GOODBYE]))[0].status == 200

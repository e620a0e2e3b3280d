"""The HTTP client, against a real upstream that misbehaves on demand, on both event loops."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import sys
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from modelway.config import UpstreamSettings
from modelway.dialects.openai_chat import decode_error
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    RequestTooLarge,
    ShuttingDown,
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelway.providers._connection import MAX_BUFFERED_BYTES, READ_BYTES, Connection
from modelway.providers._dial import AddressInfo, parse_url
from modelway.providers._inflate import PIECE_BYTES
from modelway.providers._status import MAX_RETRY_AFTER_S, error_for_status, read_retry_after
from modelway.providers.http import HTTPClient, Response, errors_of, raise_for_status
from modelway.testing.fake_upstream import END_OF_CHUNKS, End, FakeUpstream, closed_port, text_event
from tests.careful import careful_loops
from tests.polling import until

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost", "127.0.0.1")
QUICK = UpstreamSettings(connect_timeout_s=2, first_byte_timeout_s=0.3, idle_timeout_s=0.3)
UVLOOP = pytest.param(
    ("asyncio", {"use_uvloop": True}),
    marks=pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not exist for Windows"),
    id="uvloop",
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[pytest.param("asyncio", id="asyncio"), UVLOOP])
def anyio_backend(request: pytest.FixtureRequest) -> Iterator[object]:
    if request.param != "asyncio":
        yield request.param
        return
    with careful_loops() as new_loop:
        yield "asyncio", {"loop_factory": new_loop}


@asynccontextmanager
async def client_of(settings: UpstreamSettings = QUICK, **options: Any) -> AsyncIterator[HTTPClient]:
    async with aclosing(HTTPClient(settings, **options)) as client:
        yield client


async def post(client: HTTPClient, url: str, body: bytes = b"{}", **options: Any) -> Response:
    headers = {"content-type": "application/json"}
    return await client.request("POST", f"{url}/chat/completions", headers=headers, body=body, **options)


async def exchange(client: HTTPClient, url: str, body: bytes = b"{}", **options: Any) -> bytes:
    async with aclosing(await post(client, url, body, **options)) as response:
        return await response.body()


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


def sized(body: bytes, *headers: str) -> bytes:
    return http(body, f"content-length: {len(body)}", *headers)


# Good answers, in every framing.


@pytest.mark.parametrize(
    "steps",
    [
        [sized(b"hello")],
        [http(b"5\r\nhello\r\n0\r\n\r\n", "transfer-encoding: chunked")],
        [http(b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\ntrailer: 1\r\n\r\n", "transfer-encoding: chunked")],
        [http(b"hello"), End.CLOSE],
        [http(b"hel"), b"lo", End.CLOSE],
        [http(b"", status="100 Continue"), http(b"", "link: x", status="103 Early Hints"), sized(b"hello")],
        [sized(gzip.compress(b"hello"), "content-encoding: gzip")],
        [sized(gzip.compress(b"hel") + gzip.compress(b"lo"), "content-encoding: x-gzip")],
        [sized(zlib.compress(b"hello"), "content-encoding: deflate")],
        [sized(b"hello", "content-encoding: identity")],
    ],
)
async def test_a_body_is_read_in_every_framing(steps: list[Any]) -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(*steps)
        assert await exchange(client, upstream.url) == b"hello"


async def test_the_request_arrives_as_it_was_given() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(sized(b""))
        headers = {"authorization": "Bearer secret", "x-odd": "a\tb"}
        response = await client.request("POST", f"{upstream.url}/a%20b?c=d", headers=headers, body=b"\0{}")
        await response.aclose()
        received = upstream.requests[0]
        assert (received.method, received.path, received.body) == ("POST", "/v1/a%20b?c=d", b"\0{}")
        assert received.headers["host"] == f"127.0.0.1:{upstream.port}"
        assert received.headers["content-length"] == "3"
        assert received.headers["accept-encoding"] == "identity"
        assert received.headers["user-agent"].startswith("modelway/")
        assert received.headers["authorization"] == "Bearer secret"
        assert received.headers["x-odd"] == "a\tb"


async def test_headers_are_in_lower_case_and_repeated_ones_are_joined() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(sized(b"", "X-A: 1", "x-a: 2", "Content-Type: Text/HTML; charset=x"))
        async with aclosing(await post(client, upstream.url)) as response:
            assert response.headers["x-a"] == "1, 2"
            assert response.content_type == "text/html"


async def test_pieces_are_given_as_they_arrive() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        gate = asyncio.Event()
        upstream.stream(b"one", gate, b"two")
        async with aclosing(await post(client, upstream.url)) as response:
            assert await response.read() == b"one"
            gate.set()
            assert await response.read() == b"two"
            assert await response.read() == b""
            assert await response.read() == b""


async def test_ipv6_is_spoken() -> None:
    async with FakeUpstream("::1") as upstream, client_of() as client:
        assert await exchange(client, upstream.url)
        assert upstream.requests[0].headers["host"] == f"[::1]:{upstream.port}"


# The pool.


async def test_one_connection_serves_requests_one_after_another() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        for _ in range(5):
            await exchange(client, upstream.url)
        assert (upstream.connected, len(upstream.requests)) == (1, 5)


async def test_the_connection_used_last_is_taken_first() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        first, second = await post(client, upstream.url), await post(client, upstream.url)
        for response in (first, second):
            await response.body()
            await response.aclose()
        for _ in range(3):
            await exchange(client, upstream.url)
        assert upstream.connected == 2


async def test_parallel_answers_do_not_mix() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        for number in range(20):
            upstream.play(sized(b"answer %d" % number))

        async def ask() -> tuple[bytes, bytes]:
            number = len(upstream.requests)
            return b"answer %d" % number, await exchange(client, upstream.url)

        answers = await asyncio.gather(*(ask() for _ in range(20)))
        assert sorted(body for _, body in answers) == sorted(b"answer %d" % n for n in range(20))


@pytest.mark.parametrize(
    "answer",
    [
        sized(b"hello", "connection: close"),
        sized(b"hello") + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        sized(b"hello") + b"garbage",
    ],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(answer: bytes) -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(answer)
        upstream.play(sized(b"next"))
        assert await exchange(client, upstream.url) == b"hello"
        assert await exchange(client, upstream.url) == b"next"
        assert upstream.connected == 2


async def test_what_comes_while_a_connection_is_idle_spoils_it() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        later = asyncio.Event()
        upstream.play(sized(b"hello"), later, http(b"", "content-length: 0", status="408 Timeout"))
        upstream.play(sized(b"next"))
        assert await exchange(client, upstream.url) == b"hello"
        later.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert await exchange(client, upstream.url) == b"next"
        assert upstream.connected == 2


async def test_what_follows_an_answer_is_never_taken_for_a_part_of_it() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        later = asyncio.Event()
        upstream.play(http(b"", "content-length: 5"), b"he", b"llo", later, sized(b"evil") + sized(b"evil"))
        async with aclosing(await post(client, upstream.url)) as response:
            assert await response.read() + await response.read() == b"hello"
            later.set()
            for _ in range(5):
                await asyncio.sleep(0)
            assert await response.read() == b""


async def test_idle_connections_that_the_upstream_closed_are_replaced() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        await exchange(client, upstream.url)
        await upstream.drop_connections()
        assert await exchange(client, upstream.url)


async def test_a_kept_connection_that_closes_without_an_answer_is_replaced_once() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(sized(b"one"))
        upstream.reset()
        upstream.play(sized(b"two"))
        assert await exchange(client, upstream.url) == b"one"
        assert await exchange(client, upstream.url) == b"two"
        assert (upstream.connected, len(upstream.requests)) == (2, 3)


async def test_a_fresh_connection_that_closes_without_an_answer_is_an_error() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.reset()
        with pytest.raises(UpstreamUnreachable) as raised:
            await exchange(client, upstream.url)
        assert raised.value.sent
        assert len(upstream.requests) == 1


async def test_nothing_is_sent_twice_once_a_byte_has_come() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(sized(b"one"))
        upstream.play(b"HTTP/1.1 2", End.CLOSE)
        assert await exchange(client, upstream.url) == b"one"
        with pytest.raises(UpstreamProtocolError) as raised:
            await exchange(client, upstream.url)
        assert raised.value.code == "upstream_reset"
        assert len(upstream.requests) == 2


async def test_nothing_is_sent_twice_where_that_is_forbidden() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(sized(b"one"))
        upstream.reset()
        await exchange(client, upstream.url)
        with pytest.raises(UpstreamUnreachable):
            await exchange(client, upstream.url, resend=False)
        assert len(upstream.requests) == 2


async def test_an_answer_that_is_whole_but_for_its_framing_leaves_the_connection_usable() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        gate = asyncio.Event()
        upstream.stream(b"all", gate)
        response = await post(client, upstream.url)
        assert await response.read() == b"all"
        response.finish()
        await response.aclose()
        gate.set()
        await until(lambda: any(client._idle.values()))
        await exchange(client, upstream.url)
        assert upstream.connected == 1


async def test_an_answer_that_does_not_end_after_all_is_closed() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.stall("all")
        response = await post(client, upstream.url)
        await response.read()
        response.finish()
        async with asyncio.timeout(3):
            await upstream.hung_up.wait()


# Giving up.


async def test_closing_an_answer_under_way_ends_the_upstreams_work_at_once() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.stall("so", " far")
        response = await post(client, upstream.url)
        await response.read()
        await response.aclose()
        async with asyncio.timeout(1):
            await upstream.hung_up.wait()


async def test_cancelling_a_request_that_waits_closes_its_connection() -> None:
    async with FakeUpstream() as upstream, client_of(UpstreamSettings()) as client:
        upstream.be_silent()
        task = asyncio.create_task(post(client, upstream.url))
        await until(lambda: upstream.requests)
        task.cancel()
        async with asyncio.timeout(1):
            await upstream.hung_up.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_closing_the_client_closes_everything_and_may_be_repeated() -> None:
    async with FakeUpstream() as upstream:
        client = HTTPClient(QUICK)
        await exchange(client, upstream.url)
        upstream.stall("so far")
        response = await post(client, upstream.url)
        await response.read()
        await client.aclose()
        await client.aclose()
        with pytest.raises(UpstreamProtocolError):
            await response.read()
        await response.aclose()
        with pytest.raises(ShuttingDown):
            await exchange(client, upstream.url)
        await until(lambda: not upstream.connections, 1)


async def test_a_slow_reader_slows_the_upstream() -> None:
    size = 64 * 1024 * 1024
    async with FakeUpstream() as upstream, client_of(UpstreamSettings(max_response_bytes=size)) as client:
        piece = bytes(1024 * 1024)
        upstream.play(http(b"", f"content-length: {size}"), *[piece] * 64)
        async with aclosing(await post(client, upstream.url)) as response:
            await upstream.choked.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            received, largest = 0, 0
            while data := await response.read():
                received += len(data)
                largest = max(largest, len(data))
            assert received == size
            # One network read may come on top of what may be held.
            assert largest <= 2 * MAX_BUFFERED_BYTES


# Failures.


async def test_a_refused_connection_is_told_and_was_never_sent() -> None:
    async with client_of() as client:
        with pytest.raises(UpstreamUnreachable) as raised:
            await exchange(client, f"http://127.0.0.1:{closed_port()}/v1")
        assert raised.value.code == "upstream_unreachable"
        assert not raised.value.sent


async def test_a_name_without_address_is_told() -> None:
    async def resolve(host: str, port: int) -> Sequence[AddressInfo]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with client_of(resolve=resolve) as client:
        with pytest.raises(UpstreamUnreachable) as raised:
            await exchange(client, "http://nowhere.example/v1")
        assert raised.value.code == "upstream_dns"
        assert not raised.value.sent


async def test_a_connection_that_is_never_taken_times_out() -> None:
    async def resolve(host: str, port: int) -> Sequence[AddressInfo]:
        await asyncio.Event().wait()
        return []

    async with client_of(UpstreamSettings(connect_timeout_s=0.1), resolve=resolve) as client:
        with pytest.raises(UpstreamTimeout) as raised:
            await exchange(client, "http://slow.example/v1")
        assert not raised.value.sent


async def test_a_dead_address_leaves_time_for_the_next() -> None:
    async with FakeUpstream() as upstream:

        async def resolve(host: str, port: int) -> Sequence[AddressInfo]:
            kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [
                (socket.AF_INET6, *kind, ("::1", closed_port(), 0, 0)),
                (socket.AF_INET, *kind, ("127.0.0.1", upstream.port)),
            ]

        async with client_of(resolve=resolve) as client:
            assert await exchange(client, f"http://both.example:{upstream.port}/v1")


@pytest.mark.check(40)
@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "fe80::1", "::ffff:169.254.169.254"])
async def test_a_name_that_leads_to_a_link_local_address_is_refused(address: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[AddressInfo]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))]

    async with client_of(resolve=resolve) as client:
        with pytest.raises(ProviderNotConfigured) as raised:
            await exchange(client, "http://rebound.example/v1")
        assert raised.value.code == "base_url_not_allowed"


async def test_silence_before_the_answer_is_a_timeout() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.be_silent()
        with pytest.raises(UpstreamTimeout) as raised:
            await exchange(client, upstream.url)
        assert raised.value.code == "upstream_timeout"
        async with asyncio.timeout(1):
            await upstream.hung_up.wait()


async def test_the_limit_for_the_first_byte_may_be_given_with_a_request() -> None:
    async with FakeUpstream() as upstream, client_of(UpstreamSettings()) as client:
        upstream.be_silent()
        with pytest.raises(UpstreamTimeout):
            await exchange(client, upstream.url, first_byte_timeout_s=0.05)


async def test_silence_behind_the_head_is_a_timeout() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.stall()
        with pytest.raises(UpstreamTimeout) as raised:
            await exchange(client, upstream.url)
        assert raised.value.code == "upstream_timeout"


async def test_silence_inside_the_answer_is_a_stall() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.stall("so far")
        async with aclosing(await post(client, upstream.url)) as response:
            assert await response.read() == text_event("so far")
            with pytest.raises(UpstreamTimeout) as raised:
                await response.read()
        assert raised.value.code == "upstream_stalled"


async def test_an_answer_may_take_longer_than_the_limit_for_silence() -> None:
    settings = UpstreamSettings(first_byte_timeout_s=0.2, idle_timeout_s=0.2)
    async with FakeUpstream() as upstream, client_of(settings) as client:
        gates = [asyncio.Event() for _ in range(6)]
        upstream.stream(b"x", *gates[:1], b"x", *gates[1:2], b"x", *gates[2:3], b"x", *gates[3:4], b"x")
        loop = asyncio.get_running_loop()
        for number, gate in enumerate(gates):
            loop.call_later(0.1 * (number + 1), gate.set)
        assert await exchange(client, upstream.url) == b"xxxxx"


@pytest.mark.parametrize(
    "steps",
    [
        [http(b"hel", "content-length: 5"), End.CLOSE],
        [http(b"hel", "content-length: 5"), End.RESET],
        [http(b"5\r\nhel", "transfer-encoding: chunked"), End.CLOSE],
        [http(b"3\r\nhel\r\n", "transfer-encoding: chunked"), End.RESET],
        [http(b"hel"), End.RESET],
    ],
)
async def test_a_cut_answer_is_never_taken_for_a_whole_one(steps: list[Any]) -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(*steps)
        with pytest.raises(UpstreamProtocolError) as raised:
            await exchange(client, upstream.url)
        assert raised.value.code == "upstream_reset"


async def test_what_came_before_the_cut_is_still_given() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(http(b"hel", "content-length: 5"), End.CLOSE)
        async with aclosing(await post(client, upstream.url)) as response:
            assert await response.read() == b"hel"
            with pytest.raises(UpstreamProtocolError):
                await response.read()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nbad header: \0\r\n\r\n",
        sized(b"x", "content-encoding: br"),
        sized(b"not gzip", "content-encoding: gzip"),
    ],
)
async def test_what_is_not_http_is_malformed(answer: bytes) -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(answer)
        with pytest.raises(UpstreamProtocolError) as raised:
            await exchange(client, upstream.url)
        assert raised.value.code == "upstream_malformed"


async def test_an_answer_that_is_too_large_is_given_up() -> None:
    async with FakeUpstream() as upstream, client_of(UpstreamSettings(max_response_bytes=1000)) as client:
        upstream.play(sized(bytes(1001)))
        with pytest.raises(UpstreamProtocolError) as raised:
            await exchange(client, upstream.url)
        assert raised.value.code == "upstream_too_large"


@pytest.mark.check(19)
async def test_a_compressed_bomb_is_given_up_early() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.bomb()
        sizes: list[int] = []

        async def read_all(response: Response) -> None:
            while piece := await response.read():
                sizes.append(len(piece))

        async with aclosing(await post(client, upstream.url)) as response:
            with pytest.raises(UpstreamProtocolError) as raised:
                await read_all(response)
        assert raised.value.code == "upstream_too_large"
        assert max(sizes) <= PIECE_BYTES
        assert sum(sizes) <= 16 * 1024 * 1024


@pytest.mark.check(19)
@pytest.mark.parametrize(
    "flood",
    [
        [b"HTTP/1.1 200 OK\r\nx: ", *[b"a" * 65536] * 40],
        [b"HTTP/1.1 200 OK\r\n", *[b"x: y\r\n" * 10_000] * 40],
        [http(b"", status="100 Continue") * 2000] * 40,
        [http(b"3\r\nabc\r\n0\r\nx: ", "transfer-encoding: chunked"), *[b"a" * 65536] * 40],
    ],
    ids=["one header", "many headers", "interim replies", "trailer"],
)
async def test_endless_headers_are_given_up(flood: list[bytes]) -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(*flood)
        with pytest.raises(UpstreamProtocolError) as raised:
            await exchange(client, upstream.url)
        assert raised.value.code == "upstream_too_large"


@pytest.mark.check(42)
@pytest.mark.parametrize(
    ("name", "value"),
    [("x", "a\r\nb: c"), ("x", "a\nb"), ("x\r\ny", "a"), ("x", "\0"), ("x", "é"), ("", "a")],
)
async def test_a_header_that_would_split_the_request_is_refused(name: str, value: str) -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        with pytest.raises(ProviderNotConfigured) as raised:
            await client.request("GET", upstream.url, headers={name: value})
        assert value not in raised.value.explanation or value == "a"
        assert upstream.connected == 0


# TLS.


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    return context


async def test_tls_with_a_trusted_certificate_keeps_its_connection() -> None:
    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)
    async with FakeUpstream(tls=server_tls()) as upstream, client_of(tls=trust) as client:
        for _ in range(2):
            assert await exchange(client, upstream.url)
        assert upstream.connected == 1
        upstream.stall("so far")
        response = await post(client, upstream.url)
        await response.read()
        await response.aclose()
        async with asyncio.timeout(1):
            await upstream.hung_up.wait()


async def test_tls_with_an_unknown_certificate_is_refused_before_anything_is_sent() -> None:
    async with FakeUpstream(tls=server_tls()) as upstream, client_of() as client:
        with pytest.raises(UpstreamUnreachable) as raised:
            await exchange(client, upstream.url)
        assert raised.value.code == "upstream_tls"
        assert not raised.value.sent
        assert upstream.requests == []


async def test_tls_with_the_wrong_name_is_refused() -> None:
    async def resolve(host: str, port: int) -> Sequence[AddressInfo]:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)
    async with (
        FakeUpstream(tls=server_tls()) as upstream,
        client_of(tls=trust, resolve=resolve) as client,
    ):
        with pytest.raises(UpstreamUnreachable) as raised:
            await exchange(client, f"https://other.example:{upstream.port}/v1")
        assert raised.value.code == "upstream_tls"


# What a status means.


def error_of(status: int, message: str = "", code: str = "", **headers: str) -> GatewayError:
    body = b'{"error":{"message":"%b","code":"%b"}}' % (message.encode(), code.encode())
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_for_status(status, named, body, decode_error=decode_error, name="Acme")


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (302, UpstreamProtocolError, "upstream_redirect"),
        (307, UpstreamProtocolError, "upstream_redirect"),
        (400, InvalidRequest, "invalid_request"),
        (401, UpstreamRefusedCredential, "upstream_auth"),
        (402, UpstreamRefusedCredential, "upstream_auth"),
        (403, UpstreamRefusedCredential, "upstream_auth"),
        (404, ModelNotFound, "model_not_found"),
        (408, UpstreamTimeout, "upstream_timeout"),
        (413, RequestTooLarge, "request_too_large"),
        (418, UpstreamProtocolError, "upstream_malformed"),
        (422, InvalidRequest, "invalid_request"),
        (429, UpstreamRateLimited, "upstream_rate_limited"),
        (500, UpstreamFailed, "upstream_error"),
        (502, UpstreamFailed, "upstream_error"),
        (503, UpstreamOverloaded, "upstream_overloaded"),
        (504, UpstreamTimeout, "upstream_timeout"),
        (529, UpstreamOverloaded, "upstream_overloaded"),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[GatewayError], code: str) -> None:
    error = error_of(status, "because")
    assert type(error) is kind
    assert error.code == code
    assert "Acme" in error.message
    assert "because" in error.message or code == "upstream_redirect"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("This model's maximum context length is 8192 tokens", ""),
        ("too long", "context_length_exceeded"),
        ("too long", "exceed_context_size_error"),
    ],
)
def test_too_long_a_conversation_is_told_apart(message: str, code: str) -> None:
    error = error_of(400, message, code)
    assert type(error) is ContextTooLong
    assert not error.failover


def test_an_unknown_model_permits_the_next_candidate() -> None:
    assert error_of(404).failover


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": " 0 "}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "99999999999"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Wed, 99 Foo 2026 00:00:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers) == seconds


def test_retry_after_may_be_a_date() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    seconds = read_retry_after({"retry-after": when})
    assert seconds is not None
    assert 25 < seconds <= 30


async def test_the_wait_that_an_upstream_asks_for_is_told() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.fail(429, "slow down", retry_after="7")
        async with aclosing(await post(client, upstream.url)) as response:
            with pytest.raises(UpstreamRateLimited) as raised:
                await raise_for_status(response, errors_of("Acme"))
        assert raised.value.retry_after == 7


@pytest.mark.check(20)
async def test_a_redirect_is_not_followed() -> None:
    async with FakeUpstream() as other, FakeUpstream() as upstream, client_of() as client:
        upstream.redirect(other.url)
        async with aclosing(await post(client, upstream.url)) as response:
            with pytest.raises(UpstreamProtocolError) as raised:
                await raise_for_status(response, errors_of("Acme"))
        assert raised.value.code == "upstream_redirect"
        assert other.connected == 0


async def test_an_endless_error_body_is_not_read_to_its_end() -> None:
    async with FakeUpstream() as upstream, client_of() as client:
        upstream.play(http(b"", status="500 Oh"), *[b"no " * 100_000] * 50, asyncio.Event())
        async with aclosing(await post(client, upstream.url)) as response:
            with pytest.raises(UpstreamFailed) as raised:
                await raise_for_status(response, errors_of("Acme"))
        assert len(raised.value.message) < 1000


# Addresses.


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("https://api.example/v1", "api.example", "/v1"),
        ("https://API.example:443/v1?a=b", "api.example", "/v1?a=b"),
        ("http://api.example", "api.example", "/"),
        ("http://api.example:8080/", "api.example:8080", "/"),
        ("http://[::1]:8080/v1", "[::1]:8080", "/v1"),
        ("https://bücher.example/v1", "xn--bcher-kva.example", "/v1"),
    ],
)
def test_an_address_is_read(url: str, authority: str, target: str) -> None:
    origin, path = parse_url(url)
    assert (origin.authority, path) == (authority, target)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example/v1",
        "file:///etc/passwd",
        "ftp://api.example",
        "http://",
        "http:///v1",
        "http://user@api.example/v1",
        "http://user:hunter2@api.example/v1",
        "http://api.example:port/v1",
        "http://api.example:99999/v1",
        "http://a..b/v1",
        f"http://{'a' * 64}.example/v1",
        "http://[::1/v1",
        "http://api.example/a b",
        "http://api.example/é",
    ],
)
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ProviderNotConfigured) as raised:
        parse_url(url)
    assert "hunter2" not in raised.value.explanation


# Whatever comes, cut anywhere.


class WireTransport(asyncio.Transport):
    """Takes what is written and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: Any) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def receive(pieces: list[bytes]) -> tuple[int, bytes, bool]:
    """What the connection makes of these reads and the end behind them."""
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(READ_BYTES))
    connection = Connection("upstream", loop, buffer, on_settled=lambda _: None, on_lost=lambda _: None)
    transport = WireTransport()
    connection.connection_made(transport)
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    for piece in pieces:
        if not transport.closed:
            connection.get_buffer(-1)[: len(piece)] = piece
            connection.buffer_updated(len(piece))
    reusable = connection.reusable
    connection.connection_lost(None)
    assert await connection.wait_for_head(loop.time() + 1)
    body = []
    while data := await connection.read(loop.time() + 1):
        body.append(data)
    return connection.status, b"".join(body), reusable


WHOLE = [
    sized(b"hello", "x: y"),
    http(b"2\r\nhe\r\n3\r\nllo\r\n" + END_OF_CHUNKS, "transfer-encoding: chunked"),
    http(b"", status="100 Continue") + sized(b"hello"),
]


@given(answer=st.sampled_from(WHOLE), cuts=st.lists(st.integers(0, 100), max_size=12))
def test_an_answer_may_be_cut_anywhere(answer: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(answer), *(cut % len(answer) for cut in cuts)})
    pieces = [answer[start:end] for start, end in pairwise(places)]
    assert asyncio.run(receive(pieces)) == (200, b"hello", True)


FRAGMENTS = st.sampled_from(
    [
        *WHOLE,
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"\n",
        b"content-length: 3\r\n",
        b"transfer-encoding: chunked\r\n",
        b"5\r\n",
        b"-1\r\n",
        b"0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"HTTP/1.1 204 No\r\n\r\n",
        b"abc",
        b"\0",
        b":",
    ]
)


@given(pieces=st.lists(st.one_of(FRAGMENTS, st.binary(max_size=20)), max_size=10))
def test_whatever_comes_is_an_answer_or_an_error_of_ours(pieces: list[bytes]) -> None:
    async def attempt() -> None:
        try:
            status, _, _ = await receive(pieces)
        except UpstreamError:
            return
        assert 200 <= status <= 999

    asyncio.run(attempt())

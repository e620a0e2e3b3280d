"""Requests that HTTP or the interface forbid, byte for byte: each is answered in OpenAI's shape."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from modelway.config import ServerSettings
from modelway.server.protocol import Protocol
from modelway.types import Finish, TextDelta
from tests.polling import until
from tests.scripted import Scripted, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
BODY = b'{"messages":[{"role":"user","content":"hi"}]}'
HOST = b"Host: localhost\r\nContent-Type: application/json\r\n"


def post(*, head: bytes = b"", body: bytes = BODY, path: bytes = b"/v1/chat/completions") -> bytes:
    length = b"" if b"ncoding" in head else b"Content-Length: %d\r\n" % len(body)
    return b"POST %b HTTP/1.1\r\n%b%b%b\r\n%b" % (path, HOST, head, length, body)


def get(path: bytes, head: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path, HOST, head)


class Wire:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body (unchunked)."""
        async with asyncio.timeout(30):
            status, headers = await self.head()
            if "content-length" in headers:
                body = await self._reader.readexactly(int(headers["content-length"]))
            else:
                body = b"".join([piece async for piece in self.pieces()])
        return status, headers, body

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status, and headers in lower case."""
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split()[1]), headers

    async def error(self) -> tuple[int, str]:
        """Status and code of a reply that must be a whole error."""
        status, headers, body = await self.reply()
        error = json.loads(body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert len(error["message"]) < 500
        assert headers["x-request-id"].startswith("req_")
        assert headers["content-type"] == "application/json"
        return status, error["code"]

    async def pieces(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()

    async def closed(self) -> bool:
        """Whether the server ends the connection without another byte."""
        async with asyncio.timeout(30):
            return await self._reader.read() == b""


@asynccontextmanager
async def wire(address: str, data: bytes) -> AsyncIterator[Wire]:
    """A connection on which these bytes have been sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
    try:
        writer.write(data)
        yield Wire(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


CHUNKED = b"Transfer-Encoding: chunked\r\n"
ONE_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.check(27)
@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"BREW /v1/models HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        get(b"http://localhost"),
        get(b"/v1/models/\xc3\xbc"),
        post().replace(b"\r\n", b"\n"),
        post(head=b"X-A : b\r\n"),
        post(head=b"X-A: \0\r\n"),
        post(head=b"Content-Length: 4\r\n"),
        post(head=b"Content-Length: 4\r\n" + CHUNKED, body=ONE_CHUNK),
        post(head=b"Transfer-Encoding: xchunked\r\n", body=ONE_CHUNK),
        post(head=CHUNKED, body=b"zz\r\n"),
        post(head=CHUNKED, body=b"fffffffffffffffff\r\n"),
    ],
)
async def test_what_is_not_http_is_told_so_and_the_connection_closed(tmp_path: Path, data: bytes) -> None:
    local = Scripted("Local")
    async with serving(gateway_of([local], tmp_path)) as address, wire(address, data) as connection:
        assert await connection.error() == (400, "invalid_http")
        assert await connection.closed()
    assert not local.requests


async def test_garbage_behind_a_request_does_not_cut_its_answer(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    local = Scripted("Local", [TextDelta(text="a"), go_on, *says("b")])
    body = BODY[:-1] + b',"stream":true}'
    async with (
        serving(gateway_of([local], tmp_path)) as address,
        wire(address, post(body=body) + b"no request\r\n\r\n") as connection,
    ):
        connection.writer.write(b"more of it\r\n\r\n")
        await until(lambda: local.requests)
        go_on.set()
        status, _, stream = await connection.reply()
        assert (status, stream[-14:]) == (200, b"data: [DONE]\n\n")
        assert await connection.closed()


@pytest.mark.check(27)
@pytest.mark.parametrize("split", [False, True])
async def test_a_head_without_end_is_refused(tmp_path: Path, split: bool) -> None:
    start = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    data = start + b"".join(b"X-%d: y\r\n" % number for number in range(100_000))
    async with (
        serving(gateway_of([Scripted("Local")], tmp_path)) as address,
        wire(address, data[:40] if split else data + b"\r\n") as connection,
    ):
        if split:
            connection.writer.write(data[40:])
        assert await connection.error() == (413, "request_too_large")


async def test_trailers_are_not_headers(tmp_path: Path) -> None:
    local = Scripted("Local")
    trailers = ONE_CHUNK[:-2] + b"x-modelway-provider: Nobody\r\nhost: evil.example\r\n\r\n"
    async with (
        serving(gateway_of([local], tmp_path)) as address,
        wire(address, post(head=CHUNKED, body=trailers) + get(b"/healthz")) as connection,
    ):
        assert (await connection.reply())[0] == 200
        assert (await connection.reply())[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_offer_to_upgrade_does_not_lose_the_body(tmp_path: Path, chunked: bool) -> None:
    # Java's client and `curl --http2` offer this with every request that is not encrypted.
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"
    local = Scripted("Local")
    request = post(head=offer + CHUNKED, body=ONE_CHUNK) if chunked else post(head=offer)
    async with (
        serving(gateway_of([local], tmp_path)) as address,
        wire(address, request[:-20]) as connection,
        wire(address, get(b"/healthz")) as other,
    ):
        # A reply on another connection shows that the server has read the first part by now.
        await other.reply()
        connection.writer.write(request[-20:] + get(b"/healthz"))
        assert (await connection.reply())[0] == 200
        assert json.loads((await connection.reply())[2])["status"] == "ok"
        connection.writer.write(request + get(b"/v1/models", offer) + get(b"/healthz"))
        assert (await connection.reply())[0] == 200
        assert json.loads((await connection.reply())[2])["object"] == "list"
        assert json.loads((await connection.reply())[2])["status"] == "ok"


async def test_a_client_that_pipelined_and_went_away_ends_the_upstream_call(tmp_path: Path) -> None:
    silent = Scripted("Silent", [asyncio.Event()])
    async with serving(gateway_of([silent], tmp_path)) as address:
        async with wire(address, post() + get(b"/healthz")):
            await until(lambda: silent.requests)
        await until(lambda: silent.closed, 20)


@pytest.mark.check(23)
async def test_a_body_above_the_limit_is_refused_however_it_comes(tmp_path: Path) -> None:
    local = Scripted("Local")
    settings = ServerSettings(port=0, max_body_bytes=len(BODY) - 1)
    fork = b"/v1/conversations/c/fork"
    async with serving(gateway_of([local], tmp_path), settings=settings) as address:
        for request in (
            post(),
            post(head=CHUNKED, body=ONE_CHUNK),
            post(path=fork),
            post(path=fork, head=CHUNKED, body=ONE_CHUNK),
        ):
            async with wire(address, request + get(b"/healthz")) as connection:
                assert await connection.error() == (413, "request_too_large")
                assert (await connection.reply())[0] == 200
    assert not local.requests


async def test_a_client_that_goes_away_in_its_body_is_no_bug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "modelway.request")
    async with serving(gateway_of([Scripted("Local")], tmp_path)) as address:
        for path in (b"/v1/chat/completions", b"/v1/conversations/c/fork"):
            for part in (b"", b"5\r\nabc"):
                async with wire(address, post(head=CHUNKED, body=part, path=path)) as connection:
                    # A reply on another connection shows that the server has read the first by now.
                    async with wire(address, get(b"/healthz")) as other:
                        await other.reply()
                    connection.writer.transport.abort()
    records = [json.loads(record.message) for record in caplog.records if record.name == "modelway.request"]
    assert [record["code"] for record in records if "code" in record] == ["client_closed"] * 4
    assert "Traceback" not in caplog.text


@pytest.mark.check(25)
@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (post(path=b"/v1/chat/completions?provider=Local&provider=Other"), "provider"),
        (post(path=b"/v1/chat/completions?conversation_id=a&conversation_id=b"), "conversation_id"),
        (post(head=b"x-modelway-provider: Local\r\nx-modelway-provider: Other\r\n"), "provider"),
        (post(body=BODY[:-1] + b',"model":"' + b"m" * 1000 + b'"}'), "model"),
        (get(b"/v1/conversations?limit=" + b"9" * 5000), "limit"),
    ],
)
async def test_what_is_ambiguous_or_out_of_bounds_is_refused(
    tmp_path: Path, request_: bytes, param: str
) -> None:
    providers = [Scripted("Local"), Scripted("Other")]
    async with serving(gateway_of(providers, tmp_path)) as address, wire(address, request_) as connection:
        status, _, body = await connection.reply()
    assert (status, json.loads(body)["error"]["param"]) == (400, param)


@pytest.mark.check(24)
@pytest.mark.parametrize("depth", [300, 600, 900, *range(940, 1000, 5)])
async def test_nesting_is_refused_before_it_can_do_harm(tmp_path: Path, depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    tools = b'[{"type":"function","function":{"name":"f","parameters":{"a":%b}}}]' % deep
    local = Scripted("Local")
    async with serving(gateway_of([local], tmp_path)) as address:
        for field in (b'"x":' + deep, b'"tools":' + tools):
            body = BODY[:-1] + b',"conversation_id":"c",' + field + b"}"
            async with wire(address, post(body=body)) as connection:
                assert await connection.error() == (400, "invalid_json")
        async with wire(address, get(b"/v1/conversations")) as connection:
            assert json.loads((await connection.reply())[2])["data"] == []
    assert not local.requests


async def test_models_without_a_name_are_not_listed(tmp_path: Path) -> None:
    nameless = Scripted("Nameless", default_model="")
    async with (
        serving(gateway_of([Scripted("Local"), nameless], tmp_path)) as address,
        wire(address, get(b"/v1/models")) as connection,
    ):
        listed = json.loads((await connection.reply())[2])["data"]
    assert [model["id"] for model in listed] == ["local-1", "Local/local-1"]


HASTY = ServerSettings(port=0, head_timeout_s=0.2, body_timeout_s=0.4)


@pytest.mark.check(22)
@pytest.mark.parametrize("sent", [b"POST /v1/chat/compl", post()[:-10]])
async def test_a_client_that_is_too_slow_to_send_its_request_is_told(tmp_path: Path, sent: bytes) -> None:
    async with serving(gateway_of([Scripted("Local")], tmp_path), settings=HASTY) as address:
        async with wire(address, sent) as connection:
            assert await connection.error() == (408, "request_timeout")
            assert await connection.closed()
        async with wire(address, get(b"/healthz")) as connection:
            assert (await connection.reply())[0] == 200


async def test_a_slow_client_is_told_in_the_format_of_the_address(tmp_path: Path) -> None:
    async with serving(gateway_of([Scripted("Local")], tmp_path), settings=HASTY) as address:
        for path, shape in ((b"/v1/messages", dict), (b"/api/chat", str)):
            async with wire(address, post(path=path)[:-10]) as connection:
                status, _, body = await connection.reply()
            assert status == 408
            assert isinstance(json.loads(body)["error"], shape)


@pytest.mark.check(22)
async def test_drops_of_a_body_do_not_buy_time(tmp_path: Path) -> None:
    async with (
        serving(gateway_of([Scripted("Local")], tmp_path), settings=HASTY) as address,
        wire(address, post()[:-30]) as connection,
    ):
        dripping = asyncio.create_task(drip(connection))
        assert await connection.error() == (408, "request_timeout")
        dripping.cancel()


async def drip(connection: Wire) -> None:
    while True:
        await asyncio.sleep(0.05)
        connection.writer.write(b" ")


async def test_a_client_that_says_nothing_is_hung_up_on(tmp_path: Path) -> None:
    async with (
        serving(gateway_of([Scripted("Local")], tmp_path), settings=HASTY) as address,
        wire(address, b"") as connection,
    ):
        assert await connection.closed()


@pytest.mark.parametrize("first", [b"", get(b"/healthz")])
async def test_an_empty_line_is_no_request_and_buys_no_time(tmp_path: Path, first: bytes) -> None:
    config = uvicorn.Config(healthy, log_config=None, timeout_keep_alive=1, lifespan="off")
    config.load()
    kind, state, loop = Protocol.waiting(0.5, 0.5, 0.5), ServerState(), asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: kind(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        if first:
            writer.write(first)
            await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\r\n")
        async with asyncio.timeout(10):
            await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()


async def healthy(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def test_a_long_answer_is_no_slow_request(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    slow = Scripted("Slow", [TextDelta(text="a"), go_on, Finish()])
    async with (
        serving(gateway_of([slow], tmp_path), settings=HASTY) as address,
        wire(address, post(body=BODY[:-1] + b',"stream":true}')) as connection,
    ):
        # A second request, half of it, waits behind the answer.
        connection.writer.write(b"GET /healthz HTT")
        asyncio.get_running_loop().call_later(0.6, go_on.set)
        status, _, stream = await connection.reply()
        assert (status, stream.endswith(b"data: [DONE]\n\n")) == (200, True)
        connection.writer.write(get(b"/healthz")[len(b"GET /healthz HTT") :])
        assert (await connection.reply())[0] == 200


@pytest.mark.check(28)
async def test_a_client_that_does_not_read_is_hung_up_on_and_a_slow_one_is_not(tmp_path: Path) -> None:
    much = [TextDelta(text="x" * 500_000) for _ in range(40)]
    settings = ServerSettings(port=0, write_timeout_s=0.3)
    stuck, slow = Scripted("Stuck", [*much, Finish()]), Scripted("Slow", [*much, Finish()])
    stream = BODY[:-1] + b',"stream":true,"provider":"%b"}'
    async with serving(gateway_of([stuck, slow], tmp_path), settings=settings) as address:
        async with wire(address, post(body=stream % b"Stuck")):
            await until(lambda: stuck.closed, 20)
        async with wire(address, post(body=stream % b"Slow")) as connection:
            pieces = 0
            await connection.head()
            async for piece in connection.pieces():
                pieces += len(piece)
                await asyncio.sleep(0.02)
    assert pieces > 40 * 500_000
    assert (stuck.closed, slow.closed) == (1, 1)

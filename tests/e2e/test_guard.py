"""Requests that no program of the user's sent are refused before anything is executed."""

import asyncio
import json
from pathlib import Path

import pytest

from modelway.config import ServerSettings
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
BODY = b'{"messages":[{"role":"user","content":"hi"}]}'


async def raw(address: str, head: str, body: bytes = BODY, *, method: str = "POST") -> tuple[int, str, bytes]:
    """Send a request exactly as given; status, headers in lower case, body."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection("127.0.0.1" if host == "localhost" else host, int(port))
    start = f"{method} /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
    writer.write((start + head + "\r\nConnection: close\r\n\r\n").encode("latin-1") + body)
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    head_bytes, _, rest = reply.partition(b"\r\n\r\n")
    return int(reply.split(b" ", 2)[1]), head_bytes.decode("latin-1").lower(), rest


@pytest.mark.check(29)
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1337", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:5", 200),
        ("my.name:1", 200),
        ("evil.example", 421),
        ("localhost.", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.nip.example", 421),
        ("", 400),
        (":1337", 400),
        ("x/?#", 400),
        ("localhost@evil", 400),
        ("localhost:99999999", 400),
        ("localhost\r\nHost: localhost", 400),
    ],
)
async def test_only_known_hosts_are_answered(tmp_path: Path, host: str, status: int) -> None:
    local = Scripted("Local")
    settings = ServerSettings(port=0, allowed_hosts=("my.name",))
    async with serving(gateway_of([local], tmp_path), settings=settings) as address:
        found, _, body = await raw(address, f"Host: {host}\r\nContent-Type: application/json")
    assert found == status
    assert len(local.requests) == (status == 200)
    if status != 200:
        assert json.loads(body)["error"]["code"] == "invalid_host"


@pytest.mark.check(30, 31)
@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Type: application/json; charset=utf-8", 200),
        ("Origin: http://localhost:1337", 200),
        ("Origin: https://page.example", 200),
        ("Origin: https://evil.example", 403),
        ("Origin: null", 403),
        ("Origin: http://localhost:1338", 403),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: same-origin", 200),
        ("Content-Type: text/plain", 415),
        ("Content-Type: application/x-www-form-urlencoded", 415),
    ],
)
async def test_foreign_pages_and_forms_are_refused(tmp_path: Path, head: str, status: int) -> None:
    local = Scripted("Local")
    settings = ServerSettings(port=0, allowed_origins=("https://page.example",))
    async with serving(gateway_of([local], tmp_path), settings=settings) as address:
        found, headers, _ = await raw(address, f"Host: localhost:1337\r\n{head}")
    assert found == status
    assert len(local.requests) == (status == 200)
    assert ("access-control-allow-origin: https://page.example" in headers) == ("page.example" in head)
    assert "evil.example" not in headers


@pytest.mark.check(30)
async def test_a_preflight_is_answered_for_configured_origins_only(tmp_path: Path) -> None:
    local = Scripted("Local")
    settings = ServerSettings(port=0, allowed_origins=("https://page.example",))
    ask = "Host: localhost\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-a"
    async with serving(gateway_of([local], tmp_path), settings=settings) as address:
        status, headers, _ = await raw(
            address, f"{ask}\r\nOrigin: https://page.example", b"", method="OPTIONS"
        )
        refused, other, _ = await raw(
            address, f"{ask}\r\nOrigin: https://evil.example", b"", method="OPTIONS"
        )
    assert status == 204
    assert "access-control-allow-headers: x-a" in headers
    assert refused == 403
    assert "access-control" not in other


async def test_localhost_is_both_loopback_addresses(tmp_path: Path) -> None:
    async with serving(gateway_of([Scripted("Local")], tmp_path)) as address:
        port = address.rpartition(":")[2]
        for host in ("127.0.0.1", "::1"):
            status, _, _ = await raw(f"http://{host}:{port}", "Host: localhost")
            assert status == 200

"""The whole path with keys and tokens that upstreams repeat: nothing that leaves, or stays, tells one.

The credentials may be in the header that carries them to their upstream, and where sign-ins are kept.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest

from modelway.config import UpstreamSettings
from modelway.providers.http import HTTPClient
from modelway.testing.fake_upstream import FakeUpstream
from tests.canary import CANARY, key, lines_that_tell
from tests.e2e.running import Running
from tests.fake_m365 import CLIENT_ID, TENANT, FakeM365, access, frame, refresh

pytestmark = pytest.mark.anyio

CALLER = key("sk-caller")
UPSTREAM = key("sk-upstream")
PATHS = (
    "/v1/models",
    "/v1/providers",
    "/v1/conversations",
    "/v1/conversations/c",
    "/v1/figures",
    "/v1/usage",
    "/metrics",
    "/openapi.json",
    "/nowhere",
)


@pytest.fixture
def server(upstream: FakeUpstream, m365: FakeM365, tmp_path: Path) -> Iterator[Running]:
    m365.signed_in(tmp_path)
    config = f"""
        provider = "Other"
        [auth.api_keys]
        ada = "{hashlib.sha256(CALLER.encode()).hexdigest()}"
        [log]
        level = "debug"
        [upstream]
        retries = 0
        [providers.Other]
        base_url = "{upstream.url}"
        api_key_env = "OTHER_KEY"
        default_model = "m"
        [copilot]
        transport = "workiq"
        client_id = "{CLIENT_ID}"
        tenant = "{TENANT}"
        base_url = "{m365.base}"
        authority = "{m365.root}"
    """
    environ = {"OTHER_KEY": UPSTREAM, "COPILOT_GITHUB_TOKEN": key("gho"), "MODELWAY_DEBUG": "1"}
    with Running(tmp_path, config=config, environ=environ) as running:
        yield running


class Heard:
    """Asks as the caller, and keeps all that comes back, headers included."""

    def __init__(self, server: Running, http: HTTPClient) -> None:
        self._server = server
        self._http = http
        self.replies: list[str] = []

    async def ask(self, provider: str, *, stream: bool, credential: str = CALLER) -> str:
        body = {
            "provider": provider,
            "messages": [{"role": "user", "content": "Hello"}],
            "conversation_id": "c",
            "stream": stream,
        }
        return await self._get("POST", "/v1/chat/completions", json.dumps(body).encode(), credential)

    async def look(self, path: str) -> str:
        return await self._get("GET", path, b"", CALLER)

    async def _get(self, method: str, path: str, body: bytes, credential: str) -> str:
        headers = {"content-type": "application/json", "authorization": f"Bearer {credential}"}
        response = await self._http.request(method, self._server.address + path, headers=headers, body=body)
        async with aclosing(response):
            text = (await response.body()).decode()
            head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        self.replies.append(f"{response.status}\n{head}\n\n{text}")
        return text


@pytest.mark.check(37)
async def test_no_credential_is_told_kept_or_logged_although_upstreams_repeat_them(
    server: Running, upstream: FakeUpstream, m365: FakeM365, tmp_path: Path
) -> None:
    async with aclosing(HTTPClient(UpstreamSettings())) as http:
        heard = Heard(server, http)
        for stream in (True, False):
            await all_of_the_other(heard, upstream, stream=stream)
            await all_of_copilot(heard, m365, stream=stream)
            await heard.ask("Other", stream=stream, credential=key("sk-strangers"))
        for path in PATHS:
            await heard.look(path)
    server.stop()
    assert sum("bad key ***" in reply for reply in heard.replies) >= 6
    assert lines_that_tell(heard.replies) == []
    assert lines_that_tell(server.log) == []
    assert lines_that_tell(columns_of(tmp_path / "conversations.sqlite3")) == []
    for fake in (upstream, m365):
        assert lines_that_tell(request.path for request in fake.requests) == []
    told = [path for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert [path.parent.name for path in told] == ["credentials"]


async def all_of_the_other(heard: Heard, upstream: FakeUpstream, *, stream: bool) -> None:
    """An answer, and every way in which an upstream can repeat our key to it."""
    upstream.reply("Hello")
    assert "Hello" in await heard.ask("Other", stream=stream)
    for status in (400, 401, 403, 404, 429, 500):
        upstream.fail(status, f"bad key {UPSTREAM}", "bad", x_key=UPSTREAM)
        assert "error" in await heard.ask("Other", stream=stream)
    upstream.reply_with(f"bad key {UPSTREAM}".encode(), kind="text/plain", status=502)
    await heard.ask("Other", stream=stream)
    upstream.report_error(f"bad key {UPSTREAM}", "oops", "Hel")
    await heard.ask("Other", stream=stream)


async def all_of_copilot(heard: Heard, m365: FakeM365, *, stream: bool) -> None:
    """The same with Microsoft, whose tokens change."""
    m365.reply("Hello")
    assert "Hello" in await heard.ask("Copilot", stream=stream)
    for status in (400, 403, 500):
        m365.fail_with(status, error(f"bad key {m365.access_token}"))
        assert "error" in await heard.ask("Copilot", stream=stream)
    inside = json.dumps(error(f"bad key {m365.access_token}")).encode()
    m365.show(frame(("a", "Hel")), b"data: " + inside + b"\n\n")
    await heard.ask("Copilot", stream=stream)
    m365.refuses_tokens = True
    await heard.ask("Copilot", stream=stream)
    m365.refuses_tokens = False


def error(message: str) -> dict[str, Any]:
    return {"error": {"code": "Forbidden", "message": message}}


def columns_of(path: Path) -> Iterator[str]:
    """Every value of every table."""
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert "turns" in names
        for name in names:
            for row in database.execute(f'SELECT * FROM "{name}"'):
                yield " ".join(map(repr, row))


def test_the_canary_is_in_what_is_looked_for() -> None:
    for secret in (CALLER, UPSTREAM, access(1), refresh(1)):
        assert lines_that_tell([secret]) == [secret]

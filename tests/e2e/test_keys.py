"""Keys at a running server: who is let in, where, and how soon a change is known."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import anyio
import pytest
from msgspec import Struct

from modelway.auth import Auth, hash_key
from modelway.config import ServerSettings, Settings
from modelway.conversations import Conversations
from modelway.gateway import Gateway
from modelway.server.app import OPEN_PATHS, Application
from modelway.server.run import KeyNeeded, run
from modelway.telemetry import Telemetry
from modelway.types import Rules
from tests.scripted import Scripted
from tests.serving import gateway_of, quick_settings, serving

pytestmark = pytest.mark.anyio

ALICE, BOB = "sk-fake-alice", "sk-fake-bob"
CONFIGURED = {"alice": hash_key(ALICE), "bob": hash_key(BOB)}
SOON_S = 5.0


class Reply(Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def fetch(address: str, method: str, path: str, key: str = "", body: Any = None) -> Reply:
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"} if key else {}
    written = None if body is None else json.dumps(body).encode()
    request = Request(
        f"{address}{path}", written, {"content-type": "application/json", **headers}, method=method
    )
    try:
        with urlopen(request) as reply:
            return Reply(
                reply.status, {name.lower(): text for name, text in reply.headers.items()}, reply.read()
            )
    except HTTPError as error:
        with error:
            found = {name.lower(): text for name, text in error.headers.items()}
            return Reply(error.code, found, error.read())


async def ask(*arguments: Any) -> Reply:
    return await anyio.to_thread.run_sync(fetch, *arguments)


async def until(address: str, key: str, good: Callable[[Reply], bool]) -> Reply:
    """The first reply that is as wanted; the last one where it does not come soon."""
    deadline = time.monotonic() + SOON_S
    while True:
        reply = await ask(address, "GET", "/v1/models", key)
        if good(reply) or time.monotonic() > deadline:
            return reply


@asynccontextmanager
async def another_process(folder: Path) -> AsyncIterator[Conversations]:
    """The same database, opened as the command line opens it."""
    store = Conversations.open(folder / "conversations.sqlite3", quick_settings().conversations)
    try:
        yield store
    finally:
        await store.aclose()


def every_route(gateway: Gateway) -> Iterator[tuple[str, str]]:
    """Method and address of everything that the server answers, from the router itself."""
    application = Application(gateway, Auth({}), Telemetry(), ServerSettings())
    for route in application.routes:
        path = re.sub(r"\{[^}]+\}", "x1", route.path)
        for method in route.methods or ():
            if method != "HEAD":
                yield method, path


@pytest.mark.parametrize("key", ["", ALICE + "x", ALICE[:-1], ALICE.upper(), hash_key(ALICE)])
@pytest.mark.check(33)
async def test_every_route_asks_for_a_key(tmp_path: Path, key: str) -> None:
    local = Scripted("Local")
    gateway = gateway_of([local], tmp_path)
    asked = 0
    async with serving(gateway, Auth(CONFIGURED)) as address:
        for method, path in every_route(gateway):
            reply = await ask(address, method, path, key, {} if method == "POST" else None)
            if path in OPEN_PATHS:
                assert reply.status == 200
                continue
            asked += 1
            assert reply.status == 401, path
            assert reply.headers["www-authenticate"] == "Bearer"
            assert b"API key" in reply.body
            assert ALICE.encode() not in reply.body
    assert asked > 30
    assert not local.requests


@pytest.mark.check(33)
async def test_a_key_in_the_address_is_none(tmp_path: Path) -> None:
    async with serving(gateway_of([Scripted("Local")], tmp_path), Auth(CONFIGURED)) as address:
        for query in (f"?key={ALICE}", f"?api_key={ALICE}", f"?access_token={ALICE}"):
            assert (await ask(address, "GET", f"/v1/models{query}")).status == 401


async def test_a_running_server_knows_a_new_key_and_a_revoked_one_within_a_second(tmp_path: Path) -> None:
    async with (
        serving(gateway_of([Scripted("Local")], tmp_path)) as address,
        another_process(tmp_path) as other,
    ):
        assert (await ask(address, "GET", "/v1/models")).status == 200
        made_at = time.monotonic()
        secret, _ = await other.callers.create("carol", Rules())
        assert (await until(address, "", lambda reply: reply.status == 401)).status == 401
        assert time.monotonic() - made_at < SOON_S
        assert (await ask(address, "GET", "/v1/models", secret)).status == 200
        await other.callers.change("carol", Rules(providers=("Nobody",)), expires_at=None)
        assert (await until(address, secret, lambda reply: not reply.json["data"])).json["data"] == []
        await other.callers.revoke("carol")
        refused = await until(address, secret, lambda reply: reply.status == 401)
        assert "revoked" in refused.json["error"]["message"]
        assert (await ask(address, "GET", "/v1/models")).status == 401
        await other.callers.revoke("carol", forget=True)
        assert (await until(address, "", lambda reply: reply.status == 200)).status == 200


async def test_a_store_that_cannot_be_read_for_a_while_is_told_of_once_and_then_followed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "conversations.sqlite3"
    async with serving(gateway_of([Scripted("Local")], tmp_path)) as address:
        assert (await ask(address, "GET", "/v1/models")).status == 200
        path.rename(path.with_suffix(".away"))
        while "not seen" not in caplog.text:
            await asyncio.sleep(0.01)
        path.with_suffix(".away").rename(path)
        async with another_process(tmp_path) as other:
            await other.callers.create("carol", Rules())
        assert (await until(address, "", lambda reply: reply.status == 401)).status == 401
    assert caplog.text.count("not seen") == 1


async def test_a_key_that_was_there_before_counts_from_the_first_request(tmp_path: Path) -> None:
    async with another_process(tmp_path) as other:
        secret, _ = await other.callers.create("carol", Rules())
        expired, _ = await other.callers.create("dave", Rules(), expires_at=1.0)
    async with serving(gateway_of([Scripted("Local")], tmp_path)) as address:
        assert (await ask(address, "GET", "/v1/models")).status == 401
        assert (await ask(address, "GET", "/v1/models", secret)).status == 200
        late = await ask(address, "GET", "/v1/models", expired)
    assert late.status == 401
    assert "expired" in late.json["error"]["message"]


@pytest.mark.check(32)
async def test_an_open_address_needs_a_key(tmp_path: Path) -> None:
    open_to_all = Settings(server=ServerSettings(host="0.0.0.0", port=0))
    with pytest.raises(KeyNeeded, match="--allow-remote") as caught:
        await anyio.to_thread.run_sync(
            lambda: run(open_to_all, data_dir=tmp_path, on_ready=lambda url, keyed: None)
        )
    assert "modelway keys create" in caught.value.hint


def addresses_of(conversation: str, response: str, item: str, body: Any) -> list[tuple[str, str, Any]]:
    """Every way to a conversation, with a body that would do where the conversation is the caller's."""
    here, there = f"/v1/conversations/{conversation}", f"/v1/responses/{response}"
    return [
        ("GET", here, None),
        ("POST", here, {"metadata": {"a": "b"}}),
        ("GET", f"{here}/export", None),
        ("GET", f"{here}/export?format=md", None),
        ("POST", f"{here}/fork", {}),
        ("GET", f"{here}/items", None),
        ("POST", f"{here}/items", {"items": [{"role": "user", "content": "hi"}]}),
        ("GET", f"{here}/items/{item}", None),
        ("GET", there, None),
        ("GET", f"{there}?stream=true", None),
        ("GET", f"{there}/input_items", None),
        ("GET", f"{here}/stream", None),
        ("POST", f"{here}/cancel", {}),
        ("POST", f"{there}/cancel", {}),
        ("POST", "/v1/responses", {"input": "go on", "previous_response_id": response}),
        ("DELETE", there, None),
        ("DELETE", here, None),
    ]


@pytest.mark.check(34)
def test_every_address_of_a_conversation_is_tried(tmp_path: Path) -> None:
    gateway = gateway_of([Scripted("Local")], tmp_path)
    try:
        application = Application(gateway, Auth({}), Telemetry(), ServerSettings())
        tried = {(method, path.partition("?")[0]) for method, path, _ in addresses_of("c", "r", "i", None)}
        for route in application.routes:
            path = route.path.replace("{id}", "r" if "/responses/" in route.path else "c").replace(
                "{item_id}", "i"
            )
            if path != route.path and not path.startswith("/v1/models"):
                for method in (route.methods or set()) - {"HEAD"}:
                    assert (method, path) in tried
    finally:
        asyncio.run(gateway.aclose())


@pytest.mark.check(34)
async def test_the_conversations_of_others_do_not_exist(tmp_path: Path) -> None:
    local = Scripted("Local")
    async with serving(gateway_of([local], tmp_path), Auth(CONFIGURED)) as address:
        said = {"input": "the secret of alice", "conversation": "talk-1"}
        response = (await ask(address, "POST", "/v1/responses", ALICE, said)).json["id"]
        items = (await ask(address, "GET", "/v1/conversations/talk-1/items", ALICE)).json
        item = items["data"][0]["id"]
        never = response[:-8] + "00000000"
        real = addresses_of("talk-1", response, item, None)
        unknown = addresses_of("talk-0", never, item, None)
        for (method, path, body), (_, nowhere, no_body) in zip(real, unknown, strict=True):
            theirs = await ask(address, method, path, BOB, body)
            nobodys = await ask(address, method, nowhere, BOB, no_body)
            assert theirs.status in (400, 404), path
            assert theirs.status == nobodys.status, path
            same = theirs.body.replace(response.encode(), never.encode()).replace(b"talk-1", b"talk-0")
            assert same == nobodys.body, path
            assert b"secret" not in theirs.body
        assert (await ask(address, "GET", "/v1/conversations", BOB)).json["data"] == []
        assert (await ask(address, "GET", "/v1/conversations?q=secret", BOB)).json["data"] == []
        assert len((await ask(address, "GET", "/v1/conversations?q=secret", ALICE)).json["data"]) == 1
        mine = {"messages": [{"role": "user", "content": "and I"}], "conversation_id": "talk-1"}
        assert (await ask(address, "POST", "/v1/chat/completions", BOB, mine)).status == 200
        assert [message.text for message in local.requests[-1].messages] == ["and I"]
        assert (await ask(address, "GET", "/v1/conversations/talk-1/items", ALICE)).json == items

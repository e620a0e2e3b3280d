"""The way without a task comes to the same as the way that waits, whatever the upstream does."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Self

import pytest

from modelway.auth import Auth
from modelway.bench.faults import FAULTS
from modelway.config import ConversationSettings, ProviderSettings, ServerSettings, Settings, UpstreamSettings
from modelway.provider import TellingStream
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import build_provider
from modelway.server.app import Application
from modelway.telemetry import Telemetry
from modelway.testing import FaultyUpstream
from modelway.types import ChatRequest, Event, Rules
from tests.polling import until
from tests.scripted import Scripted
from tests.serving import gateway_of, served_by

pytestmark = pytest.mark.anyio

LIMITS = UpstreamSettings(
    first_byte_timeout_s=1.0, idle_timeout_s=1.0, max_event_bytes=1 << 20, max_response_bytes=4 << 20
)
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hi"}]
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HELLO},
    "/v1/responses": {"input": HELLO},
    "/v1/messages": {"messages": HELLO, "max_tokens": 9},
}
ARGUMENTS = {"stall": ":2", "cut": ":2", "retry-after": ":9", "status": ":503"}
# One byte at a time is what `split-utf8` sends, too.
EVERY = [name + ARGUMENTS.get(name, "") for name in FAULTS if name != "drip"]
Reply = tuple[int, dict[str, str], str]
OURS = {"x-request-id", "x-modelway-turn-id", "date", "content-length"}


class Straight(Application):
    """Notes of each chat whether it was begun without a task."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.begun: list[bool] = []

    def begin_at_once(self, *args: Any) -> bool:
        before = len(self._straight)
        came = super().begin_at_once(*args)
        self.begun.append(len(self._straight) > before)
        return came


class Waiting(Application):
    """Has a task for every request."""

    begin_at_once = None  # type: ignore[assignment]


class Caller:
    upstream: FaultyUpstream

    def __init__(self, address: str, http: HTTPClient, application: Application, key: str = "") -> None:
        self.key = key
        self.address = address
        self.http = http
        self.application = application

    async def ask(self, path: str = CHAT, **fields: Any) -> tuple[int, dict[str, str], bytes]:
        body = json.dumps({**ASKED.get(path, {}), **fields}).encode()
        method, body = ("POST", body) if path in ASKED else ("GET", b"")
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        response = await self.http.request(method, self.address + path, headers=headers, body=body)
        async with aclosing(response):
            return response.status, dict(response.headers), await response.body()


@asynccontextmanager
async def serving(
    folder: Path, fault: str, application: type[Application], rules: Rules | None = None
) -> AsyncIterator[Caller]:
    """A server of one upstream that is well, and of the same one with a fault."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FaultyUpstream())
        http = await stack.enter_async_context(aclosing(HTTPClient(LIMITS)))
        caller = await stack.enter_async_context(aclosing(HTTPClient(UpstreamSettings())))
        providers = [
            build_provider(
                name, None, ProviderSettings(base_url=url, default_model="m", needs_auth=False), http, _no_key
            )
            for name, url in (("Well", upstream.url()), ("Ill", upstream.url(fault)))
        ]
        fallback = ("Well",) if rules is not None else ()
        settings = Settings(
            provider="Well", fallback=fallback, conversations=ConversationSettings(wait_s=0.2, lease_s=2)
        )
        gateway = gateway_of(providers, folder, settings)
        # Where nobody is silent, a busy machine must not make it look so.
        is_silent = fault.startswith(("silent", "stall"))
        server = ServerSettings(port=0, keep_alive_s=0.5 if is_silent else 20)
        app = application(gateway, Auth({}), Telemetry(), server)
        key = ""
        if rules is not None:
            key, _ = await gateway.conversations.callers.create("carol", rules)
        asking = Caller(await stack.enter_async_context(served_by(app, server)), caller, app, key)
        asking.upstream = upstream
        yield asking


def _no_key(variable: str, path: str) -> str:
    del variable, path
    return ""


def normal(reply: tuple[int, dict[str, str], bytes]) -> Reply:
    """A reply without what differs from one time to the next."""
    status, headers, body = reply
    text = re.sub(
        r"(chatcmpl-|turn_|req_|resp_|msg_|rs_)[0-9a-f]{12,}", r"\1ID", body.decode("utf-8", "replace")
    )
    text = re.sub(
        r'("(?:created|created_at|completed_at|updated_at|finished_at|at)":) ?[0-9.e+]+', r"\1 0", text
    )
    text = re.sub(r'("(?:id|parent|tail|head|answer_id)":) ?"[^"]*"', r'\1 ""', text)
    text = re.sub(r"127\.0\.0\.1:\d+", "UPSTREAM", text)
    text = re.sub(r": keep-alive\n+", "", text)
    kept = {name: value for name, value in headers.items() if name not in OURS}
    if "x-modelway-attempts" in kept:
        kept["x-modelway-attempts"] = re.sub(r";\d+", ";0", kept["x-modelway-attempts"])
    return status, kept, text


async def story(caller: Caller, path: str, *, stream: bool, stored: bool) -> list[Reply]:
    """What a caller sees who asks the one that is well, the one that is ill, and the first again."""
    held = {"conversation_id": "c"} if stored else {}
    seen = [normal(await caller.ask(provider="Well", stream=False))]
    replies = [await caller.ask(path, provider=name, stream=stream, **held) for name in ("Ill", "Well")]
    seen += map(normal, replies)
    if stored:
        seen.append(normal(await caller.ask("/v1/conversations/c")))
    return seen


@pytest.mark.parametrize("stored", [False, True], ids=["", "stored"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", EVERY)
async def test_both_ways_tell_the_same(tmp_path: Path, fault: str, stream: bool, stored: bool) -> None:
    await compare(tmp_path, fault, CHAT, stream=stream, stored=stored)


async def compare(tmp_path: Path, fault: str, path: str, *, stream: bool, stored: bool) -> None:
    stories = []
    for kind in (Straight, Waiting):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        async with serving(folder, fault, kind) as caller:
            stories.append(await story(caller, path, stream=stream, stored=stored))
            if isinstance(caller.application, Straight):
                # The first one had no connection to go over yet.
                assert caller.application.begun[:2] == [False, True]
    for ours, other in zip(*stories, strict=True):
        assert ours == other


@pytest.mark.parametrize("stored", [False, True], ids=["", "stored"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", ["ok", "cut:2", "error-inside", "status:503", "split-utf8"])
@pytest.mark.parametrize("path", [path for path in ASKED if path != CHAT])
async def test_both_ways_tell_the_same_in_other_formats(
    tmp_path: Path, path: str, fault: str, stream: bool, stored: bool
) -> None:
    await compare(tmp_path, fault, path, stream=stream, stored=stored)


@pytest.mark.parametrize("stored", [False, True], ids=["", "stored"])
async def test_a_client_that_leaves_ends_the_call_and_leaves_nothing(tmp_path: Path, stored: bool) -> None:
    held = {"conversation_id": "c"} if stored else {}
    async with serving(tmp_path, "stall:2", Straight) as caller:
        await caller.ask(provider="Well")
        body = {"messages": HELLO, "provider": "Ill", "stream": True, **held}
        response = await caller.http.request(
            "POST",
            caller.address + CHAT,
            headers={"content-type": "application/json"},
            body=json.dumps(body).encode(),
        )
        assert await response.read()
        assert caller.application.is_answering
        await response.aclose()
        await until(lambda: not caller.application.is_answering)
        if stored:
            await until(lambda: ends_with(caller, "interrupted"))
        # The next one finds everything as it should be.
        assert (await caller.ask(provider="Well", stream=True, **held))[0] == 200


async def ends_with(caller: Caller, status: str) -> bool:
    shown = json.loads((await caller.ask("/v1/conversations/c"))[2])
    return bool(shown["turns"][-1]["status"] == status)


async def test_a_task_goes_on_with_what_is_open_when_the_server_goes_down(tmp_path: Path) -> None:
    async with serving(tmp_path, "drip:4", Straight) as caller:
        await caller.ask(provider="Well", stream=False)
        asking = asyncio.create_task(caller.ask(provider="Ill", stream=False))
        await until(lambda: caller.application.is_answering)
        assert isinstance(caller.application, Straight)
        assert caller.application.begun == [False, True]
        caller.application.drain()
        assert not caller.application.is_answering
        assert (await asking)[0] == 200
        assert len(caller.upstream.heard_by("drip:4")) == 1, "what has been sent is not sent again"


@pytest.mark.parametrize("reason", ["drain", "silence"])
async def test_a_conversation_that_is_being_opened_is_gone_on_with(tmp_path: Path, reason: str) -> None:
    fault = "silent" if reason == "silence" else "ok"
    async with serving(tmp_path, fault, Straight) as caller:
        application = caller.application
        assert isinstance(application, Straight)
        await caller.ask(provider="Well", stream=False, conversation_id="c")
        with closing(sqlite3.connect(tmp_path / "conversations.sqlite3")) as other:
            other.execute("BEGIN IMMEDIATE")
            asking = asyncio.create_task(caller.ask(provider="Well", stream=True, conversation_id="c"))
            await until(lambda: len(application.begun) == 2)
            assert application.begun == [True, True]
            for _ in range(20):
                await asyncio.sleep(0)
            if reason == "drain":
                application.drain()
            await until(lambda: not application._straight)
            for _ in range(20):
                await asyncio.sleep(0)
            other.rollback()
        status, _, body = await asking
        assert status == 200
        assert body.endswith(b"data: [DONE]\n\n")


class Faulty(Scripted):
    """Has a bug where nobody waits."""

    def telling(self, request: ChatRequest) -> TellingStream:
        raise ZeroDivisionError


class FaultyCall:
    """A call with a bug where it is made."""

    is_broken = False

    def __init__(self) -> None:
        self.was_cut = False

    def send_now(self) -> bool:
        raise ZeroDivisionError

    def listen(self, listener: Callable[[], None] | None) -> None: ...

    def take(self) -> list[Event] | None:
        return []

    def cut(self) -> None:
        self.was_cut = True

    async def aclose(self) -> None: ...

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        raise StopAsyncIteration


class FaultyLater(Scripted):
    """Has a bug where nobody waits, a step later."""

    def telling(self, request: ChatRequest) -> TellingStream:
        return FaultyCall()


@pytest.mark.parametrize("kind", [Faulty, FaultyLater])
async def test_a_bug_where_nobody_waits_harms_nobody_else(tmp_path: Path, kind: type[Scripted]) -> None:
    server = ServerSettings(port=0)
    application = Straight(gateway_of([kind("Faulty")], tmp_path), Auth({}), Telemetry(), server)
    async with served_by(application, server) as address, aclosing(HTTPClient(UpstreamSettings())) as http:
        caller = Caller(address, http, application)
        async with asyncio.timeout(5):
            asked = [caller.ask(conversation_id=name) for name in "ab"]
            assert [status for status, *_ in await asyncio.gather(*asked)] == [200, 200]
    assert application.begun == [True, True]


async def test_a_key_is_free_again_whoever_answers_in_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path, "status:503", Straight, Rules(streams=1)) as caller:
        await caller.ask(provider="Well", stream=False)
        for _ in range(3):
            status, headers, _ = await caller.ask(provider="Ill", stream=False)
            assert (status, headers["x-modelway-provider"]) == (200, "Well")
        assert isinstance(caller.application, Straight)
        assert any(caller.application.begun)


async def test_an_answer_whose_conversation_is_deleted_meanwhile_is_charged_once(tmp_path: Path) -> None:
    async with serving(tmp_path, "drip:1", Straight) as caller:
        await caller.ask(provider="Well", stream=False)
        asking = asyncio.create_task(caller.ask(provider="Ill", stream=False, conversation_id="c"))

        async def is_deleted() -> bool:
            address = f"{caller.address}/v1/conversations/c"
            async with aclosing(await caller.http.request("DELETE", address, headers={})) as deleted:
                return deleted.status == 200

        await until(is_deleted)
        assert (await asking)[0] == 409
    with closing(sqlite3.connect(tmp_path / "conversations.sqlite3")) as store:
        spent = store.execute("SELECT sum(requests) FROM spending WHERE provider = 'Ill'").fetchone()
    assert spent == (1,)


async def test_a_stream_is_not_silent_while_its_end_is_stored(tmp_path: Path) -> None:
    async with serving(tmp_path, "drip:1", Straight) as caller:
        await caller.ask(provider="Well", stream=False)
        caller.application._chats[CHAT].keep_alive_s = 0.1
        headers = {"content-type": "application/json"}
        body = json.dumps(
            {"messages": HELLO, "provider": "Ill", "stream": True, "conversation_id": "c"}
        ).encode()
        reply = await caller.http.request("POST", caller.address + CHAT, headers=headers, body=body)
        got = b""
        other = sqlite3.connect(tmp_path / "conversations.sqlite3", isolation_level=None)
        async with aclosing(reply):
            with closing(other):
                while b"dog" not in got:
                    got += await reply.read()
                other.execute("BEGIN IMMEDIATE")
                while got.count(b": keep-alive") < 3:
                    got += await reply.read()
                other.execute("ROLLBACK")
            while read := await reply.read():
                got += read
    assert got.endswith(b"data: [DONE]\n\n")


async def test_a_key_is_asked_for_with_every_request_of_a_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, "status:503", Straight, Rules(streams=5)) as caller:
        assert [(await caller.ask(provider="Well", stream=False))[0] for _ in range(3)] == [200] * 3
        await caller.application._gateway.conversations.callers.revoke("carol")

        async def is_refused() -> bool:
            return (await caller.ask(provider="Well", stream=False))[0] == 401

        await until(is_refused)

"""What a request leaves behind when it is over: nothing that only the garbage collector could free."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelway.errors import GatewayError, InvalidRequest, UpstreamFailed
from modelway.testing import FakeUpstream
from modelway.types import ChatRequest, Event, Finish
from tests.polling import until
from tests.reliability.addresses import ASKED, CASES, answering_all, between, post
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

Note = Callable[[str, object], None]

pytestmark = [pytest.mark.anyio, pytest.mark.check(8)]

TIMES = 5
VECTORS = b'{"object":"list","data":[{"index":0,"embedding":[0.1]}],"usage":{"prompt_tokens":1}}'
CHAT = post("/v1/chat/completions", ASKED)


@pytest.fixture(autouse=True)
def what_was_there_before_is_left_alone() -> Iterator[None]:
    """To look through it each time would take longer than all the rest."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def test_answers_leave_no_garbage(tmp_path: Path, record_property: Note) -> None:
    left: dict[str, Counter[str]] = {}
    async with FakeUpstream() as upstream, answering_all(tmp_path, upstream) as port:
        for call, stream in CASES:
            if "embed" in call.path or call.is_relayed:
                upstream.reply_with(VECTORS, kind="application/json")
            else:
                upstream.reply("hello ", "there")
            request = post(call.path, call.body(stream=stream))
            left[f"{call.path} {call.note} {stream}"] = await left_by(port, request)
    record_property("figure", f"{len(left)} kinds of answers leave no garbage")
    assert {name: kinds for name, kinds in left.items() if kinds} == {}


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/models", "/v1/conversations", "/v1/nothing", "/x"])
async def test_pages_and_lists_leave_no_garbage(path: str, tmp_path: Path) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with between(tmp_path, Scripted("Local")) as port:
        assert await left_by(port, request) == {}


@pytest.mark.parametrize("error", [UpstreamFailed("no"), InvalidRequest("no")])
async def test_refusals_leave_no_garbage(error: GatewayError, tmp_path: Path) -> None:
    async with between(tmp_path, Scripted("Local", [error])) as port:
        for request in (CHAT, post("/v1/chat/completions", {**ASKED, "stream": True}), post("/v1/chat", {})):
            assert await left_by(port, request) == {}


class Refusing(Scripted):
    """Refuses each request with an error of its own."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        if request.messages:
            raise InvalidRequest("no")
        yield Finish()


@pytest.mark.parametrize("provider", [Scripted("Local"), Refusing("Local")], ids=["good", "bad"])
async def test_turns_in_the_background_leave_no_garbage(provider: Scripted, tmp_path: Path) -> None:
    request = post("/v1/responses", {"input": "hi", "background": True})
    gateway = gateway_of([provider], tmp_path)
    async with serving(gateway) as address:
        port = int(address.rpartition(":")[2])
        await ask(port, request, 1)
        await until(lambda: not gateway.live.is_answering)
        with nothing_freed() as kinds:
            await ask(port, request, TIMES)
            await until(lambda: not gateway.live.is_answering)
    assert not {"LiveTurn", "Turn", "ChatRequest", "RequestRecord"} & set(each_time(kinds))


@pytest.mark.parametrize("stream", [False, True])
async def test_connections_leave_no_garbage(tmp_path: Path, stream: bool) -> None:
    request = post("/v1/chat/completions", {**ASKED, "stream": stream})
    async with FakeUpstream() as upstream, answering_all(tmp_path, upstream) as port:
        upstream.reply("hello")
        await ask(port, request, 2)
        with nothing_freed() as kinds:
            for _ in range(TIMES):
                await ask(port, request, 2)
                await upstream.drop_connections()
    # The transports of asyncio's own loop leave themselves; a server has uvloop's where there is one.
    assert not {"Protocol", "Cycle", "Exchange", "Connection", "HttpResponseParser"} & set(kinds)


async def left_by(port: int, request: bytes) -> Counter[str]:
    """The kinds of garbage that a request leaves each time."""
    await ask(port, request, 2)
    with nothing_freed() as kinds:
        await ask(port, request, TIMES)
    return each_time(kinds)


def each_time(kinds: Counter[str]) -> Counter[str]:
    """Those that are there once for each time, or more often."""
    return Counter({name: count for name, count in kinds.items() if count >= TIMES})


@contextmanager
def nothing_freed() -> Iterator[Counter[str]]:
    """Collect no garbage inside; afterwards its kinds are counted in what this gives."""
    kinds: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield kinds
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds.update(kind(thing) for thing in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def kind(thing: Any) -> str:
    return f"{type(thing).__name__} {getattr(thing, '__qualname__', '')}".strip()


async def ask(port: int, request: bytes, times: int) -> None:
    """Ask one time after another, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(times):
        writer.write(request)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head:
                await reader.readuntil(b"0\r\n\r\n")
            else:
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
    writer.close()
    await writer.wait_closed()

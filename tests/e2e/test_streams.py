"""Streams over HTTP: numbered, resumed from any event and any byte, here and elsewhere, asked for once."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelway.auth import LOCAL_CALLER
from modelway.config import ConversationSettings, RouteSettings, Settings, UpstreamSettings
from modelway.conversations import Failed
from modelway.conversations.log import decode_piece, encode_piece
from modelway.dialects import anthropic_messages, openai_chat, openai_responses
from modelway.dialects.envelope import Envelope
from modelway.errors import UpstreamProtocolError, all_errors
from modelway.gateway import Gateway
from modelway.provider import ProviderInfo
from modelway.providers.http import HTTPClient, Response
from modelway.providers.openai_compatible import OpenAICompatible
from modelway.server.dialect import Dialect
from modelway.server.numbering import Numbered
from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import Continued, Finish, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from tests.conversations.talk import statuses
from tests.polling import until
from tests.scripted import Script, Scripted, Step, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
LONG: list[Step] = [
    ReasoningDelta(text="hm"),
    TextDelta(text="a\n\nb"),
    TextDelta(text="ü"),
    Continued(after="Local", provider="Other", model="m", code="upstream_reset"),
    ToolCallDelta(id="call_1", name="weather", arguments='{"city":'),
    ToolCallDelta(arguments='"Paris"}'),
    Finish(reasons=("tool_calls",), usage=Usage(3, 5)),
]
CHAT = "/v1/chat/completions"
KEYED: dict[str, Any] = {"conversation_id": "c", "key": "k"}
PATHS = ("/v1/chat/completions", "/v1/messages", "/v1/responses")


class Asking:
    """A client of a server."""

    def __init__(self, gateway: Gateway, address: str, http: HTTPClient) -> None:
        self.gateway = gateway
        self.address = address
        self._http = http

    async def post(
        self,
        path: str,
        *,
        key: str | None = None,
        last: str | None = None,
        detach: str | None = None,
        **fields: Any,
    ) -> Response:
        hello = {"messages": [{"role": "user", "content": "hello"}]}
        other: dict[str, Any] = {"/v1/responses": {"input": "hello"}, "/api/generate": {"prompt": "hello"}}
        said = other.get(path, hello)
        more = {"max_tokens": 9} if path == "/v1/messages" else {}
        headers = {"content-type": "application/json"}
        said_so = {"idempotency-key": key, "last-event-id": last, "x-modelway-detach": detach}
        headers |= {name: value for name, value in said_so.items() if value is not None}
        body = msgspec.json.encode({**said, **more, "stream": True, **fields})
        return await self._http.request("POST", self.address + path, headers=headers, body=body)

    async def get(self, path: str, **headers: str) -> Response:
        return await self._http.request("GET", self.address + path, headers=headers)


async def whole(response: Response) -> bytes:
    async with aclosing(response):
        body = await response.body()
        assert response.status == (200 if body else 204), body
        return body


@asynccontextmanager
async def asking(gateway: Gateway) -> AsyncIterator[Asking]:
    async with serving(gateway) as address, aclosing(HTTPClient(UpstreamSettings())) as http:
        yield Asking(gateway, address, http)


def of(local: Scripted, folder: Path, **kept: Any) -> Gateway:
    chosen = ConversationSettings(**{"wait_s": 0.2, "checkpoint_s": 0.02, **kept})
    return gateway_of([local], folder, Settings(provider="Local", conversations=chosen))


def gateway(folder: Path, *scripts: Script, **kept: Any) -> Gateway:
    return of(Scripted("Local", *scripts), folder, **kept)


def events_of(stream: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in stream.split(b"\n\n")[:-1]]


def last_id(delivered: bytes) -> str:
    """The number of the last event that a client has seen whole."""
    complete = events_of(delivered[: delivered.rfind(b"\n\n") + 2])
    numbers = [line[4:] for event in complete for line in event.split(b"\n") if line.startswith(b"id: ")]
    return numbers[-1].decode() if numbers else ""


@pytest.mark.check(6)
@pytest.mark.parametrize("path", PATHS)
async def test_the_rest_from_any_event_on_is_what_an_unbroken_client_gets(path: str, tmp_path: Path) -> None:
    named = {"conversation": "c"} if path == "/v1/responses" else {"conversation_id": "c"}
    async with asking(gateway(tmp_path, LONG)) as client:
        stream = await whole(await client.post(path, **named))
        events = events_of(stream)
        assert b"".join(events) == stream
        told = [last_id(event) for event in events]
        assert told == [str(number) for number in range(len(told))]
        for place, event in enumerate(events):
            if number := last_id(event):
                last = {"last-event-id": number}
                rest = await whole(await client.get("/v1/conversations/c/stream", **last))
                assert b"".join(events[: place + 1]) + rest == stream
        assert await whole(await client.get("/v1/conversations/c/stream")) == stream
    async with asking(gateway(tmp_path)) as client:
        assert await whole(await client.get("/v1/conversations/c/stream?starting_after=1")) == b"".join(
            events[2:]
        )


@pytest.mark.parametrize("dialect", [openai_chat, openai_responses, anthropic_messages])
def test_every_error_is_told_again_as_it_was(dialect: Dialect) -> None:
    errors = [kind("it broke", hint="mend it", param="model") for kind in all_errors()[1:]]
    errors.append(UpstreamProtocolError("it was reset", code="upstream_reset"))
    envelope = Envelope(id="x", created=1, model="m", provider="p", now=lambda: 2.0)
    for error in errors:
        (kept,) = decode_piece(encode_piece([Failed.of(error)]))
        assert isinstance(kept, Failed)
        first, again = (dialect.EventEncoder(envelope).error(one) for one in (error, kept.error()))
        assert first == again, error.code


async def test_an_error_in_the_middle_comes_again(tmp_path: Path) -> None:
    error = UpstreamProtocolError("it was reset", code="upstream_reset")
    async with asking(gateway(tmp_path, [TextDelta(text="half"), error])) as client:
        told = await whole(await client.post(CHAT, conversation_id="c"))
        assert b'"code":"upstream_reset"' in told
        assert await whole(await client.get("/v1/conversations/c/stream")) == told
        assert await whole(await client.get("/v1/conversations/c/stream?starting_after=0")) in told
    async with asking(gateway(tmp_path)) as client:
        assert await whole(await client.get("/v1/conversations/c/stream")) == told


async def test_what_nobody_can_stream_is_refused(tmp_path: Path) -> None:
    async with asking(gateway(tmp_path, says("hi"))) as client:
        kept = msgspec.json.decode(
            await body_of(client.post("/v1/responses", conversation="c", stream=False))
        )
        refused = {
            "/v1/conversations/c/stream": 404,
            f"/v1/responses/{kept['id']}?stream=true": 404,
            f"/v1/responses/{kept['id']}?stream=maybe": 400,
            f"/v1/responses/{kept['id']}?starting_after=1": 400,
            "/v1/responses/resp_nothing?stream=true": 404,
        }
        await whole(await client.post(CHAT, conversation_id="d"))
        refused |= {
            "/v1/conversations/d/stream?format=morse": 400,
            "/v1/conversations/d/stream?starting_after=one": 400,
            "/v1/conversations/d/stream?turn=turn_none": 404,
        }
        assert {path: (await client.get(path)).status for path in refused} == refused
        other = await client.get("/v1/conversations/d/stream")
        await whole(await client.post(CHAT, conversation_id="e"))
        turn = other.headers["x-modelway-turn-id"]
        assert (await client.get(f"/v1/conversations/e/stream?turn={turn}")).status == 404
        assert await whole(await client.get(f"/v1/conversations/d/stream?turn={turn}"))


async def test_bytes_of_the_upstream_are_resumed_as_they_were(tmp_path: Path) -> None:
    async with FakeUpstream() as upstream:
        upstream.reply("one ", "two ", "three")
        http = HTTPClient(UpstreamSettings())
        provider = OpenAICompatible(
            ProviderInfo(name="Up", default_model="m"), upstream.url, http=http, key=lambda: ""
        )
        async with asking(gateway_of([provider], tmp_path)) as client:
            stream = await whole(await client.post("/v1/chat/completions", conversation_id="c"))
            for number, event in enumerate(events_of(stream)):
                rest = await whole(await client.get(f"/v1/conversations/c/stream?starting_after={number}"))
                assert stream.endswith(event + rest)
            other = await whole(await client.get("/v1/conversations/c/stream?format=anthropic_messages"))
        await http.aclose()
    assert b"data: [DONE]" in stream
    assert b'"type":"text_delta","text":"one ' in other
    assert other.count(b"message_stop") == 2


@pytest.mark.check(6)
@settings(max_examples=20)
@given(st.data())
def test_a_client_cut_off_at_any_byte_misses_nothing(data: st.DataObject) -> None:
    dialect = data.draw(st.sampled_from((openai_chat, openai_responses, anthropic_messages)))
    envelope = Envelope(id="x", created=1, model="m", provider="p", now=lambda: 2.0)

    def written(after: int = -1) -> bytes:
        encoder = Numbered(dialect.EventEncoder(envelope), after)
        steps = [step for step in LONG if not isinstance(step, asyncio.Event | Exception)]
        return b"".join(encoder.encode(step) for step in steps) + encoder.end()

    stream = written()
    cut = data.draw(st.integers(0, len(stream)))
    seen = stream[: stream.rfind(b"\n\n", 0, cut) + 2] if b"\n\n" in stream[:cut] else b""
    assert seen + written(int(last_id(seen) or -1)) == stream


@pytest.mark.check(6)
async def test_a_stream_goes_on_at_another_server_while_it_runs(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    script: list[Step] = [*LONG[:3], go_on, *LONG[3:]]
    async with asking(gateway(tmp_path, script)) as client, asking(gateway(tmp_path)) as other:
        begun = await beginning(await client.post(CHAT, **KEYED), 3)
        resumed = asyncio.create_task(rest_of(other, last_id(begun)))
        here = asyncio.create_task(rest_of(client, ""))
        await until(lambda: has_readers(client))
        go_on.set()
        stream = await here
        assert begun + await resumed == stream
        assert await whole(await client.post(CHAT, **KEYED)) == stream


async def has_readers(client: Asking) -> bool:
    """Whether the client that has begun anew reads along."""
    (turn,) = await client.gateway.live.running(LOCAL_CALLER)
    return client.gateway.live.readers(turn.turn_id) > 0


async def beginning(response: Response, events: int) -> bytes:
    """So many events at least; then the client goes away."""
    begun = b""
    async with aclosing(response):
        while begun.count(b"\n\n") < events:
            begun += await response.read()
    return begun


async def rest_of(client: Asking, last: str) -> bytes:
    return await whole(await client.post(CHAT, last=last, **KEYED))


async def is_running(client: Asking) -> bool:
    return await running(client) == 1


async def running(client: Asking) -> int:
    """How many turns the server answers."""
    return len(await client.gateway.live.running(LOCAL_CALLER))


@pytest.mark.check(6)
async def test_an_ordinary_client_that_leaves_ends_its_answer_at_once(tmp_path: Path) -> None:
    local = Scripted("Local", [TextDelta(text="half"), asyncio.Event()])
    async with asking(of(local, tmp_path)) as client:
        begun = await beginning(await client.post(CHAT, conversation_id="c"), 1)
        started = time.monotonic()
        await until(lambda: is_closed(local))
        assert time.monotonic() - started < 1
        response = await client.get("/v1/conversations/c/stream")
        told = await response.body()
        shown = await client.gateway.conversations.show("local", "c")
    assert told.startswith(begun)
    assert b'"code":"turn_interrupted"' in told
    assert b"[DONE]" not in told
    assert statuses(shown) == ["interrupted"]


async def is_closed(local: Scripted) -> bool:
    return local.closed > 0


@pytest.mark.parametrize("asked", [{"key": "k"}, {"detach": "true"}])
async def test_an_answer_whose_client_is_to_come_back_goes_on(asked: dict[str, str], tmp_path: Path) -> None:
    go_on = asyncio.Event()
    local = Scripted("Local", [TextDelta(text="one "), go_on, *says("two")])
    async with asking(of(local, tmp_path)) as client:
        begun = await beginning(await client.post(CHAT, conversation_id="c", **asked), 1)
        go_on.set()
        await until(lambda: is_closed(local))
        rest = await whole(await client.get(f"/v1/conversations/c/stream?starting_after={last_id(begun)}"))
        assert begun + rest == await whole(await client.get("/v1/conversations/c/stream"))
        shown = await client.gateway.conversations.show("local", "c")
    assert b"[DONE]" in rest
    assert (statuses(shown), shown.messages[-1].text) == (["done"], "one two")


async def test_it_goes_on_for_the_grace_time_only_and_can_be_stopped(tmp_path: Path) -> None:
    local = Scripted("Local", [TextDelta(text="half"), asyncio.Event()])
    async with asking(of(local, tmp_path, reconnect_grace_s=0.05)) as client:
        await beginning(await client.post(CHAT, **KEYED), 1)
        await until(lambda: is_closed(local))
        told = await (await client.post(CHAT, **KEYED)).body()
        assert b"turn_interrupted" in told
    async with asking(of(local, tmp_path)) as client:
        await beginning(await client.post(CHAT, **{**KEYED, "key": "other"}), 1)
        stopped = await client.post("/v1/conversations/c/cancel")
        assert msgspec.json.decode(await stopped.body())["stopped"] is True
        again = await client.post("/v1/conversations/c/cancel")
        assert msgspec.json.decode(await again.body())["stopped"] is False
        assert await running(client) == 0
        assert b'"code":"turn_cancelled"' in await (await client.get("/v1/conversations/c/stream")).body()
        asked: dict[str, Any] = {"conversation_id": "d", "key": "whole", "stream": False}
        waiting = asyncio.create_task(client.post(CHAT, **asked))
        await until(lambda: are_asked(local, 3))
        await until(lambda: is_running(client))
        assert (await client.post("/v1/conversations/d/cancel")).status == 200
        for told_so in (await waiting, await client.post(CHAT, **asked)):
            assert (told_so.status, told_so.headers["x-should-retry"]) == (409, "false")


@pytest.mark.check(5)
async def test_equal_requests_with_a_key_get_the_same_bytes_in_every_format(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    local = Scripted("Local", [go_on, TextDelta(text="once"), Finish(usage=Usage(1, 2))])
    asked = [
        (path, stream, f"{path} {stream}")
        for path in (*PATHS, "/api/chat", "/api/generate")
        for stream in (True, False)
    ]
    async with asking(of(local, tmp_path)) as client, asking(gateway(tmp_path)) as other:
        posts = [client.post(path, key=key, stream=stream) for path, stream, key in asked for _ in range(10)]
        replies = asyncio.gather(*[body_of(one) for one in posts])
        await until(lambda: are_asked(local, len(asked)))
        go_on.set()
        bodies = await replies
        for number, (path, stream, key) in enumerate(asked):
            (body,) = set(bodies[10 * number : 10 * number + 10])
            assert b"once" in body
            assert await body_of(client.post(path, key=key, stream=stream)) == body
            assert await body_of(other.post(path, key=key, stream=stream)) == body
            for one in (
                await client.post(path, key=key, stream=stream),
                await other.post(path, key=key, stream=stream),
            ):
                assert one.headers["x-modelway-attempts"].startswith("Local;ok;")
                await one.aclose()
            reused = await other.post(path, key=key, stream=not stream)
            assert (reused.status, b"Idempotency-Key" in await reused.body()) == (422, True)
        assert list(await client.gateway.conversations.list("local")) == []
    assert len(local.requests) == len(asked)
    async with asking(gateway(tmp_path)) as later:
        for number, (path, stream, key) in enumerate(asked):
            assert await body_of(later.post(path, key=key, stream=stream)) == bodies[10 * number]


async def body_of(asked: Awaitable[Response]) -> bytes:
    return await whole(await asked)


async def are_asked(local: Scripted, number: int) -> bool:
    return len(local.requests) == number


async def test_bytes_of_the_upstream_come_again_as_they_were(tmp_path: Path) -> None:
    async with FakeUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        upstream.reply("one ", "two")
        info = ProviderInfo(name="Up", default_model="m")
        provider = OpenAICompatible(info, upstream.url, http=http, key=lambda: "")
        async with asking(gateway_of([provider], tmp_path)) as client:
            body = await body_of(client.post(CHAT, key="k", stream=False))
            assert await body_of(client.post(CHAT, key="k", stream=False)) == body
        assert len(upstream.requests) == 1


async def test_what_is_not_to_be_stored_has_a_key_but_cannot_be_fetched(tmp_path: Path) -> None:
    async with asking(gateway(tmp_path, says("once"))) as client:
        asked: dict[str, Any] = {"key": "k", "store": False, "stream": False}
        first = await body_of(client.post("/v1/responses", **asked))
        assert await body_of(client.post("/v1/responses", **asked)) == first
        id = msgspec.json.decode(first)["id"]
        assert (await client.get(f"/v1/responses/{id}")).status == 404
        assert (await client.post("/v1/responses", conversation="c", **asked)).status == 422
        asked["key"] = "l"
        assert (await client.post("/v1/responses", conversation="c", **asked)).status == 400


async def test_a_key_is_told_why_there_is_no_answer_and_is_free_again(tmp_path: Path) -> None:
    local = Scripted("Local", [UpstreamProtocolError("no")], says("yes"))
    async with asking(of(local, tmp_path)) as client:
        refused = await client.post(CHAT, key="k")
        assert (refused.status, b"upstream_malformed" in await refused.body()) == (502, True)
        assert refused.headers["x-modelway-attempts"].startswith("Local")
        assert b"yes" in await body_of(client.post(CHAT, key="k"))
        assert (await client.post(CHAT, key="k" * 256)).status == 400
        empty = await client.post(CHAT, key="")
        assert (empty.status, b"Idempotency-Key must be" in await empty.body()) == (400, True)
        assert (await client.post(CHAT, last="3")).status == 400
        assert (await client.post(CHAT, key="l", last="x")).status == 400
        assert (await client.post("/api/chat", key="l", last="3")).status == 400
        assert (await client.post(CHAT, detach="true")).status == 400
        assert (await client.post(CHAT, detach="yes", conversation_id="c")).status == 400
        assert (await client.post(CHAT, detach="false", conversation_id="c", stream=False)).status == 200
        assert (await client.post("/v1/completions", key="l", prompt=["a", "b"])).status == 400
        assert (await client.get("/v1/conversations/nothing/stream")).status == 404
        assert (await client.get("/v1/conversations/nothing/stream?turn=turn_1")).status == 404


@pytest.mark.parametrize("stream", [True, False])
async def test_two_servers_that_cannot_answer_one_key_say_so_both(stream: bool, tmp_path: Path) -> None:
    go_on = asyncio.Event()
    no = UpstreamProtocolError("no")
    local, other = Scripted("Local", [go_on, no]), Scripted("Local", [no], says("yes"))
    async with asking(of(local, tmp_path)) as here, asking(of(other, tmp_path)) as there:
        first = asyncio.create_task(here.post(CHAT, key="k", stream=stream))
        await until(lambda: is_running(here))
        second = asyncio.create_task(there.post(CHAT, key="k", stream=stream))
        await until(lambda: is_read_elsewhere(here))
        go_on.set()
        for refused in (await first, await second):
            assert (refused.status, b"upstream_malformed" in await refused.body()) == (502, True)
        assert b"yes" in await body_of(there.post(CHAT, key="k", stream=stream))


async def is_read_elsewhere(client: Asking) -> bool:
    (turn,) = await client.gateway.live.running(LOCAL_CALLER)
    return await client.gateway.conversations.streams.read_until(turn.turn_id) > 0


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_with_which_another_went_on_is_told_again_as_it_was(
    path: str, tmp_path: Path
) -> None:
    reset = UpstreamProtocolError("cut", code="upstream_reset")
    one = Scripted("One", [TextDelta(text="a"), TextDelta(text="b"), reset])
    two = Scripted("Two", says("c", "d"))
    route = RouteSettings(candidates=("One", "Two"), on_break="continue")
    chosen = Settings(provider="One", routes={"best": route})
    async with asking(gateway_of([one, two], tmp_path, chosen)) as client:
        asked: dict[str, Any] = {"model": "best", "conversation_id": "c", "key": "k"}
        told = await whole(await client.post(path, **asked))
        for number, _ in enumerate(events_of(told)):
            rest = await whole(await client.post(path, last=str(number), **asked))
            assert told.endswith(rest)
            assert len(rest) < len(told)
        assert await body_of(client.get("/v1/conversations/c/stream")) == told
        shown = await client.gateway.conversations.show("local", "c")
        assert [(turn.provider, turn.model) for turn in shown.turns] == [("One+Two", "one-1+two-1")]
        two.scripts, one.scripts = [says("c")], [[TextDelta(text="a"), reset]]
        asked |= {"key": "l", "stream": False}
        first = await client.post(path, **asked)
        again = await client.post(path, **asked)
        assert first.headers["x-modelway-provider"] == again.headers["x-modelway-provider"] == "One+Two"
        assert await whole(first) == await whole(again)


async def test_a_slow_reader_costs_its_server_no_memory(tmp_path: Path) -> None:
    piece = "x" * 2_000
    local = Scripted("Local", [*(TextDelta(text=piece) for _ in range(1500)), asyncio.Event()])
    async with asking(of(local, tmp_path)) as client:
        (first, *slow) = [await client.post(CHAT, **KEYED) for _ in range(2)]
        stream = b""
        while len(stream) < 1500 * len(piece):
            stream += await first.read()
        tracemalloc.start()
        slow += [await client.post(CHAT, **KEYED) for _ in range(4)]
        for one in slow:
            assert await one.read()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for one in (first, *slow):
            await one.aclose()
        assert (await client.post("/v1/conversations/c/cancel")).status == 200
    assert most < len(stream)

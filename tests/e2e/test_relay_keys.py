"""Relayed requests with an Idempotency-Key: one call upstream, and the same reply for everybody who asks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from modelway.auth import Auth, hash_key
from modelway.config import ConversationSettings, ProviderSettings, Settings, UpstreamSettings
from modelway.errors import UpstreamError
from modelway.providers.http import HTTPClient, Response
from modelway.providers.openai_compatible import build_provider
from modelway.testing.fake_upstream import End, FakeUpstream, Step
from modelway.types import TextDelta
from tests.polling import until
from tests.scripted import Scripted, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
JSON = {"content-type": "application/json"}
ASKED = b'{"model": "m", "prompt": "hi", "stream": true}'
PICTURES = "/v1/images/generations"
TEXTS = "/v1/completions"


class Caller:
    """Sends requests with a key to a server."""

    def __init__(self, address: str, http: HTTPClient, key: str = "") -> None:
        self._address = address
        self._http = http
        self._own = {"authorization": f"Bearer {key}"} if key else {}

    async def begin(self, path: str, body: bytes = ASKED, key: str = "k", **others: str) -> Response:
        told = {name.replace("_", "-"): value for name, value in others.items()}
        headers = {**JSON, **self._own, "idempotency-key": key, **told}
        return await self._http.request("POST", self._address + path, headers=headers, body=body)

    async def ask(
        self, path: str, body: bytes = ASKED, key: str = "k", **others: str
    ) -> tuple[Response, bytes]:
        async with aclosing(await self.begin(path, body, key, **others)) as response:
            return response, await response.body()

    async def refused(self, path: str, body: bytes = ASKED, key: str = "k", **others: str) -> tuple[int, str]:
        response, reply = await self.ask(path, body, key, **others)
        return response.status, json.loads(reply)["error"]["code"]


@asynccontextmanager
async def relaying(
    upstream: FakeUpstream, folder: Path, *, auth: Auth | None = None, servers: int = 1, grace_s: float = 60.0
) -> AsyncIterator[list[Caller]]:
    """Callers of servers that share a database and keep replies of up to 4096 bytes."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aclosing(HTTPClient(UpstreamSettings(idle_timeout_s=5))))
        own = ProviderSettings(base_url=upstream.url, default_model="m")
        store = ConversationSettings(max_reply_bytes=4096, checkpoint_s=0.02, reconnect_grace_s=grace_s)
        callers = []
        for _ in range(servers):
            fake = build_provider("Fake", None, own, http, lambda env, file: "upstream-key")
            gateway = gateway_of([fake], folder, Settings(provider="Fake", conversations=store))
            address = await stack.enter_async_context(serving(gateway, auth))
            callers.append(Caller(address, http))
        yield callers


def events(*texts: str) -> list[bytes]:
    return [b'data: {"choices":[{"index":0,"text":"%b"}]}\n\n' % text.encode() for text in texts]


async def read_until(response: Response, text: bytes) -> bytes:
    read = b""
    while text not in read:
        read += await response.read()
    return read


async def until_asked(provider: Scripted, times: int) -> None:
    async with asyncio.timeout(5):
        while len(provider.requests) < times:
            await asyncio.sleep(0)


async def test_the_same_key_is_one_call_and_the_same_bytes(upstream: FakeUpstream, tmp_path: Path) -> None:
    picture = b'{"data":[{"b64_json":"AAAA"}],"usage":{"input_tokens":5,"output_tokens":7}}'
    upstream.reply_with(picture, kind="application/json")
    asked = b'{"model": "m", "prompt": "a cat"}'
    async with relaying(upstream, tmp_path) as [caller]:
        first, told = await caller.ask(PICTURES, asked)
        again, told_again = await caller.ask(PICTURES, asked)
    assert told == told_again == picture
    for name in ("content-type", "content-length", "x-modelway-provider", "x-modelway-model"):
        assert first.headers[name] == again.headers[name]
    assert (first.status, again.status, len(upstream.requests)) == (200, 200, 1)
    assert again.headers["x-modelway-attempts"].startswith("Fake;ok;")


async def test_a_reply_is_still_there_after_the_next_start(upstream: FakeUpstream, tmp_path: Path) -> None:
    sound = bytes(range(256)) * 8
    upstream.reply_with(sound, kind="audio/mpeg")
    for _ in range(2):
        async with relaying(upstream, tmp_path) as [caller]:
            response, told = await caller.ask("/v1/audio/speech")
            assert (response.headers["content-type"], told) == ("audio/mpeg", sound)
    assert len(upstream.requests) == 1


async def test_a_stream_that_is_still_running_is_attached_to(upstream: FakeUpstream, tmp_path: Path) -> None:
    go_on = asyncio.Event()
    sent = events("one ", "two ", "three")
    upstream.stream(*sent[:2], go_on, sent[2], b"data: [DONE]\n\n")
    async with relaying(upstream, tmp_path, servers=2) as [caller, elsewhere]:
        async with aclosing(await caller.begin(TEXTS)) as response:
            begun = await read_until(response, b"two ")
            async with (
                aclosing(await caller.begin(TEXTS)) as second,
                aclosing(await elsewhere.begin(TEXTS)) as third,
            ):
                assert await read_until(second, b"two ") == begun
                assert await read_until(third, b"two ") == begun
                go_on.set()
                rest = await response.body()
                assert (await second.body(), await third.body()) == (rest, rest)
        assert begun + rest == b"".join(sent) + b"data: [DONE]\n\n"
        assert (await elsewhere.ask(TEXTS))[1] == begun + rest
    assert len(upstream.requests) == 1


async def test_a_reply_goes_on_without_the_one_who_asked(upstream: FakeUpstream, tmp_path: Path) -> None:
    go_on = asyncio.Event()
    sent = events("one ", "two")
    upstream.stream(sent[0], go_on, sent[1])
    async with relaying(upstream, tmp_path) as [caller]:
        async with aclosing(await caller.begin(TEXTS)) as response:
            await read_until(response, b"one ")
        go_on.set()
        assert (await caller.ask(TEXTS))[1] == b"".join(sent)
    assert len(upstream.requests) == 1


async def test_nobody_comes_back_and_the_call_ends(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.stream(*events("one "), asyncio.Event())
    async with relaying(upstream, tmp_path, grace_s=0.05) as [caller]:
        async with aclosing(await caller.begin(TEXTS)) as response:
            begun = await read_until(response, b"one ")
        async with asyncio.timeout(5):
            await upstream.hung_up.wait()

        async def is_stored() -> bool:
            return b"turn_interrupted" in (await caller.ask(TEXTS))[1]

        await until(is_stored)
        assert (await caller.ask(TEXTS))[1].startswith(begun)
    assert len(upstream.requests) == 1


async def test_ten_at_once_are_one_call(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply_with(b'{"data":[]}', kind="application/json")
    async with relaying(upstream, tmp_path, servers=2) as callers:
        told = await asyncio.gather(*(callers[n % 2].ask("/v1/embeddings") for n in range(10)))
    assert {reply for _, reply in told} == {b'{"data":[]}'}
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("path", "body", "others"),
    [
        (TEXTS, b'{"model": "m", "prompt": "bye", "stream": true}', {}),
        (TEXTS + "?a=1", ASKED, {}),
        ("/v1/embeddings", ASKED, {}),
        (TEXTS, ASKED, {"x_modelway_provider": "Fake"}),
    ],
)
async def test_another_request_with_the_key_is_refused(
    upstream: FakeUpstream, tmp_path: Path, path: str, body: bytes, others: dict[str, str]
) -> None:
    upstream.reply_with(b"{}", kind="application/json")
    async with relaying(upstream, tmp_path) as [caller]:
        await caller.ask(TEXTS)
        assert await caller.refused(path, body, **others) == (422, "idempotency_key_reused")
    assert len(upstream.requests) == 1


async def test_a_form_is_the_same_whatever_its_boundary_is(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply_with(b'{"text":"hello"}', kind="application/json")

    def form(boundary: bytes, said: bytes) -> bytes:
        field = b'--%b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n'
        file = b'--%b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--%b--\r\n'
        return field % boundary + file % (boundary, said, boundary)

    async with relaying(upstream, tmp_path) as [caller]:
        path = "/v1/audio/transcriptions"
        for boundary in ("one", "two"):
            kind = f"multipart/form-data; boundary={boundary}"
            response, told = await caller.ask(path, form(boundary.encode(), b"talk"), content_type=kind)
            assert (response.status, told) == (200, b'{"text":"hello"}')
        other = form(b"two", b"walk")
        assert await caller.refused(path, other, content_type=kind) == (422, "idempotency_key_reused")
    assert len(upstream.requests) == 1


async def test_keys_of_two_callers_never_meet(upstream: FakeUpstream, tmp_path: Path) -> None:
    for owner in ("anna", "ben"):
        upstream.reply_with(b'{"for":"%b"}' % owner.encode(), kind="application/json")
    auth = Auth({"anna": hash_key("key-a"), "ben": hash_key("key-b")})
    async with relaying(upstream, tmp_path, auth=auth) as [caller]:
        for owner in ("anna", "ben", "anna"):
            of_owner = Caller(caller._address, caller._http, f"key-{owner[0]}")
            assert (await of_owner.ask("/v1/embeddings"))[1] == b'{"for":"%b"}' % owner.encode()
    sent = [request.headers["idempotency-key"] for request in upstream.requests]
    assert len(set(sent)) == len(sent) == 2


async def test_a_key_is_free_again_where_no_reply_came(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.fail(400, "no such size")
    upstream.reply_with(b'{"data":[]}', kind="application/json")
    async with relaying(upstream, tmp_path) as [caller]:
        assert (await caller.ask(PICTURES))[0].status == 400
        assert (await caller.ask(PICTURES))[1] == b'{"data":[]}'
    assert len(upstream.requests) == 2


async def test_a_stream_that_broke_off_is_told_as_it_was(upstream: FakeUpstream, tmp_path: Path) -> None:
    sent = events("one ")
    upstream.stream(*sent, End.RESET, terminated=False)
    async with relaying(upstream, tmp_path) as [caller]:
        _, told = await caller.ask(TEXTS)
        _, again = await caller.ask(TEXTS)
    assert told == again
    assert told.startswith(sent[0])
    assert b'"code":"upstream_reset"' in told
    assert len(upstream.requests) == 1


async def test_half_an_object_is_no_reply(upstream: FakeUpstream, tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n"
    go_on = asyncio.Event()
    upstream.play(head + b'{"data":', go_on, End.RESET)
    async with relaying(upstream, tmp_path) as [caller]:
        async with aclosing(await caller.begin(PICTURES)) as response:
            go_on.set()
            with pytest.raises(UpstreamError):
                await response.body()
        assert await caller.refused(PICTURES) == (502, "upstream_reset")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("says_its_length", [True, False])
async def test_what_is_too_large_is_passed_on_once_and_not_kept(
    upstream: FakeUpstream, tmp_path: Path, says_its_length: bool
) -> None:
    sound = bytes(range(256)) * 64
    if says_its_length:
        upstream.reply_with(sound, kind="audio/mpeg")
    else:
        pieces: list[Step] = [b"%x\r\n%b\r\n" % (1024, sound[at : at + 1024]) for at in range(0, 16384, 1024)]
        head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
        upstream.play(head, *pieces, b"0\r\n\r\n")
    async with relaying(upstream, tmp_path, servers=2) as [caller, elsewhere]:
        response, told = await caller.ask("/v1/audio/speech")
        assert told == sound
        assert response.headers.get("x-modelway-kept") == ("false" if says_its_length else None)
        for one in (caller, elsewhere):
            assert await one.refused("/v1/audio/speech") == (409, "reply_not_kept")
        assert (await caller.ask("/v1/audio/speech", key="other"))[1] == sound
    assert len(upstream.requests) == 2


async def test_the_rest_of_what_is_too_large_ends_with_its_only_reader(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 90000\r\n\r\n"
    upstream.play(head + bytes(5000), asyncio.Event())
    async with relaying(upstream, tmp_path) as [caller]:
        async with aclosing(await caller.begin("/v1/audio/speech")) as response:
            assert len(await response.read()) > 0
        async with asyncio.timeout(5):
            await upstream.hung_up.wait()
        assert await caller.refused("/v1/audio/speech") == (409, "reply_not_kept")


@pytest.mark.parametrize(("key", "others"), [("", {}), ("a" * 256, {}), ("k", {"last_event_id": "3"})])
async def test_what_cannot_be_is_refused(
    upstream: FakeUpstream, tmp_path: Path, key: str, others: dict[str, str]
) -> None:
    async with relaying(upstream, tmp_path) as [caller]:
        assert await caller.refused(TEXTS, ASKED, key, **others) == (400, "invalid_request")
    assert not upstream.requests


@pytest.mark.parametrize("stream", [True, False])
async def test_several_prompts_with_a_key_are_answered_once(tmp_path: Path, stream: bool) -> None:
    go_on = asyncio.Event()
    local = Scripted("Local", says("one"), [TextDelta(text="two"), go_on, *says("three")])
    body = b'{"prompt": ["a", "b"], "stream": %b, "logit_bias": null}' % (b"true" if stream else b"false")
    async with (
        aclosing(HTTPClient(UpstreamSettings())) as http,
        serving(gateway_of([local], tmp_path)) as address,
    ):
        caller = Caller(address, http)
        first = asyncio.create_task(caller.ask(TEXTS, body))
        await until_asked(local, 2)
        second = asyncio.create_task(caller.ask(TEXTS, body))
        go_on.set()
        (response, told), (_, told_again) = await first, await second
        assert (await caller.ask(TEXTS, body))[1] == told == told_again
        assert await caller.refused(TEXTS, b'{"prompt": ["a", "c"]}') == (422, "idempotency_key_reused")
    assert response.status == 200
    assert response.headers["x-modelway-provider"] == "Local"
    assert all(word in told for word in (b"one", b"two", b"three"))
    assert told.endswith(b"data: [DONE]\n\n") == stream
    assert len(local.requests) == 2


async def test_a_kept_reply_is_in_no_list_and_at_no_address(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply_with(b'{"data":[]}', kind="application/json")
    async with relaying(upstream, tmp_path) as [caller]:
        await caller.ask(PICTURES)
        async with aclosing(
            await caller._http.request("GET", caller._address + "/v1/conversations", headers={})
        ) as response:
            assert json.loads(await response.body())["data"] == []


async def test_a_kept_reply_is_charged_for_once(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply_with(b'{"data":[],"usage":{"prompt_tokens":5,"total_tokens":5}}', kind="application/json")
    async with relaying(upstream, tmp_path) as [caller]:
        for _ in range(3):
            await caller.ask("/v1/embeddings")

        async def is_written() -> bool:
            response = await caller._http.request("GET", caller._address + "/v1/usage", headers={})
            async with aclosing(response):
                told = json.loads(await response.body())["data"]
            return [(one["requests"], one["input_tokens"]) for one in told] == [(1, 5)]

        await until(is_written)

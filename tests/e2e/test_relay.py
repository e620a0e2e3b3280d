"""Addresses that upstreams have beside chats: what reaches the upstream, and what comes back."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from modelway.auth import Auth, hash_key
from modelway.config import ProviderSettings, RouteSettings, ServerSettings, Settings, UpstreamSettings
from modelway.provider import Provider
from modelway.providers.http import HTTPClient, Response
from modelway.providers.openai_compatible import build_provider
from modelway.testing.fake_upstream import End, FakeUpstream
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
VECTORS = b'{"object":"list","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":5,"total_tokens":5}}'
JSON = {"content-type": "application/json"}


class Caller:
    """Sends requests to a server."""

    def __init__(self, address: str, http: HTTPClient) -> None:
        self.address = address
        self._http = http

    async def begin(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] = JSON
    ) -> Response:
        return await self._http.request(method, self.address + path, headers=headers, body=body)

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] = JSON
    ) -> tuple[Response, bytes]:
        response = await self.begin(method, path, body, headers)
        async with aclosing(response):
            return response, await response.body()

    async def refused(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        response, reply = await self.ask(method, path, body, {**JSON, **headers})
        return response.status, json.loads(reply)["error"]["code"]


@asynccontextmanager
async def relaying(
    upstream: FakeUpstream,
    folder: Path,
    *others: Provider,
    auth: Auth | None = None,
    max_body_bytes: int = 1_000_000,
) -> AsyncIterator[Caller]:
    """A server whose default provider is Fake; `others` come first, so that order says nothing."""
    async with aclosing(HTTPClient(UpstreamSettings(idle_timeout_s=5))) as http:
        own = ProviderSettings(base_url=upstream.url, api_key_env="KEY", default_model="chatty")
        fake = build_provider("Fake", None, own, http, lambda env, file: "upstream-key")
        routes = {"vectors": RouteSettings(candidates=("Fake/embed-3", "Fake/other"))}
        gateway = gateway_of([*others, fake], folder, Settings(provider="Fake", routes=routes))
        async with serving(gateway, auth, ServerSettings(port=0, max_body_bytes=max_body_bytes)) as address:
            yield Caller(address, http)


@pytest.mark.parametrize(
    ("model", "sent"),
    [("Fake/embed-1", "embed-1"), ("embed-1", "embed-1"), ("vectors", "embed-3"), ("fake:e", "e")],
)
async def test_the_upstream_sees_its_own_name_of_the_model(
    upstream: FakeUpstream, tmp_path: Path, model: str, sent: str
) -> None:
    upstream.reply_with(VECTORS, kind="application/json")
    async with relaying(upstream, tmp_path) as caller:
        body = b'{"model": "%b", "input": "hi", "odd": 1.10, "huge": 12345678901234567890123}'
        response, reply = await caller.ask("POST", "/v1/embeddings", body % model.encode())
    assert (response.status, reply) == (200, VECTORS)
    [received] = upstream.requests
    assert received.path == "/v1/embeddings"
    assert received.json["model"] == sent
    assert b"1.10" in received.body
    assert b"12345678901234567890123" in received.body
    assert response.headers["x-modelway-provider"] == "Fake"
    assert response.headers["x-modelway-model"] == sent
    assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("place", ["body", "query", "header"])
async def test_the_provider_may_be_named_in_three_places(
    upstream: FakeUpstream, tmp_path: Path, place: str
) -> None:
    upstream.reply_with(b"{}", kind="application/json")
    body = b'{"provider": "fake", "input": "x"}' if place == "body" else b'{"input": "x"}'
    query = "?a=1&provider=FAKE&b=%20" if place == "query" else "?a=1&b=%20"
    headers = {**JSON, "x-modelway-provider": "Fake"} if place == "header" else JSON
    async with relaying(upstream, tmp_path, Scripted("Other")) as caller:
        await caller.ask("POST", "/v1/moderations" + query, body, headers)
    [received] = upstream.requests
    assert received.json == {"input": "x"}
    assert received.path == "/v1/moderations?a=1&b=%20"


@pytest.mark.check(41)
async def test_a_caller_s_key_and_cookies_stay_here(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply_with(b"{}", kind="application/json")
    auth = Auth({"anna": hash_key("caller-key")})
    sent = {
        "authorization": "Bearer caller-key",
        "cookie": "c=1",
        "x-api-key": "caller-key",
        "te": "trailers",
    }
    async with relaying(upstream, tmp_path, auth=auth) as caller:
        await caller.ask("POST", "/v1/images/generations", b"{}", {**JSON, **sent, "openai-beta": "x=v2"})
        assert await caller.refused("POST", "/v1/images/generations", b"{}") == (401, "invalid_api_key")
    [received] = upstream.requests
    assert received.headers["authorization"] == "Bearer upstream-key"
    assert received.headers["openai-beta"] == "x=v2"
    assert not {"cookie", "x-api-key", "te"} & set(received.headers)
    assert "caller-key" not in str(received.headers)


async def test_equal_keys_of_two_callers_do_not_meet_at_the_upstream(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.reply_with(b"{}", kind="application/json")
    auth = Auth({"anna": hash_key("of-anna"), "bo": hash_key("of-bo")})
    async with relaying(upstream, tmp_path, auth=auth) as caller:
        for path in ("/v1/images/generations", "/v1/completions"):
            for key in ("of-anna", "of-bo", ""):
                sent = {"authorization": f"Bearer {key or 'of-bo'}"} | (
                    {"idempotency-key": path} if key else {}
                )
                await caller.ask("POST", path, b'{"prompt": "x"}', {**JSON, **sent})
    for three in (upstream.requests[:3], upstream.requests[3:]):
        first, other, without = [request.headers.get("idempotency-key") for request in three]
        assert first != other
        assert "/v1" not in f"{first}{other}"
        assert without is None


def form(*parts: tuple[str, bytes], boundary: str = "b0undary") -> tuple[bytes, dict[str, str]]:
    pieces = [
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (boundary.encode(), *part)
        for part in ((head.encode(), value) for head, value in parts)
    ]
    body = b"".join(pieces) + b"--%b--\r\n" % boundary.encode()
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


SOUND = ('filename="a name=model"; name="file"\r\nContent-Type: audio/wav', bytes(range(256)) * 50)


@pytest.mark.parametrize(
    "fields",
    [
        [('name="model"', b"Fake/whisper")],
        [("name=provider", b"FAKE"), ('name="model"', b"whisper")],
    ],
)
async def test_a_form_is_relayed_and_its_model_rewritten(
    upstream: FakeUpstream, tmp_path: Path, fields: list[tuple[str, bytes]]
) -> None:
    upstream.reply_with(b"hello", kind="text/plain")
    body, headers = form(SOUND, *fields)
    async with relaying(upstream, tmp_path, Scripted("Other")) as caller:
        response, reply = await caller.ask("POST", "/v1/audio/transcriptions", body, headers)
    assert (reply, response.headers["content-type"]) == (b"hello", "text/plain")
    [received] = upstream.requests
    assert received.body == form(SOUND, ('name="model"', b"whisper"))[0]
    assert received.headers["content-type"] == headers["content-type"]


async def test_a_form_without_our_fields_is_not_touched(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply_with(b"{}", kind="application/json")
    body, headers = form(SOUND, ('name="model"', b"whisper"), ("name=purpose", b"batch"))
    async with relaying(upstream, tmp_path) as caller:
        await caller.ask("POST", "/v1/files", b"preamble\r\n" + body + b"epilogue", headers)
    assert upstream.requests[0].body == b"preamble\r\n" + body + b"epilogue"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"--b\r\n", "multipart/form-data; boundary=b"),
        (b"x", "multipart/form-data; boundary=b"),
        (b"x", "multipart/form-data"),
        (form(('name="model"', b"a"), ('name="model"', b"b"))[0], "multipart/form-data; boundary=b0undary"),
        (form(('name="model"', b"m" * 1025))[0], "multipart/form-data; boundary=b0undary"),
        (form(('name="model"', b"\xff"))[0], "multipart/form-data; boundary=b0undary"),
        (b'{"model": 1}', "application/json"),
        (b'{"model": ', "application/json"),
        (b"[" * 100_000, "application/json"),
    ],
)
async def test_bodies_that_cannot_be_read_are_refused(
    upstream: FakeUpstream, tmp_path: Path, body: bytes, kind: str
) -> None:
    async with relaying(upstream, tmp_path) as caller:
        response, _ = await caller.ask("POST", "/v1/files", body, {"content-type": kind})
    assert response.status == 400
    assert not upstream.requests


async def test_forms_are_taken_for_relayed_addresses_only_and_not_from_foreign_pages(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    body, kind = form(SOUND)
    async with relaying(upstream, tmp_path) as caller:
        for path in ("/v1/chat/completions", "/v1/conversations/a/fork", "/elsewhere"):
            assert await caller.refused("POST", path, body, **kind) == (415, "unsupported_media_type")
        foreign = {**kind, "origin": "https://evil.example"}
        assert await caller.refused("POST", "/v1/files", body, **foreign) == (403, "origin_not_allowed")
        assert (await caller.refused("POST", "/v1/files", body, **{"content-type": "text/plain"}))[0] == 415
    assert not upstream.requests


async def test_files_are_listed_fetched_and_deleted(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply_with(b"\x00\x01", kind="application/octet-stream")
    async with relaying(upstream, tmp_path) as caller:
        response, reply = await caller.ask("GET", "/v1/files/file-1/content?provider=fake")
        await caller.ask("DELETE", "/v1/files/file-1")
    assert reply == b"\x00\x01"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "sandbox"
    assert [(one.method, one.path) for one in upstream.requests] == [
        ("GET", "/v1/files/file-1/content"),
        ("DELETE", "/v1/files/file-1"),
    ]


async def test_a_file_may_be_a_web_page_and_an_answer_may_not(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply_with(b"<p>mine</p>", kind="text/html")
    async with relaying(upstream, tmp_path) as caller:
        response, page = await caller.ask("GET", "/v1/files/file-1/content?a=b")
        assert (response.status, page) == (200, b"<p>mine</p>")
        assert response.headers["content-security-policy"] == "sandbox"
        assert (await caller.ask("GET", "/v1/files/file-1"))[0].status == 502


@pytest.mark.check(40, 42)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/../models",
        "/v1/files/./a",
        "/v1//files",
        "/v1/files//a",
        "/v1/files/",
        "/v1/files/%2e%2e/a",
        "/v1/files/%2e%2e%2fa",
        "/v1/files%2fa",
        "/v1/a%0db",
        "/v1/..",
        "/v1/..;/admin",
        "/v1/files/.;a=b/x",
        "/v1/",
    ],
)
async def test_an_address_cannot_lead_elsewhere(upstream: FakeUpstream, tmp_path: Path, path: str) -> None:
    async with relaying(upstream, tmp_path) as caller:
        assert await caller.refused("GET", path) == (400, "invalid_path")
    assert not upstream.requests


async def test_our_own_addresses_are_not_relayed(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with relaying(upstream, tmp_path) as caller:
        response, reply = await caller.ask("DELETE", "/v1/models")
        assert await caller.refused("POST", "/v1/providers", b"{}") == (405, "method_not_allowed")
        _, elsewhere = await caller.ask("GET", "/nowhere")
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
    assert b"use GET" in reply
    assert b"/v1/chat/completions" in elsewhere
    assert not upstream.requests


async def test_an_event_stream_comes_while_the_upstream_still_writes(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    upstream.stream(b"data: one\n\n", gate, b"data: two\n\n")
    async with relaying(upstream, tmp_path) as caller:
        response = await caller.begin("POST", "/v1/completions", b'{"stream": true}')
        async with aclosing(response):
            assert await response.read() == b"data: one\n\n"
            gate.set()
            assert await response.body() == b"data: two\n\n"
    assert response.content_type == "text/event-stream"


async def test_a_client_that_goes_away_ends_the_upstream_s_work(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.stream(b"data: one\n\n", asyncio.Event())
    async with relaying(upstream, tmp_path) as caller:
        response = await caller.begin("POST", "/v1/completions", b"{}")
        await response.read()
        await response.aclose()
        async with asyncio.timeout(5):
            await upstream.hung_up.wait()


async def test_what_breaks_off_has_no_end(upstream: FakeUpstream, tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
    async with relaying(upstream, tmp_path) as caller:
        for kind in (b"audio/mpeg", b"text/event-stream"):
            upstream.play(head % kind + b"5\r\ndata:\r\n", End.RESET)
            response = await caller.begin("POST", "/v1/audio/speech", b"{}")
            async with aclosing(response):
                with pytest.raises(Exception, match="cut"):
                    await response.body()
        upstream.play(head % b"text/event-stream" + b"9\r\ndata: 1\n\n\r\n", End.RESET)
        _, events = await caller.ask("POST", "/v1/completions", b"{}")
    whole, error, rest = events.split(b"\n\n")
    assert (whole, rest) == (b"data: 1", b"")
    assert b'"code":"upstream_reset"' in error


async def test_the_name_of_a_file_arrives_as_it_was(upstream: FakeUpstream, tmp_path: Path) -> None:
    name = b"attachment; filename=\"\xe9.txt\"; filename*=UTF-8''%C3%A9.txt"
    upstream.play(b"HTTP/1.1 200 OK\r\ncontent-disposition: %b\r\ncontent-length: 1\r\n\r\nx" % name)
    async with relaying(upstream, tmp_path) as caller:
        response, _ = await caller.ask("GET", "/v1/files/a/content")
    assert response.headers["content-disposition"].encode("latin-1") == name


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        (400, 400, "invalid_request"),
        (401, 502, "upstream_auth"),
        (404, 404, "model_not_found"),
        (429, 429, "upstream_rate_limited"),
        (500, 502, "upstream_error"),
    ],
)
async def test_an_upstream_s_error_is_mapped_as_for_chats(
    upstream: FakeUpstream, tmp_path: Path, status: int, expected: int, code: str
) -> None:
    upstream.fail(status, "no upstream-key here")
    async with relaying(upstream, tmp_path) as caller:
        response, reply = await caller.ask("POST", "/v1/embeddings", b'{"model": "m"}')
    assert (response.status, json.loads(reply)["error"]["code"]) == (expected, code)
    assert b"upstream-key" not in reply


async def test_a_failure_that_may_pass_is_tried_again(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.fail(503, "busy", retry_after="0")
    upstream.reply_with(VECTORS, kind="application/json")
    async with relaying(upstream, tmp_path) as caller:
        response, _ = await caller.ask("POST", "/v1/embeddings", b'{"model": "m"}')
    assert response.status == 200
    assert len(upstream.requests) == 2


async def test_what_fails_at_a_relayed_address_does_not_keep_chats_away(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    for _ in range(6):
        upstream.fail(500, retry_after="60")
    upstream.reply("hi")
    body = b'{"model": "Fake/chatty", "input": "x"}'
    chat = b'{"model": "Fake/chatty", "messages": [{"role": "user", "content": "hi"}]}'
    async with relaying(upstream, tmp_path) as caller:
        for _ in range(5):
            assert await caller.refused("POST", "/v1/embeddings", body) == (502, "upstream_error")
        assert await caller.refused("POST", "/v1/embeddings", body) == (503, "provider_unavailable")
        assert await caller.refused("POST", "/v1/moderations", body) == (502, "upstream_error")
        response, _ = await caller.ask("POST", "/v1/chat/completions", chat)
        _, told = await caller.ask("GET", "/v1/providers/Fake")
    assert response.status == 200
    assert json.loads(told)["health"] == "ok"


async def test_a_provider_without_other_addresses_names_one_that_has_them(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with relaying(upstream, tmp_path, Scripted("Other")) as caller:
        response, reply = await caller.ask("POST", "/v1/embeddings", b'{"model": "Other/e"}')
        assert await caller.refused("POST", "/v1/embeddings", b'{"provider": "no"}') == (
            404,
            "provider_not_found",
        )
    assert response.status == 404
    assert "answers chats only" in json.loads(reply)["error"]["message"]
    assert json.loads(reply)["error"]["param"] == "provider"
    assert "GET /v1/providers lists them" in json.loads(reply)["error"]["message"]
    assert not upstream.requests


async def test_a_body_larger_than_the_limit_is_refused(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with relaying(upstream, tmp_path, max_body_bytes=2000) as caller:
        body, kind = form(SOUND)
        assert await caller.refused("POST", "/v1/files", body, **kind) == (413, "request_too_large")


async def test_the_log_s_line_counts_the_tokens(
    upstream: FakeUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "modelway.request")
    upstream.reply_with(VECTORS, kind="application/json")
    async with relaying(upstream, tmp_path) as caller:
        await caller.ask("POST", "/v1/embeddings", b'{"model": "m"}')
    [line] = [
        msgspec.json.decode(record.message) for record in caplog.records if record.name == "modelway.request"
    ]
    assert (line["dialect"], line["path"], line["provider"]) == ("relay", "embeddings", "Fake")
    assert (line["input_tokens"], line["status"], len(line["attempts"])) == (5, 200, 1)

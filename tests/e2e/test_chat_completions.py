"""POST /v1/chat/completions over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelway.auth import Auth, hash_key
from modelway.config import ServerSettings, Settings, UpstreamSettings
from modelway.errors import SignInRequired, UpstreamRateLimited, UpstreamTimeout
from modelway.gateway import Gateway
from modelway.providers.http import HTTPClient, Response
from modelway.types import Finish, ReasoningDelta, TextDelta, Usage
from tests.polling import until
from tests.scripted import Scripted, says
from tests.serving import gateway_of, quick_settings, serving

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"


class Caller:
    """Sends requests as a program would, byte for byte."""

    def __init__(self, address: str, http: HTTPClient) -> None:
        self.address = address
        self._http = http

    async def post(self, body: Any, path: str = CHAT, **headers: str) -> Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return await self._http.request("POST", self.address + path, headers=sent, body=raw)

    async def error(self, body: Any, path: str = CHAT, **headers: str) -> tuple[int, dict[str, Any]]:
        response = await self.post(body, path, **headers)
        async with aclosing(response):
            value = json.loads(await response.body())
        assert value.keys() == {"error"}
        assert value["error"].keys() == {"message", "type", "param", "code"}
        assert response.headers["x-request-id"].startswith("req_")
        return response.status, value["error"]

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self._http.request("GET", self.address + path, headers=sent)
        async with aclosing(response):
            return response.status, json.loads(await response.body())

    async def get_raw(self, path: str) -> int:
        """The status alone."""
        response = await self._http.request("GET", self.address + path, headers={})
        await response.aclose()
        return response.status

    async def chunks(self, body: Any, path: str = CHAT) -> list[Any]:
        response = await self.post({"stream": True, **body}, path)
        async with aclosing(response):
            return parse(await response.body())


def parse(stream: bytes) -> list[Any]:
    parts = [part for part in stream.decode().split("\n\n") if part and not part.startswith(":")]
    if parts and parts[0].startswith("id: "):
        assert [part.partition("\n")[0] for part in parts] == [
            f"id: {number}" for number in range(len(parts))
        ]
        parts = [part.partition("\n")[2] for part in parts]
    assert all(part.startswith("data: ") for part in parts)
    return [part[6:] if part == "data: [DONE]" else json.loads(part[6:]) for part in parts]


def asking(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


@asynccontextmanager
async def calling(
    gateway: Gateway, auth: Auth | None = None, settings: ServerSettings | None = None
) -> AsyncIterator[Caller]:
    async with serving(gateway, auth, settings) as address, aclosing(HTTPClient(UpstreamSettings())) as http:
        yield Caller(address, http)


async def test_a_stream_has_our_fields_in_its_first_chunk_and_ends_with_done(tmp_path: Path) -> None:
    local = Scripted("Local", [ReasoningDelta(text="hm"), *says("Hel", "lo")])
    async with calling(gateway_of([local], tmp_path)) as caller:
        *chunks, done = await caller.chunks(asking(provider="local", conversation_id="c-1"))
    assert done == "[DONE]"
    assert (chunks[0]["provider"], chunks[0]["conversation_id"]) == ("Local", "c-1")
    assert all(chunk["choices"] for chunk in chunks)
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert chunks[0]["choices"][0]["delta"]["reasoning_content"] == "hm"
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "Hello"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_whole_answer_says_who_gave_it(tmp_path: Path) -> None:
    async with calling(gateway_of([Scripted("Local", says("Hi"))], tmp_path)) as caller:
        response = await caller.post(asking(conversation_id="c"))
        async with aclosing(response):
            answer = json.loads(await response.body())
    assert answer["choices"][0]["message"]["content"] == "Hi"
    assert (answer["provider"], answer["conversation_id"]) == ("Local", "c")
    assert answer["usage"]["total_tokens"] == 2
    assert response.headers["x-modelway-provider"] == "Local"
    assert response.headers["x-modelway-model"] == "local-1"
    assert response.headers["x-modelway-conversation-id"] == "c"


async def test_usage_comes_last_where_it_was_asked_for(tmp_path: Path) -> None:
    async with calling(gateway_of([Scripted("Local")], tmp_path)) as caller:
        *_, usage, done = await caller.chunks(asking(stream_options={"include_usage": True}))
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "/api/local/chat/completions",
        "/api/LOCAL/c-9/chat/completions",
        "/v1/chat/completions?provider=Local&conversation_id=c-9",
    ],
)
async def test_provider_and_conversation_may_stand_in_the_address(tmp_path: Path, path: str) -> None:
    providers = [Scripted("Other"), Scripted("Local", says("it is me"))]
    async with calling(gateway_of(providers, tmp_path)) as caller:
        first, *_ = await caller.chunks(asking(), path)
        assert first["provider"] == "Local"
        assert first.get("conversation_id", "c-9") == "c-9"


async def test_provider_and_conversation_may_stand_in_headers(tmp_path: Path) -> None:
    providers = [Scripted("Other"), Scripted("Local")]
    async with calling(gateway_of(providers, tmp_path)) as caller:
        response = await caller.post(asking(), x_modelway_provider="Local", x_modelway_conversation_id="c")
        async with aclosing(response):
            answer = json.loads(await response.body())
    assert (answer["provider"], answer["conversation_id"]) == ("Local", "c")


async def test_two_places_that_differ_are_refused(tmp_path: Path) -> None:
    async with calling(gateway_of([Scripted("Local"), Scripted("Other")], tmp_path)) as caller:
        status, error = await caller.error(asking(provider="Other"), "/api/Local/chat/completions")
    assert (status, error["param"]) == (400, "provider")


BAD = [
    (b"{broken", 400, "invalid_json", None),
    (b"[" * 100_000, 400, "invalid_json", None),
    (b'{"messages":[{"role":"user","content":"\\ud800"}]}', 400, "invalid_json", None),
    (asking(temperature="hot"), 400, "invalid_request", "temperature"),
    ({"messages": []}, 400, "invalid_request", "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, 400, "invalid_request", "messages[0].role"),
    (asking(provider="Nobody"), 404, "provider_not_found", "provider"),
    (asking(model="gpt-99"), 404, "model_not_found", "model"),
    (asking(conversation_id="x" * 10_000), 400, "invalid_request", "conversation_id"),
    (asking(conversation_id="../../etc"), 400, "invalid_request", "conversation_id"),
    (asking(conversation_id="a\r\nb: c"), 400, "invalid_request", "conversation_id"),
    (b'{"messages":"' + b"x" * 50_000_000 + b'"}', 413, "request_too_large", None),
]


@pytest.mark.check(24, 25, 42)
async def test_bad_input_is_told_what_is_wrong_and_stores_nothing(tmp_path: Path) -> None:
    gateway = gateway_of([Scripted("Local")], tmp_path)
    async with calling(gateway) as caller:
        for body, status, code, param in BAD:
            found, error = await caller.error(body)
            assert (found, error["code"], error["param"]) == (status, code, param), error
            assert len(error["message"]) < 500
        assert (await caller.get("/healthz"))[0] == 200
        assert (await caller.get("/v1/conversations"))[1]["data"] == []


async def test_an_error_before_the_stream_has_its_status(tmp_path: Path) -> None:
    copilot = Scripted("Copilot", [SignInRequired("nobody has signed in")])
    limited = Scripted("Limited", [UpstreamRateLimited("slow down", retry_after=42)])
    async with calling(gateway_of([copilot, limited], tmp_path)) as caller:
        assert (await caller.error(asking(stream=True)))[0] == 401
        response = await caller.post(asking(stream=True, provider="Limited"))
        await response.aclose()
    assert response.status == 429
    assert response.headers["retry-after"] == "42"
    assert response.headers["x-should-retry"] == "false"


async def test_an_error_inside_the_stream_is_its_last_event(tmp_path: Path) -> None:
    broken = Scripted(
        "Broken", [TextDelta(text="half"), UpstreamTimeout("it stalled", code="upstream_stalled")]
    )
    gateway = gateway_of([broken], tmp_path)
    async with calling(gateway) as caller:
        chunks = await caller.chunks(asking(conversation_id="c"))
        _, shown = await caller.get("/v1/conversations/c")
    assert chunks[0]["choices"][0]["delta"]["content"] == "half"
    assert chunks[-1]["error"]["code"] == "upstream_stalled"
    assert "[DONE]" not in chunks
    assert shown["turns"][0]["status"] == "interrupted"


async def test_a_bug_is_a_500_without_details(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(Scripted):
        async def stream(self, request: Any) -> Any:
            yield TextDelta(text=str(1 // len(request.upstream_state or "")))

    async with calling(gateway_of([Buggy("Buggy")], tmp_path)) as caller:
        status, error = await caller.error(asking())
    assert (status, error["code"]) == (500, "internal_error")
    assert "division" not in error["message"]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.check(6)
async def test_a_client_that_goes_away_ends_the_upstream_call(tmp_path: Path) -> None:
    forever = asyncio.Event()
    slow = Scripted("Slow", [TextDelta(text="half"), forever, *says("never")])
    gateway = gateway_of([slow], tmp_path)
    async with calling(gateway) as caller:
        response = await caller.post(asking(stream=True, conversation_id="c"))
        assert b"half" in await response.read()
        await response.aclose()
        async with asyncio.timeout(1):
            await until(lambda: slow.closed)
            while (shown := (await caller.get("/v1/conversations/c"))[1])["turns"][0]["status"] == "open":
                await asyncio.sleep(0.01)
    assert shown["turns"][0]["status"] == "interrupted"
    assert [message["content"] for message in shown["messages"]] == ["hi", "half"]


@pytest.mark.check(6)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_before_the_first_byte_ends_the_call_too(
    tmp_path: Path, stream: bool
) -> None:
    silent = Scripted("Silent", [asyncio.Event()])
    async with calling(gateway_of([silent], tmp_path)) as caller:
        task = asyncio.create_task(caller.post(asking(stream=stream)))
        await until(lambda: silent.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: silent.closed, 1)


async def test_a_silent_upstream_is_bridged_by_comments(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    slow = Scripted("Slow", [TextDelta(text="a"), go_on, TextDelta(text="b"), Finish(usage=Usage(1, 1))])
    settings = ServerSettings(port=0, keep_alive_s=0.02)
    async with calling(gateway_of([slow], tmp_path), settings=settings) as caller:
        response = await caller.post(asking(stream=True))
        async with aclosing(response):
            stream = b""
            while stream.count(b": keep-alive\n\n") < 2:
                stream += await response.read()
            go_on.set()
            stream += await response.body()
    assert [chunk["choices"][0]["delta"].get("content") for chunk in parse(stream)[:-1]] == ["a", "b", None]


@pytest.mark.parametrize("end", [TextDelta(text="a"), UpstreamTimeout("gave up")])
async def test_an_upstream_that_thinks_long_before_its_first_word_is_bridged_too(
    tmp_path: Path, end: TextDelta | UpstreamTimeout
) -> None:
    go_on = asyncio.Event()
    slow = Scripted("Slow", [go_on, end, Finish(usage=Usage(1, 1))])
    settings = ServerSettings(port=0, keep_alive_s=0.02)
    async with calling(gateway_of([slow], tmp_path), settings=settings) as caller:
        response = await caller.post(asking(stream=True))
        async with aclosing(response):
            assert response.status == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            stream = b""
            while stream.count(b": keep-alive\n\n") < 2:
                stream += await response.read()
            go_on.set()
            stream += await response.body()
    first = parse(stream)[0]
    if isinstance(end, TextDelta):
        assert (first["choices"][0]["delta"]["content"], first["provider"]) == ("a", "Slow")
    else:
        assert first["error"]["code"] == "upstream_timeout"


@pytest.mark.check(4)
async def test_a_second_turn_at_the_same_time_is_told_busy(tmp_path: Path) -> None:
    forever = asyncio.Event()
    slow = Scripted("Slow", [TextDelta(text="a"), forever])
    gateway = gateway_of([slow], tmp_path, quick_settings(provider="Slow"))
    async with calling(gateway) as caller:
        response = await caller.post(asking(stream=True, conversation_id="c"))
        async with aclosing(response):
            await response.read()
            status, error = await caller.error(asking(conversation_id="c"))
    assert (status, error["code"]) == (409, "conversation_busy")


KEYS = Auth({"alice": hash_key("sk-fake-alice"), "bob": hash_key("sk-fake-bob")})


async def test_every_address_but_the_health_checks_needs_a_key(tmp_path: Path) -> None:
    from modelway.server.app import OPEN_PATHS, Application
    from modelway.telemetry import Telemetry

    gateway = gateway_of([Scripted("Local")], tmp_path)
    routes = Application(gateway, KEYS, Telemetry(), ServerSettings()).routes
    async with calling(gateway, KEYS) as caller:
        for route in routes:
            if route.path in OPEN_PATHS:
                assert (await caller.get(route.path))[0] == 200
                continue
            for key in ("", "Bearer sk-fake-alic", "Basic sk-fake-alice"):
                response = await caller.post(b"", route.path, authorization=key)
                async with aclosing(response):
                    error = json.loads(await response.body())["error"]
                assert response.status == 401, route.path
                # In the format of the address: Ollama's errors are words alone.
                assert isinstance(error, str) or error["code"] == "invalid_api_key", route.path
        assert (await caller.get("/nowhere"))[0] == 401


@pytest.mark.check(34)
async def test_two_callers_with_one_conversation_id_never_meet(tmp_path: Path) -> None:
    local = Scripted("Local", says("x"))
    gateway = gateway_of([local], tmp_path)
    async with calling(gateway, KEYS) as caller:
        for key in ("sk-fake-alice", "sk-fake-bob"):
            response = await caller.post(asking(key, conversation_id="c"), authorization=f"Bearer {key}")
            await response.body()
            await response.aclose()
        assert [len(request.messages) for request in local.requests] == [1, 1]
        status, shown = await caller.get("/v1/conversations/c", authorization="Bearer sk-fake-bob")
        assert status == 200
        assert shown["messages"][0]["content"] == "sk-fake-bob"
        response = await caller.post(
            asking("a", conversation_id="hers"), authorization="Bearer sk-fake-alice"
        )
        await response.body()
        await response.aclose()
        for path in ("", "/export"):
            found = await caller.get(f"/v1/conversations/hers{path}", authorization="Bearer sk-fake-bob")
            unknown = await caller.get(f"/v1/conversations/none{path}", authorization="Bearer sk-fake-bob")
            assert found[0] == unknown[0] == 404


async def test_settings_reach_the_default_provider(tmp_path: Path) -> None:
    settings = Settings(provider="Two", model="special")
    two = Scripted("Two")
    async with calling(gateway_of([Scripted("One"), two], tmp_path, settings)) as caller:
        await caller.chunks(asking())
    assert two.requests[0].model == "special"

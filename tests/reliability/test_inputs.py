"""Requests that nobody should send, and what they get."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelway.config import ServerSettings
from tests.e2e.test_chat_completions import asking, calling
from tests.scripted import Scripted
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio

MESSAGE = b'{"messages":[{"role":"user","content":"hi"}]'


@pytest.mark.check(24)
@pytest.mark.parametrize(
    "body",
    [
        MESSAGE + b',"temperature":NaN}',
        MESSAGE + b',"temperature":1e999}',
        MESSAGE + b',"seed":-Infinity}',
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b'{"messages":[{"role":"user","content":"hi"}],"x":"\x00"}',
        b"[" * 100_000 + b"]" * 100_000,
        MESSAGE + b',"tools":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b"",
        b"null",
        b"[]",
        b'"' + b"x" * 100_000,
    ],
    ids=lambda body: repr(body[-20:]),
)
async def test_json_that_is_none_is_refused_and_stored_nowhere(tmp_path: Path, body: bytes) -> None:
    local = Scripted("Local")
    async with calling(gateway_of([local], tmp_path)) as caller:
        status, error = await caller.error(body)
        assert (status, error["code"]) in {(400, "invalid_json"), (400, "invalid_request")}
        assert (await caller.get("/v1/conversations"))[1]["data"] == []
    assert local.requests == []


@pytest.mark.check(24)
async def test_of_a_key_that_comes_twice_the_last_one_counts_everywhere(tmp_path: Path) -> None:
    local = Scripted("Local")
    async with calling(gateway_of([local], tmp_path)) as caller:
        response = await caller.post(MESSAGE + b',"temperature":0.5,"temperature":0.25}')
        await response.aclose()
    assert response.status == 200
    assert local.requests[0].params.temperature == 0.25


@pytest.mark.check(25)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 10**6}, "n"),
        ({"n": 0}, "n"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 1e9}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"seed": 2**70}, "seed"),
        ({"stop": ["x"] * 1000}, "stop"),
        ({"messages": [{"role": "user", "content": "x"}] * 100_000}, "messages"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_numbers_out_of_bounds_name_their_field(
    tmp_path: Path, fields: dict[str, Any], param: str
) -> None:
    local = Scripted("Local")
    async with calling(gateway_of([local], tmp_path)) as caller:
        status, error = await caller.error(asking(**fields))
    assert (status, error["param"]) == (400, param)
    assert local.requests == []


@pytest.mark.check(26)
@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": 7, "content": {"private": "secret-words"}}] * 10_000},
        {"tools": [{"type": "function", "function": {"name": ["secret-words"] * 3}}] * 10_000},
        {"stop": [{"secret-words": number} for number in range(10_000)]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": {"a": "secret-words"}}] * 10_000}
            ]
        },
    ],
    ids=["messages", "tools", "stop", "parts"],
)
async def test_ten_thousand_faults_get_a_short_answer_without_them(
    tmp_path: Path, fields: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    async with calling(gateway_of([Scripted("Local")], tmp_path)) as caller:
        response = await caller.post({**asking(), **fields})
        body = await response.body()
    assert response.status == 400
    assert len(body) <= 4096
    assert b"secret-words" not in body
    record_property("figure", f"at most {len(body)} bytes")


@pytest.mark.check(40)
async def test_no_address_in_a_request_is_ever_called(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        image = [{"type": "image_url", "image_url": {"url": f"{url}/cat.png"}}]
        local = Scripted("Local")
        async with calling(gateway_of([local], tmp_path), settings=ServerSettings(port=0)) as caller:
            for field in ("base_url", "api_base", "endpoint", "proxy"):
                response = await caller.post(asking(**{field: url}))
                await response.aclose()
                assert response.status in {200, 400}
                response = await caller.post(asking(), f"/v1/chat/completions?{field}={url}", **{field: url})
                await response.aclose()
                assert response.status in {200, 400}
            for provider in (url, "http://169.254.169.254", "file:///etc/passwd", "Local@127.0.0.1"):
                status, error = await caller.error(asking(provider=provider))
                assert (status, error["param"]) == (404, "provider")
            response = await caller.post({"messages": [{"role": "user", "content": image}]})
            await response.aclose()
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.check(42)
@pytest.mark.parametrize(
    "name",
    ["..%2f..%2fx", "%2e%2e%2f", "a%0d%0ab:c", "x" * 10_000, "%e2%80%ae", "a%00b", "a%2fb", "%5c%5chost"],
)
async def test_a_name_that_climbs_or_splits_leads_nowhere(tmp_path: Path, name: str) -> None:
    async with calling(gateway_of([Scripted("Local")], tmp_path)) as caller:
        for path in ("/v1/conversations/", "/v1/models/", "/v1/responses/", "/c/", "/static/"):
            assert await caller.get_raw(path + name) in {400, 404}
    assert {file.name for file in tmp_path.iterdir()} <= {
        "conversations.sqlite3",
        "conversations.sqlite3-wal",
        "conversations.sqlite3-shm",
        "leases",
    }

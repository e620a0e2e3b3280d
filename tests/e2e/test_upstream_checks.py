"""What callers see of an upstream that fails: checks 9 to 20 and 41 of the reliability list."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from modelway.bench.faults import FAULTS, SYMBOL, TEXT, WORDS, Asked
from modelway.config import ProviderSettings, RouteSettings, Settings, UpstreamSettings
from modelway.dialects.openai_chat import EventDecoder
from modelway.provider import Provider
from modelway.providers._dial import AddressInfo, resolve
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import build_provider
from modelway.testing import FaultyUpstream
from modelway.types import Event, collect
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

LIMITS = UpstreamSettings(
    connect_timeout_s=2,
    first_byte_timeout_s=0.6,
    idle_timeout_s=0.6,
    max_event_bytes=1 << 20,
    max_response_bytes=4 << 20,
)
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


class Reply:
    """What a caller got: in a stream, the text and then the error, if there was one."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, seconds: float) -> None:
        self.status, self.headers, self.seconds = status, headers, seconds
        self.text, self.finish, self.done = "", "", False
        self.error: dict[str, Any] = {}
        if headers["content-type"].startswith("text/event-stream"):
            for part in body.split(b"\n\n"):
                self._read(part)
        else:
            self._take(json.loads(body))

    @property
    def code(self) -> str:
        return str(self.error.get("code", ""))

    def _read(self, part: bytes) -> None:
        data = part.removeprefix(b"data: ")
        if data == b"[DONE]":
            self.done = True
        elif part.startswith(b"data: "):
            self._take(json.loads(data))

    def _take(self, value: dict[str, Any]) -> None:
        self.error = value.get("error") or self.error
        for choice in value.get("choices", ()):
            said = choice.get("delta") or choice.get("message") or {}
            self.text += said.get("content") or ""
            self.finish = choice["finish_reason"] or self.finish


class Bench:
    """A faulty upstream, a server in front of it, and a caller."""

    def __init__(self, upstream: FaultyUpstream, address: str, http: HTTPClient) -> None:
        self.upstream = upstream
        self._address = address
        self._http = http

    async def ask(self, *, stream: bool = True, model: str = "", **headers: str) -> Reply:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream, "model": model}
        sent = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        started = time.monotonic()
        url = self._address + "/v1/chat/completions"
        response = await self._http.request("POST", url, headers=sent, body=json.dumps(body).encode())
        async with aclosing(response):
            read = await response.body()
        return Reply(response.status, response.headers, read, time.monotonic() - started)


async def _resolve(host: str, port: int) -> Sequence[AddressInfo]:
    if host.endswith(".invalid"):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")
    return await resolve(host, port)


@asynccontextmanager
async def bench(
    folder: Path, *faults: str, limits: UpstreamSettings = LIMITS, settings: Settings | None = None
) -> AsyncIterator[Bench]:
    """The first fault is the default provider's, the others are its fallbacks; a URL is taken as it is."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FaultyUpstream())
        http = await stack.enter_async_context(aclosing(HTTPClient(limits, resolve=_resolve)))
        caller = await stack.enter_async_context(aclosing(HTTPClient(UpstreamSettings())))
        providers = [_provider(f"Up{n}", _url(upstream, fault), http) for n, fault in enumerate(faults)]
        names = tuple(provider.info.name for provider in providers)
        chosen = replace(settings or Settings(), provider=names[0], fallback=names[1:])
        address = await stack.enter_async_context(serving(gateway_of(providers, folder, chosen)))
        yield Bench(upstream, address, caller)


def _url(upstream: FaultyUpstream, fault: str) -> str:
    if fault == "refuse":
        return upstream.refused_url
    if fault == "tls":
        return upstream.url().replace("http://", "https://")
    return fault if "://" in fault else upstream.url(fault)


def _provider(name: str, url: str, http: HTTPClient) -> Provider:
    settings = ProviderSettings(base_url=url, default_model="m", api_key_env=f"KEY_OF_{name}")
    return build_provider(name, None, settings, http, lambda variable, path: f"key-{name}")


@STREAMED
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("refuse", "upstream_unreachable"),
        ("http://nowhere.invalid/v1", "upstream_dns"),
        ("tls", "upstream_tls"),
        ("reset", "upstream_unreachable"),
        ("empty", "upstream_unreachable"),
    ],
)
async def test_check_09_an_upstream_that_is_not_there_is_502_and_the_next_one_answers(
    tmp_path: Path, fault: str, code: str, stream: bool
) -> None:
    async with bench(tmp_path, fault) as alone:
        reply = await alone.ask(stream=stream)
        assert (reply.status, reply.code) == (502, code)
        assert reply.seconds < 5.5
    async with bench(tmp_path, fault, "ok") as two:
        reply = await two.ask(stream=stream)
        assert (reply.status, reply.text) == (200, TEXT)
        assert reply.headers["x-modelway-provider"] == "Up1"


@STREAMED
@pytest.mark.parametrize("fault", ["silent", "silent-body"])
async def test_check_10_a_stall_before_the_first_byte_is_504_and_the_next_one_answers(
    tmp_path: Path, fault: str, stream: bool
) -> None:
    async with bench(tmp_path, fault) as alone:
        reply = await alone.ask(stream=stream)
        assert (reply.status, reply.code) == (504, "upstream_timeout")
        assert 0.25 < reply.seconds < 5
        assert len(alone.upstream.heard) == 1
    async with bench(tmp_path, fault, "ok") as two:
        assert (await two.ask(stream=stream)).text == TEXT


async def test_check_11_a_stall_inside_the_answer_is_an_error_event_at_the_limit(tmp_path: Path) -> None:
    async with bench(tmp_path, "stall:3", "ok") as stalled:
        reply = await stalled.ask()
        assert (reply.status, reply.text, reply.code) == (200, "".join(WORDS[:3]), "upstream_stalled")
        assert not reply.done
        assert not reply.finish
        assert 0.25 < reply.seconds < 5
        assert [one.fault for one in stalled.upstream.heard] == ["stall:3"]


async def test_check_11_a_whole_answer_that_stalls_is_given_up_and_the_next_one_answers(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, "stall") as alone:
        reply = await alone.ask(stream=False)
        assert (reply.status, reply.code) == (504, "upstream_stalled")
    async with bench(tmp_path, "stall", "ok") as two:
        assert (await two.ask(stream=False)).text == TEXT


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("reset-inside:3", "upstream_reset"),
        ("cut:3", "upstream_truncated"),
        ("wrong-length", "upstream_reset"),
    ],
)
async def test_check_12_a_broken_stream_never_looks_finished_and_is_never_sent_again(
    tmp_path: Path, fault: str, code: str
) -> None:
    async with bench(tmp_path, fault, "ok") as broken:
        reply = await broken.ask()
        assert (reply.status, reply.code) == (200, code)
        assert reply.text
        assert TEXT.startswith(reply.text)
        assert not reply.finish
        assert not reply.done
        assert [one.fault for one in broken.upstream.heard] == [fault]


@STREAMED
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("malformed:0", 502, "upstream_malformed"),
        ("html", 502, "upstream_malformed"),
        ("error-inside:0", 502, "upstream_error"),
        ("cut:0", 502, "upstream_truncated"),
    ],
)
async def test_check_13_what_is_no_answer_is_an_error_of_its_own_and_the_next_one_answers(
    tmp_path: Path, fault: str, status: int, code: str, stream: bool
) -> None:
    if fault.startswith("cut") and not stream:
        code = "upstream_reset"  # less came than was announced
    async with bench(tmp_path, fault) as alone:
        reply = await alone.ask(stream=stream)
        assert (reply.status, reply.code) == (status, code)
    async with bench(tmp_path, fault, "ok") as two:
        assert (await two.ask(stream=stream)).text == TEXT


@pytest.mark.parametrize(
    ("fault", "code"), [("malformed:2", "upstream_malformed"), ("error-inside:2", "upstream_error")]
)
async def test_check_13_nonsense_inside_a_stream_ends_it_with_an_error(
    tmp_path: Path, fault: str, code: str
) -> None:
    async with bench(tmp_path, fault, "ok") as broken:
        reply = await broken.ask()
        assert (reply.text, reply.code, reply.done) == ("".join(WORDS[:2]), code, False)


@STREAMED
@pytest.mark.parametrize("fault", ["ok", "cr", "crlf", "comments", "drip:0"])
async def test_check_14_every_form_of_a_stream_reads_the_same(
    tmp_path: Path, fault: str, stream: bool
) -> None:
    async with bench(tmp_path, fault) as odd:
        reply = await odd.ask(stream=stream)
        assert (reply.status, reply.text, reply.finish, reply.code) == (200, TEXT, "stop", "")


@given(fault=st.sampled_from(["ok", "cr", "crlf", "comments"]), cuts=st.lists(st.integers(1, 2000)))
def test_check_14_a_stream_may_be_cut_at_every_byte(fault: str, cuts: list[int]) -> None:
    steps = FAULTS[fault].play(Asked("", stream=True, port=0, path=""))
    wire = b"".join(step for step in steps if isinstance(step, bytes))
    body = _unchunked(wire.partition(b"\r\n\r\n")[2])
    decoder = EventDecoder()
    edges = sorted({0, *(cut % len(body) for cut in cuts), len(body)})
    events: list[Event] = []
    for start, end in pairwise(edges):
        events.extend(decoder.feed(body[start:end]))
    events.extend(decoder.close())
    assert collect(events).text == TEXT


def _unchunked(body: bytes) -> bytes:
    pieces = []
    while size := int(body.partition(b"\r\n")[0], 16):
        rest = body.partition(b"\r\n")[2]
        pieces.append(rest[:size])
        body = rest[size + 2 :]
    return b"".join(pieces)


@pytest.mark.parametrize(("said", "least_s"), [("0.2", 0.2), ("0", 0)])
async def test_check_15_retry_after_is_honoured_up_to_the_cap(
    tmp_path: Path, said: str, least_s: float
) -> None:
    async with bench(tmp_path, f"retry-after:{said}+ok") as limited:
        reply = await limited.ask()
        assert (reply.status, reply.text) == (200, TEXT)
        assert least_s <= reply.seconds < 5


@pytest.mark.parametrize(
    ("said", "told"),
    [("date", range(1, 3)), ("absurd", [86400]), ("7", [7]), ("missing", None), ("garbage", None)],
)
async def test_check_15_a_pause_beyond_the_cap_is_passed_on(
    tmp_path: Path, said: str, told: Sequence[int] | None
) -> None:
    async with bench(tmp_path, f"retry-after:{said}") as limited:
        reply = await limited.ask()
        assert (reply.status, reply.code) == (429, "upstream_rate_limited")
        # Without a word of when, it is asked once more, after a pause of our own.
        assert len(limited.upstream.heard) == (1 if told else 2)
        if told:
            assert int(reply.headers["retry-after"]) in told
        else:
            assert "retry-after" not in reply.headers
    async with bench(tmp_path, f"retry-after:{said}", "ok") as two:
        assert (await two.ask()).text == TEXT


@STREAMED
@pytest.mark.parametrize(
    ("status", "told", "code"),
    [
        (500, 502, "upstream_error"),
        (502, 502, "upstream_error"),
        (503, 503, "upstream_overloaded"),
        (529, 503, "upstream_overloaded"),
    ],
)
async def test_check_16_a_failing_upstream_is_asked_again_then_the_next_one(
    tmp_path: Path, status: int, told: int, code: str, stream: bool
) -> None:
    async with bench(tmp_path, f"status:{status}") as alone:
        reply = await alone.ask(stream=stream)
        assert (reply.status, reply.code) == (told, code)
        assert reply.headers["x-should-retry"] == "false"
        assert len(alone.upstream.heard) == 2
    async with bench(tmp_path, f"status:{status}+ok") as shaky:
        assert (await shaky.ask(stream=stream)).text == TEXT


async def test_check_16_retries_are_at_most_as_many_as_set_and_end_with_the_deadline(tmp_path: Path) -> None:
    routes = {
        "patient": RouteSettings(candidates=("Up0",), retries=2),
        "hurried": RouteSettings(candidates=("Up0",), retries=10, deadline_s=0.6),
    }
    async with bench(tmp_path, "status:500", settings=Settings(routes=routes)) as failing:
        patient = await failing.ask(model="patient")
        assert (patient.status, len(failing.upstream.heard)) == (502, 3)
        assert 0.375 <= patient.seconds < 5
        failing.upstream.forget()
        hurried = await failing.ask(model="hurried")
        # The deadline comes between two calls or, where the machine stands still, inside one.
        assert hurried.status in {502, 504}
        assert len(failing.upstream.heard) <= 4
        assert hurried.seconds < 5


@pytest.mark.parametrize("status", [401, 403])
async def test_check_17_a_refused_key_is_ours_and_not_the_caller_s(tmp_path: Path, status: int) -> None:
    async with bench(tmp_path, f"status:{status}") as refused:
        reply = await refused.ask()
        assert (reply.status, reply.code) == (502, "upstream_auth")
        assert "KEY_OF_Up0" in reply.error["message"]
        assert "key-Up0" not in reply.error["message"]
        assert "www-authenticate" not in reply.headers
    async with bench(tmp_path, f"status:{status}", "ok") as two:
        assert (await two.ask()).text == TEXT


@STREAMED
async def test_check_18_characters_are_joined_and_bytes_that_are_none_replaced(
    tmp_path: Path, stream: bool
) -> None:
    async with bench(tmp_path, "split-utf8") as torn:
        assert (await torn.ask(stream=stream)).text == SYMBOL * 3
    async with bench(tmp_path, "invalid-utf8") as broken:
        reply = await broken.ask(stream=stream)
        assert reply.text == "The \ufffd\ufffdfox"
        assert reply.finish == "stop"


@pytest.mark.parametrize(
    ("fault", "stream"),
    [("huge-event:10", True), ("huge-event:10", False), ("gzip-bomb:1024", True), ("huge-header:5", True)],
)
async def test_check_19_too_much_is_given_up_without_filling_memory(
    tmp_path: Path, fault: str, stream: bool
) -> None:
    resource = pytest.importorskip("resource", reason="Windows tells it in another way")
    async with bench(tmp_path, fault) as flood:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reply = await flood.ask(stream=stream)
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert (reply.status, reply.code) == (502, "upstream_too_large")
        assert grown_kb < 50_000 + 16_384  # of which the upstream in this process needs one block to squeeze


@STREAMED
async def test_check_20_a_redirect_is_told_and_the_key_stays(tmp_path: Path, stream: bool) -> None:
    async with bench(tmp_path, "redirect") as moved:
        reply = await moved.ask(stream=stream)
        assert (reply.status, reply.code) == (502, "upstream_redirect")
        assert [one.fault for one in moved.upstream.heard] == ["redirect"]


async def test_check_41_each_upstream_sees_its_own_key_and_nothing_of_the_caller_s(tmp_path: Path) -> None:
    async with bench(tmp_path, "status:500", "redirect", "ok") as three:
        reply = await three.ask(
            authorization="Bearer of-the-caller",
            x_api_key="of-the-caller",
            x_secret="s",
            cookie="c=1",
            te="x",
        )
        assert reply.text == TEXT
        seen = {(one.fault, one.key) for one in three.upstream.heard}
        assert seen == {("status:500", "key-Up0"), ("redirect", "key-Up1"), ("ok", "key-Up2")}
        for one in three.upstream.heard:
            assert "of-the-caller" not in str(one.headers)
            assert not one.headers.keys() & {"x-secret", "cookie", "x-api-key", "connection"}

"""The page by its addresses: what each shows, does and refuses."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from modelway.auth import Auth, hash_key
from modelway.page.building import build
from modelway.telemetry import Telemetry
from modelway.types import Finish, Rules, TextDelta, Usage
from tests.page.browsing import HTML, browsing, messages
from tests.page.hostile import problems
from tests.scripted import Scripted
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio

MOST_BYTES = 60_000
MOST_REQUESTS = 10


def local(*scripts: object, **info: object) -> Scripted:
    return Scripted("Local", *scripts, **info)  # type: ignore[arg-type]


async def test_a_program_that_asks_for_the_root_is_told_where_the_api_is(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        reply = await browser.http.get("/")
        assert reply.json()["api"] == "/v1"


@pytest.mark.check(36)
async def test_every_page_may_load_nothing_but_its_own_files(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        id = await browser.ask("hello")
        for address in ("/", f"/c/{id}", "/providers", "/figures", "/c/nothing", "/login"):
            policy = (await browser.get(address)).headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "require-trusted-types-for 'script'" in policy
            assert "unsafe" not in policy


async def test_the_first_page_is_small(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        first = await browser.get("/")
        sizes, waiting, seen = [len(first.content)], [], set()
        waiting += re.findall(r'(?:src|href)="(/static/[^"]+)"', first.text)
        while waiting:
            address = waiting.pop()
            if address in seen:
                continue
            seen.add(address)
            async with browser.http.stream("GET", address, headers={"accept-encoding": "gzip"}) as reply:
                assert reply.status_code == 200
                assert reply.headers["cache-control"].endswith("immutable")
                sizes.append(len(b"".join([piece async for piece in reply.aiter_raw()])))
            script = (await browser.http.get(address)).text
            folder = address.rpartition("/")[0]
            waiting += [f"{folder}/{name}" for name in re.findall(r"from '\./([\w.]+)'", script)]
        # Beside these there are the list of models and the stream of events.
        assert len(sizes) + 2 <= MOST_REQUESTS
        assert sum(sizes) <= MOST_BYTES


async def test_an_answer_is_shown_with_who_gave_it_and_how_fast(tmp_path: Path) -> None:
    script = [TextDelta(text="**Hi**"), Finish(usage=Usage(3, 40))]
    async with browsing([local(script)], tmp_path) as browser:
        id = await browser.ask("hello")
        assert await browser.thread(id) == [("user", "hello"), ("assistant", "Hi")]
        html = (await browser.get(f"/c/{id}")).text
        assert "<strong>Hi</strong>" in html
        for part in ("Local · local-1", "40 tokens", "first text after"):
            assert part in html
        assert problems(html[html.index("<article") : html.rindex("</article>")]) == []


async def test_the_answer_goes_on_when_the_page_is_gone_and_is_there_when_it_comes_back(
    tmp_path: Path,
) -> None:
    gate = asyncio.Event()
    script = [TextDelta(text="one "), gate, TextDelta(text="two"), Finish()]
    async with browsing([local(script)], tmp_path) as browser:
        sent = await browser.do("send", text="hello")
        async for name, told in browser.events(sent["key"]):
            if name == "patch":
                assert told["blocks"] == [[0, "<p>one</p>\n"]]
                break
        assert messages((await browser.get(f"/c/{sent['key']}")).text)[-1] == ("assistant live", "one")
        gate.set()
        await browser.until_over(sent["key"])
        assert (await browser.thread(sent["key"]))[-1] == ("assistant", "one two")


KEYS = {"ann": hash_key("key-of-ann"), "bob": hash_key("key-of-bob")}


async def test_where_keys_are_needed_every_address_of_the_page_wants_one(tmp_path: Path) -> None:
    gateway = gateway_of([local()], tmp_path / "built")
    endpoints = build(gateway, Telemetry(), 1000).endpoints
    await gateway.aclose()
    async with browsing([local()], tmp_path, Auth(KEYS)) as browser:
        for method, path, _ in [*endpoints, ("GET", "/page/events", None)]:
            if path in ("/login", "/static/{version}/{name}"):
                continue
            address = re.sub(r"\{index:int\}", "1", path)
            address = re.sub(r"\{\w+\}", "x", address)
            for headers in ({}, {"authorization": "Bearer key-of-anna"}, {"cookie": "modelway=key-of-ann"}):
                reply = await browser.http.request(method, address, headers=headers)
                assert reply.status_code == 401, (method, address)
                assert reply.headers["www-authenticate"] == "Bearer"


async def test_a_browser_signs_in_with_a_key_and_keeps_only_a_cookie_that_no_script_can_read(
    tmp_path: Path,
) -> None:
    async with browsing([local()], tmp_path, Auth(KEYS)) as browser:
        reply = await browser.get("/")
        assert (reply.status_code, reply.headers["location"]) == (303, "/login")
        assert (await browser.http.post("/login", json={"key": "wrong"})).status_code == 401
        reply = await browser.http.post("/login", json={"key": "key-of-ann"})
        cookie = reply.headers["set-cookie"]
        assert "key-of-ann" not in cookie
        for part in ("HttpOnly", "SameSite=Strict"):
            assert part in cookie
        assert (await browser.get("/")).status_code == 200
        # The API itself takes no cookies, so that no page can use somebody's.
        assert (await browser.http.get("/v1/models")).status_code == 401
        await browser.do("logout")
        assert (await browser.get("/")).status_code == 303


async def test_a_page_that_is_open_is_told_nothing_more_when_its_key_is_revoked(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path, rules=Rules(streams=5)) as browser:
        store = browser.gateway.conversations
        await browser.ask("hello")
        events = browser.events("")
        assert (await anext(events))[0] == "open"
        await store.callers.revoke("ann")
        # Whoever has the next key of this name is none of its business.
        await store.callers.create("ann", Rules())
        async with asyncio.timeout(10):
            told = [name async for name, _ in events]
        assert told == []
        assert (await browser.get("/page/list")).status_code in (303, 401)


async def test_another_caller_s_conversation_does_not_exist(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path, Auth(KEYS)) as browser:
        ann = {"authorization": "Bearer key-of-ann"}
        sent = (await browser.http.post("/page/send", json={"text": "secret"}, headers=ann)).json()
        browser.http.headers["authorization"] = "Bearer key-of-bob"
        id = sent["conversation"]
        for address in (
            f"/c/{id}",
            f"/c/{id}/export",
            f"/page/thread/{id}",
            f"/c/{id}/text/x",
            f"/c/{id}/files/x/0",
        ):
            reply = await browser.get(address)
            assert reply.status_code == 404
            assert "secret" not in reply.text
        for what in ("rename", "pin", "delete", "undo", "branch"):
            body = (
                {"conversation": id, "title": "x"}
                if what != "branch"
                else {"conversation": id, "message": ""}
            )
            assert (await browser.http.post(f"/page/{what}", json=body)).status_code == 404
        assert "secret" not in (await browser.get("/page/search?q=secret")).text


@pytest.mark.check(30, 36)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"host": "evil.example"},
    ],
)
async def test_no_other_page_can_make_a_browser_act(tmp_path: Path, headers: dict[str, str]) -> None:
    provider = local()
    async with browsing([provider], tmp_path) as browser:
        reply = await browser.http.post("/page/send", content=b'{"text": "x"}', headers=headers)
        assert reply.status_code in (403, 415, 421)
        assert not provider.requests
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "address",
    ["/static/x/../../__init__.py", "/static/x/%2e%2e%2fhtml.py", "/static/x/nothing.js", "/c/../x"],
)
async def test_nothing_but_the_page_s_own_files_is_given_out(tmp_path: Path, address: str) -> None:
    async with browsing([local()], tmp_path) as browser:
        request = browser.http.build_request("GET", "/")
        request.url = httpx.URL(str(browser.http.base_url).rstrip("/") + "/").copy_with(
            raw_path=address.encode()
        )
        assert (await browser.http.send(request)).status_code == 404


async def test_an_unknown_address_says_so(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        assert (await browser.http.get("/page/nothing", headers=HTML)).status_code == 404
        assert (await browser.http.get("/page/send")).status_code == 405

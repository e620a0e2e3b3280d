"""What the page refuses changes nothing: what was said, where the conversation stands, what was chosen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from modelway.types import Finish, Rules, TextDelta
from tests.page.browsing import Browser, browsing
from tests.scripted import Scripted, says

pytestmark = pytest.mark.anyio

BRIEF = {"instructions": "Be brief."}


def local(*scripts: object) -> Scripted:
    return Scripted("Local", *scripts)  # type: ignore[arg-type]


async def refused(browser: Browser, **asked: Any) -> tuple[int, str]:
    reply = await browser.http.post("/page/send", json=asked)
    return reply.status_code, reply.json()["error"]["code"]


async def kept(browser: Browser, id: str, caller: str = "local") -> tuple[object, ...]:
    found = await browser.gateway.conversations.show(caller, id)
    return found.head, found.instructions, found.metadata, found.turns


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"model": "Local/large"}, (403, "permission_denied")),
        ({"model": "Nobody/x"}, (404, "provider_not_found")),
        ({"temperature": "hot"}, (400, "invalid_request")),
    ],
)
async def test_a_model_that_may_not_or_cannot_be_asked_changes_no_conversation_and_begins_none(
    tmp_path: Path, choice: dict[str, str], told: tuple[int, str]
) -> None:
    rules = Rules(models=("local-1",))
    async with browsing([local()], tmp_path, rules=rules) as browser:
        id = await browser.ask("hello", choice=BRIEF)
        before, [asked] = await kept(browser, id, "ann"), await browser.ids(id, "user")
        for act in ({"edits": asked}, {"again": asked}, {"continues": True}, {}):
            assert await refused(browser, text="x", conversation=id, choice=choice, **act) == told
        assert await refused(browser, text="x", choice=choice) == told
        assert await refused(browser, text="x", choice=choice, temporary="t") == told
        assert await kept(browser, id, "ann") == before
        assert len(await browser.gateway.conversations.list("ann")) == 1


async def test_a_message_that_is_not_there_is_neither_edited_nor_answered_again(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        id = await browser.ask("hello", choice=BRIEF)
        before, [answered] = await kept(browser, id), await browser.ids(id, "assistant")
        for message in ("msg_99", "nonsense", answered):
            assert await refused(browser, text="x", conversation=id, edits=message) == (
                404,
                "conversation_not_found",
            )
            assert await refused(browser, conversation=id, again=message) == (404, "conversation_not_found")
        assert await kept(browser, id) == before


async def test_nothing_is_changed_while_an_answer_is_under_way(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = local(says("first"), [TextDelta(text="second"), gate, Finish()])
    async with browsing([provider], tmp_path) as browser:
        id = await browser.ask("hello", choice=BRIEF)
        [asked] = await browser.ids(id, "user")
        await browser.do("send", text="more", conversation=id, choice=BRIEF)
        told = await refused(browser, text="x", conversation=id, edits=asked, choice={"model": "Local/b"})
        assert told == (409, "conversation_busy")
        gate.set()
        await browser.until_over(id)
        found = await browser.gateway.conversations.show("local", id)
        assert [message.text for message in found.instructions] == ["Be brief."]
        assert [message.text for message in found.messages] == ["hello", "first", "more", "second"]


async def test_an_edit_that_a_limit_keeps_out_is_shown_in_its_place_and_can_be_tried_again(
    tmp_path: Path,
) -> None:
    gate = asyncio.Event()
    provider = local(says("first"), [TextDelta(text="elsewhere"), gate, Finish()], says("second"))
    async with browsing([provider], tmp_path, rules=Rules(streams=1)) as browser:
        id = await browser.ask("hello")
        before, [asked] = await kept(browser, id, "ann"), await browser.ids(id, "user")
        other = await browser.do("send", text="something else")
        await anext(told async for name, told in browser.events(other["key"]) if name == "patch")
        await browser.ask("goodbye", conversation=id, edits=asked)
        shown = await browser.thread(id)
        assert [kind for kind, _ in shown] == ["user", "assistant"]
        assert shown[0] == ("user", "goodbye")
        assert "rate_limit" in shown[1][1]
        assert await kept(browser, id, "ann") == before
        gate.set()
        await browser.until_over(other["key"])
        await browser.ask("", conversation=id, retries=True)
        assert await browser.thread(id) == [("user", "goodbye"), ("assistant", "second")]
        assert "2/2" in (await browser.get(f"/c/{id}")).text


async def test_a_conversation_that_is_not_there_is_not_begun_by_its_name(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        for name in ("conv_1", "a b", "../etc", "temporary/abc", "x" * 129):
            for act in ({}, {"continues": True}, {"retries": True}):
                told = await refused(browser, text="hello", conversation=name, **act)
                assert told == (404, "conversation_not_found")
        assert await browser.gateway.conversations.list("local") == []


async def test_a_conversation_may_be_called_like_a_temporary_chat(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = local([TextDelta(text="of the chat"), gate, Finish()], says("of the conversation"))
    async with browsing([provider], tmp_path) as browser:
        chat = await browser.do("send", text="hello", temporary="abc")
        for name in ("temporary.abc", "temporary:abc"):
            await browser.gateway.conversations.shelf.create("local", name, {})
            assert await browser.ask("hello", conversation=name) == name
            assert await browser.thread(name) == [("user", "hello"), ("assistant", "of the conversation")]
        gate.set()
        told = await browser.until_over(chat["key"])
        assert told["text"] == "of the chat"

"""What can be done on the page, without a browser."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from modelway.conversations import Conversation, StoredMessage
from modelway.errors import UpstreamOverloaded
from modelway.page.importing import read_exported
from modelway.page.trash import DELETED
from modelway.types import (
    ChatRequest,
    Citation,
    Event,
    Finish,
    Message,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from tests.page.browsing import Browser, browsing
from tests.page.hostile import problems
from tests.page.told import TURN, told_before
from tests.polling import until
from tests.scripted import Scripted, says

pytestmark = pytest.mark.anyio

MOST_BYTES = 60_000
MOST_REQUESTS = 10


def local(*scripts: object, **info: object) -> Scripted:
    return Scripted("Local", *scripts, **info)  # type: ignore[arg-type]


async def test_a_page_that_comes_back_gets_only_what_it_has_missed(tmp_path: Path) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    script = [TextDelta(text="a\n\nb\n\n"), gates[0], TextDelta(text="c\n"), gates[1], Finish()]
    async with browsing([local(script)], tmp_path) as browser:
        key = (await browser.do("send", text="hello"))["key"]
        first = await anext(told async for name, told in browser.events(key) if name == "patch")
        gates[0].set()
        async for name, told in browser.events(key, seq=first["seq"]):
            if name == "patch":
                assert [index for index, *_ in told["blocks"]] == [2]
                break
        gates[1].set()
        await browser.until_over(key)


async def test_two_pages_see_the_same_answer(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with browsing(
        [local([TextDelta(text="x"), gate, TextDelta(text="y"), Finish()])], tmp_path
    ) as browser:
        key = (await browser.do("send", text="hello"))["key"]
        waiting = [asyncio.create_task(browser.until_over(key)) for _ in range(2)]
        gate.set()
        await asyncio.gather(*waiting)
        assert (await browser.thread(key))[-1] == ("assistant", "xy")


async def test_an_answer_that_another_program_asked_for_is_read_along(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with browsing(
        [local([TextDelta(text="x"), gate, TextDelta(text="y"), Finish()])], tmp_path
    ) as browser:
        body = {"messages": [{"role": "user", "content": "hi"}], "conversation_id": "talk", "stream": True}
        asking = asyncio.create_task(browser.http.post("/v1/chat/completions", json=body))
        seen = []
        async for name, told in browser.events("talk"):
            seen.append(name)
            if name == "patch":
                assert "x" in told["blocks"][0][1]
                gate.set()
            if name == "over":
                break
        assert "begin" in seen
        assert (await asking).status_code == 200
        assert (await browser.thread("talk"))[-1] == ("assistant", "xy")


async def test_a_conversation_of_another_program_is_in_the_list_at_once(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        events = browser.events("")
        assert (await anext(events))[0] == "open"
        body = {"messages": [{"role": "user", "content": "from afar"}], "conversation_id": "talk"}
        await browser.http.post("/v1/chat/completions", json=body)
        assert (await anext(events))[0] == "list"
        await events.aclose()  # type: ignore[attr-defined]
        assert "from afar" in (await browser.get("/page/list")).text


async def test_stopping_keeps_what_has_come_and_it_can_be_continued(tmp_path: Path) -> None:
    endless = [TextDelta(text="half"), asyncio.Event()]
    provider = local(endless, says(" and the rest"))
    async with browsing([provider], tmp_path) as browser:
        key = (await browser.do("send", text="hello"))["key"]
        await anext(told async for name, told in browser.events(key) if name == "patch")
        await browser.do("stop", conversation=key)
        await browser.until_over(key)
        assert (await browser.thread(key))[-1] == ("assistant", "half The answer was stopped. Continue")
        await browser.ask("", conversation=key, continues=True)
        assert [kind for kind, _ in await browser.thread(key)] == [
            "user",
            "assistant",
            "continued",
            "assistant",
        ]
        assert "Go on exactly where" in provider.requests[-1].messages[-1].text


async def test_an_edited_message_begins_a_branch_and_the_old_one_stays(tmp_path: Path) -> None:
    async with browsing([local(says("first"), says("second"))], tmp_path) as browser:
        id = await browser.ask("hello")
        [asked] = await browser.ids(id, "user")
        await browser.ask("goodbye", conversation=id, edits=asked)
        assert await browser.thread(id) == [("user", "goodbye"), ("assistant", "second")]
        await browser.do("branch", conversation=id, message=asked)
        assert await browser.thread(id) == [("user", "hello"), ("assistant", "first")]
        assert "1/2" in (await browser.get(f"/c/{id}")).text


async def test_an_answer_can_be_asked_for_again(tmp_path: Path) -> None:
    provider = local(says("first"), says("second"), says("third"))
    async with browsing([provider], tmp_path) as browser:
        id = await browser.ask("hello")
        [asked] = await browser.ids(id, "user")
        await browser.ask("", conversation=id, again=asked)
        assert await browser.thread(id) == [("user", "hello"), ("assistant", "second")]
        assert [message.text for message in provider.requests[1].messages] == ["hello"]
        await browser.ask("next", conversation=id)
        assert [message.text for message in provider.requests[2].messages] == ["hello", "second", "next"]


async def test_an_error_is_shown_with_its_code_and_a_way_to_try_again(tmp_path: Path) -> None:
    broken = [UpstreamOverloaded("too much to do", hint="wait a minute")]
    provider = local(broken, broken, says("now"))
    async with browsing([provider], tmp_path) as browser:
        id = await browser.ask("hello")
        shown = await browser.thread(id)
        assert shown[0] == ("user", "hello")
        assert shown[1] == ("assistant", "upstream_overloaded too much to do; wait a minute Try again")
        await browser.ask("", conversation=id, retries=True)
        assert await browser.thread(id) == [("user", "hello"), ("assistant", "now")]


async def test_reasoning_tool_calls_and_sources_are_shown(tmp_path: Path) -> None:
    script = [
        ReasoningDelta(text="Let me think."),
        TextDelta(text="It rains."),
        ToolCallDelta(index=0, id="c", name="get_weather", arguments='{"city":"Paris"}'),
        Citation(url="https://example.org", title="Weather"),
        Finish(reasons=("tool_calls",)),
    ]
    async with browsing([local(script)], tmp_path) as browser:
        id = await browser.ask("weather?")
        html = (await browser.get(f"/c/{id}")).text
        for part in ("Let me think.", "get_weather", "Paris", 'href="https://example.org"'):
            assert part in html


async def test_model_instructions_and_parameters_are_kept_with_the_conversation(tmp_path: Path) -> None:
    first, second = local(), Scripted("Other", says("from the other"))
    choice = {"model": "Other/big", "instructions": "Be brief.", "temperature": "0.5", "max_tokens": "99"}
    async with browsing([first, second], tmp_path) as browser:
        id = await browser.ask("hello", choice=choice)
        [asked] = second.requests
        assert (asked.model, asked.params.temperature, asked.params.max_tokens) == ("big", 0.5, 99)
        assert asked.messages[0] == Message(role="system", content="Be brief.")
        html = (await browser.get(f"/c/{id}")).text
        for part in ('<option value="Other/big" selected>', "Be brief.", 'value="0.5"', 'value="99"'):
            assert part in html
        await browser.ask("again", conversation=id, choice={"model": "Local/x"})
        assert [message.role for message in first.requests[0].messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize("choice", [{"temperature": "hot"}, {"max_tokens": "-1"}, {"temperature": "nan"}])
async def test_parameters_that_make_no_sense_are_refused(tmp_path: Path, choice: dict[str, str]) -> None:
    async with browsing([local()], tmp_path) as browser:
        reply = await browser.http.post("/page/send", json={"text": "x", "choice": choice})
        assert reply.status_code == 400
        assert (await browser.get("/page/list")).text.count("<li>") == 0


async def test_files_go_with_a_message(tmp_path: Path) -> None:
    provider, picture = local(), "data:image/png;base64,iVBORw0KGgo="
    files = [{"name": "notes.txt", "text": "the notes"}, {"name": "a.png", "url": picture}]
    async with browsing([provider], tmp_path) as browser:
        id = await browser.ask("look", attachments=files)
        [request] = provider.requests
        assert "the notes" in request.messages[0].text
        html = (await browser.get(f"/c/{id}")).text
        [address] = re.findall(r'src="(/c/[^"]+/files/[^"]+)"', html)
        reply = await browser.http.get(address)
        assert reply.headers["content-type"] == "image/png"
        assert "sandbox" in reply.headers["content-security-policy"]
        assert "notes.txt" in html
        [asked] = await browser.ids(id, "user")
        assert (await browser.http.get(f"/c/{id}/text/{asked}")).text == "look"
        await browser.ask("look again", conversation=id, edits=asked)
        assert "the notes" in provider.requests[1].messages[0].text
        assert provider.requests[1].messages[0].text.endswith("look again")


async def test_a_file_that_is_elsewhere_is_not_fetched_for_anybody(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        files = [{"name": "a", "url": "http://169.254.169.254/"}]
        reply = await browser.http.post("/page/send", json={"text": "x", "attachments": files})
        assert reply.status_code == 400


async def test_a_temporary_chat_leaves_nothing_behind(tmp_path: Path) -> None:
    provider = local(says("one"), says("two"))
    async with browsing([provider], tmp_path) as browser:
        sent = await browser.do("send", text="hello", temporary="abc")
        told = await browser.until_over(sent["key"])
        assert told["text"] == "one"
        assert problems(told["html"]) == []
        said = [{"role": "user", "text": "hello"}, {"role": "assistant", "text": "one"}]
        sent = await browser.do("send", text="more", temporary="abc", history=said)
        await browser.until_over(sent["key"])
        assert [message.text for message in provider.requests[1].messages] == ["hello", "one", "more"]
        assert not await browser.gateway.conversations.list("local")


async def test_conversations_can_be_renamed_pinned_found_and_deleted(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        first, second = await browser.ask("about cats"), await browser.ask("about dogs")
        await browser.do("rename", conversation=first, title="  My   cats ")
        await browser.do("pin", conversation=first, pinned=True)
        shown = (await browser.get("/page/list")).text
        assert (
            shown.index("Pinned") < shown.index("My cats") < shown.index("Today") < shown.index("about dogs")
        )
        await browser.do("pin", conversation=first, pinned=False)
        assert "Pinned" not in (await browser.get("/page/list")).text
        assert "about dogs" in (await browser.get("/page/search?q=dog")).text
        await browser.do("delete", conversation=second)
        assert second not in (await browser.get("/page/list")).text
        assert (await browser.get(f"/c/{second}")).status_code == 404
        await browser.do("undo", conversation=second)
        assert second in (await browser.get("/page/list")).text
        await browser.do("delete", conversation=second)
    async with browsing([local()], tmp_path) as browser:
        assert [one.conversation_id for one in await browser.gateway.conversations.list("local")] == [first]


async def test_a_deletion_is_not_forgotten_by_a_server_that_is_killed(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        store = browser.gateway.conversations
        kept, gone = await browser.ask("kept"), await browser.ask("gone")
        # What a server that was killed within the ten seconds leaves behind.
        await store.shelf.note("local", gone, DELETED, f"{time.time() - 60:.3f}")
        for act in ({"text": "more"}, {"continues": True}):
            reply = await browser.http.post("/page/send", json={"conversation": gone, **act})
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "conversation_not_found")
        assert gone not in (await browser.get("/page/export")).text
        assert (await browser.get(f"/c/{gone}")).status_code == 404
        shown = (await browser.get("/page/list")).text
        assert (kept in shown, gone in shown) == (True, False)

        async def is_gone() -> bool:
            return [one.conversation_id for one in await store.list("local")] == [kept]

        await until(is_gone)


async def test_what_is_deleted_at_one_server_can_be_taken_back_before_another_deletes_it(
    tmp_path: Path,
) -> None:
    async with browsing([local()], tmp_path) as here, browsing([local()], tmp_path) as there:
        id = await here.ask("hello")
        assert id in (await there.get("/page/list")).text
        await here.do("delete", conversation=id)
        assert id not in (await there.get("/page/list")).text
        assert (await there.get(f"/c/{id}")).status_code == 404
        await here.do("undo", conversation=id)
        assert (await there.get(f"/c/{id}")).status_code == 200
    async with browsing([local()], tmp_path) as browser:
        assert id in (await browser.get("/page/list")).text


async def test_what_was_exported_can_be_imported_with_all_its_branches(tmp_path: Path) -> None:
    async with browsing([local(says("first"), says("second"))], tmp_path) as browser:
        id = await browser.ask("hello")
        [asked] = await browser.ids(id, "user")
        await browser.ask("", conversation=id, again=asked)
        lines = (await browser.http.get("/page/export")).text
        taken = await browser.do("import", text=lines)
        assert taken["count"] == 1
        assert await browser.thread(taken["conversation"]) == await browser.thread(id)
        assert "2/2" in (await browser.get(f"/c/{taken['conversation']}")).text
        before, after = [
            await browser.gateway.conversations.show("local", one) for one in (id, taken["conversation"])
        ]
        assert [turn.model for turn in after.turns] == [turn.model for turn in before.turns]
        assert "hello" in (await browser.get("/page/search?q=hello")).text


async def test_lists_of_messages_in_openai_s_format_can_be_imported(tmp_path: Path) -> None:
    text = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n' * 2
    async with browsing([local()], tmp_path) as browser:
        taken = await browser.do("import", text=text)
        assert taken["count"] == 2
        assert await browser.thread(taken["conversation"]) == [("user", "hi"), ("assistant", "ho")]
        await browser.ask("more", conversation=taken["conversation"])
        assert len(await browser.thread(taken["conversation"])) == 4


@pytest.mark.parametrize(
    "text", ["", "nonsense", "{}", '{"messages": 3}', '{"format": "modelway.conversation.v1"}', "[" * 9999]
)
async def test_what_cannot_be_imported_is_refused_and_nothing_is_stored(tmp_path: Path, text: str) -> None:
    async with browsing([local()], tmp_path) as browser:
        reply = await browser.http.post("/page/import", json={"text": text})
        assert reply.status_code == 400, reply.text
        assert not await browser.gateway.conversations.list("local")


def exported(**fields: object) -> str:
    """A conversation as a file has it, whose author may have made it by hand."""
    said = StoredMessage(id="msg_1", parent="", turn_id=TURN.id, message=Message(role="user", content="hi"))
    whole: dict[str, object] = {
        "format": "modelway.conversation.v1",
        "conversation_id": "c",
        "title": "made by hand",
        "created_at": 1.0,
        "updated_at": 1.0,
        "instructions": [],
        "messages": [],
        "turns": [TURN],
        "branches": [],
        "tree": [said],
        "head": "msg_1",
    }
    for name, changed in fields.items():
        whole[name] = changed(whole[name]) if callable(changed) else changed
    return msgspec.json.encode(whole).decode()


@pytest.mark.parametrize(
    "fields",
    [
        {"updated_at": 1e300},
        {"created_at": -1e15},
        {"turns": lambda turns: [replace(turns[0], created_at=1e15)]},
        {"turns": lambda turns: [replace(turns[0], finished_at=-1.0)]},
        {"turns": lambda turns: [*turns, *turns]},
        {"tree": lambda tree: [replace(tree[0], parent="msg_1")]},
    ],
    ids=["updated", "created", "begun", "finished", "twice", "round"],
)
async def test_a_file_with_one_conversation_that_cannot_be_is_refused_as_a_whole(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    async with browsing([local()], tmp_path) as browser:
        text = f"{exported()}\n{exported(**fields)}\n"
        reply = await browser.http.post("/page/import", json={"text": text})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_request")
        assert not await browser.gateway.conversations.list("local")
        assert (await browser.do("import", text=exported()))["count"] == 1
        assert "made by hand" in (await browser.get("/page/list")).text


@pytest.mark.parametrize("content", ["A", "é", "@@@", ""])
async def test_a_picture_that_is_none_does_no_harm(tmp_path: Path, content: str) -> None:
    async with browsing([local()], tmp_path) as browser:
        files = [{"name": "a.png", "url": f"data:image/png;base64,{content}"}]
        id = await browser.ask("look", attachments=files)
        [address] = re.findall(r'src="(/c/[^"]+/files/[^"]+)"', (await browser.get(f"/c/{id}")).text)
        assert (await browser.http.get(address)).status_code in (200, 404)


async def test_one_conversation_is_exported_in_each_format(tmp_path: Path) -> None:
    async with browsing([local(says("**bold** <script>alert(1)</script>"))], tmp_path) as browser:
        id = await browser.ask("Hello, world")
        for format, part in (
            ("md", "## User"),
            ("jsonl", '"format":"modelway'),
            ("html", "<strong>bold</strong>"),
        ):
            reply = await browser.http.get(f"/c/{id}/export?format={format}")
            assert part in reply.text
            assert f"hello-world.{format}" in reply.headers["content-disposition"]
        html = (await browser.http.get(f"/c/{id}/export?format=html")).text
        assert "<script" not in html
        assert (await browser.http.get(f"/c/{id}/export?format=exe")).status_code == 400
        assert len(read_exported((await browser.http.get("/page/export")).text)) == 1


async def test_a_conversation_of_a_thousand_turns_opens_with_its_last_fifty(tmp_path: Path) -> None:
    text = "A paragraph with **bold** text, `code` and $x^2$.\n\n- a list\n\n```python\nprint(1)\n```\n"
    async with browsing([local()], tmp_path) as browser:
        await browser.get("/")
        await browser.gateway.conversations.shelf.take_in("local", "long", long_conversation(1000, text))
        page = await browser.get("/c/long")
        assert page.text.count("<article") == 100
        [before] = re.findall(r'data-before="([^"]+)"', page.text)
        earlier = await browser.get(f"/page/thread/long?before={before}")
        assert earlier.text.count("<article") == 100
        assert set(re.findall(r'<article id="([^"]+)"', earlier.text)).isdisjoint(
            re.findall(r'<article id="([^"]+)"', page.text)
        )


def long_conversation(turns: int, text: str) -> Conversation:
    return told_before("Long", *((f"question {n}", f"{n}: {text}") for n in range(turns)))


async def test_the_pages_speak_the_language_and_wear_the_colours_that_were_chosen(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        assert '<html lang="ru">' in (await browser.get("/", **{"accept-language": "ru-RU,ru;q=0.9"})).text
        html = (await browser.get("/", cookie="lang=ru; theme=dark")).text
        assert '<html lang="ru" data-theme="dark">' in html
        assert "Новая беседа" in html


async def test_a_provider_can_be_tested(tmp_path: Path) -> None:
    broken = Scripted("Broken", [UpstreamOverloaded("too much to do")])
    async with browsing([local(says("Hello")), broken], tmp_path) as browser:
        told = await browser.do("test", provider="Local")
        assert told["ok"]
        assert (told["model"], told["text"]) == ("local-1", "Hello")
        told = await browser.do("test", provider="Broken")
        assert (told["ok"], told["code"]) == (False, "upstream_overloaded")
        assert not await browser.gateway.conversations.list("local")


async def test_the_figures_tell_what_happened_with_a_table_for_each_plot(tmp_path: Path) -> None:
    async with browsing([local(says("Hello"))], tmp_path) as browser:
        await browser.ask("hello")
        html = (await browser.get("/figures")).text
        assert html.count('<svg viewBox="0 0 560') == html.count("As a table")
        assert html.count("<table>") >= 3


async def test_pages_that_are_open_do_not_count_as_requests_under_way(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        events = browser.events("")
        assert (await anext(events))[0] == "open"
        assert (await browser.http.get("/v1/figures")).json()["running"] == 1
        await events.aclose()  # type: ignore[attr-defined]


async def test_the_newest_conversations_are_listed_first_and_the_older_ones_when_asked_for(
    tmp_path: Path,
) -> None:
    async with browsing([local()], tmp_path) as browser:
        for n in range(205):
            await browser.gateway.conversations.shelf.create("local", f"talk-{n}", {})
        first = (await browser.get("/page/list")).text
        assert (first.count("<li>"), "Older conversations" in first) == (200, True)
        every = (await browser.get("/page/list?all=1")).text
        assert (every.count("<li>"), "Older conversations" in every) == (205, False)


async def test_a_server_that_is_stopped_finishes_the_answers_of_the_page(tmp_path: Path) -> None:
    slow = [TextDelta(text="one "), *(TextDelta(text=f"{n} ") for n in range(50)), Finish()]
    gate = asyncio.Event()
    async with browsing([local([TextDelta(text="begun "), gate, *slow])], tmp_path) as browser:
        key = (await browser.do("send", text="hello"))["key"]
        await anext(told async for name, told in browser.events(key) if name == "patch")
        asyncio.get_running_loop().call_later(0.3, gate.set)
    async with browsing([local()], tmp_path) as browser:
        assert (await browser.thread(key))[-1][1].endswith("48 49")


async def test_a_bug_is_told_by_its_id_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Scripted):
        async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
            yield TextDelta(text="begun")
            raise ZeroDivisionError("a bug")

    async with browsing([Broken("Local")], tmp_path) as browser:
        id = await browser.ask("hello")
        assert (await browser.thread(id))[0] == ("user", "hello")
        assert "ZeroDivisionError" not in (await browser.get(f"/c/{id}")).text
        assert await answered(browser) == [{"5xx": 1}]
    assert "a bug" in caplog.text


async def test_whoever_stops_an_answer_or_closes_a_page_makes_no_error(tmp_path: Path) -> None:
    async with browsing([local([TextDelta(text="half"), asyncio.Event()])], tmp_path) as browser:
        key = (await browser.do("send", text="hello"))["key"]
        await anext(told async for name, told in browser.events(key) if name == "patch")
        await browser.do("stop", conversation=key)
        await browser.until_over(key)
        told = (await browser.http.get("/v1/figures")).json()
        assert told["errors"] == []
        assert await answered(browser) == [{"4xx": 1}]


async def answered(browser: Browser) -> list[dict[str, int]]:
    """How the requests ended for which a provider was asked."""
    told = (await browser.http.get("/v1/figures")).json()
    return [line["requests"] for line in told["lines"] if line["provider"]]


async def test_a_question_that_got_an_empty_answer_can_be_asked_again(tmp_path: Path) -> None:
    async with browsing([local([Finish()], says("now"))], tmp_path) as browser:
        id = await browser.ask("hello")
        assert (await browser.thread(id))[-1] == ("assistant", "There is no answer. Try again")
        [asked] = await browser.ids(id, "user")
        await browser.ask("", conversation=id, again=asked)
        assert await browser.thread(id) == [("user", "hello"), ("assistant", "now")]


async def test_a_page_of_another_server_reads_along_and_can_stop_the_answer(tmp_path: Path) -> None:
    gate, end = asyncio.Event(), asyncio.Event()
    script = [TextDelta(text="one "), gate, TextDelta(text="two "), end, Finish()]
    async with browsing([local(script)], tmp_path) as here, browsing([local()], tmp_path) as there:
        key, seen = (await here.do("send", text="hello"))["key"], ""
        async for name, told in there.events(key):
            seen = told["blocks"][-1][1] if name == "patch" else seen
            gate.set()
            if "two" in seen:
                break
        await there.do("stop", conversation=key)
        end.set()
        await here.until_over(key)
        for browser in (here, there):
            assert (await browser.thread(key))[-1][1].startswith("one two The answer was stopped.")


async def test_what_a_program_notes_survives_what_the_page_notes_at_the_same_time(tmp_path: Path) -> None:
    async with browsing([local()], tmp_path) as browser:
        id = await browser.ask("hello")
        address, store = f"/v1/conversations/{id}", browser.gateway.conversations
        for number in range(10):
            choice = {"effort": ("low", "high")[number % 2]}
            await asyncio.gather(
                browser.do("pin", conversation=id, pinned=True),
                browser.http.post(address, json={"metadata": {"number": str(number)}}),
                browser.do("send", text="and?", conversation=id, choice=choice),
            )
            await browser.until_over(id)
            assert (await store.show("local", id)).metadata["number"] == str(number)

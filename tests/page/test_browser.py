"""The page in Chromium: each feature as people use it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from modelway.auth import Auth, hash_key
from modelway.errors import UpstreamOverloaded
from modelway.types import (
    ChatRequest,
    Citation,
    Event,
    Finish,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from tests.careful import careful_loops
from tests.page.hostile import VECTORS
from tests.page.watched import PHONE, WITHOUT, Watched, answered, chromium, said, send, shows, watching
from tests.scripted import Scripted, says

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180), WITHOUT]

ANSWER = "".join(f"Word {n} of a **long** answer.\n\n" for n in range(60)) + "```python\nprint('end')\n```\n"


class Paced(Scripted):
    """Gives its answer a few characters at a time, as models do."""

    async def stream(self, request: ChatRequest):  # type: ignore[no-untyped-def]
        self.requests.append(request)
        text = ANSWER if "short" not in request.messages[-1].text else f"About {request.messages[-1].text}"
        for begin in range(0, len(text), 9):
            yield TextDelta(text=text[begin : begin + 9])
            await asyncio.sleep(0.004)
        yield Finish(usage=Usage(10, 100))


@pytest.fixture(scope="module")
def anyio_backend() -> Iterator[tuple[str, dict[str, object]]]:
    with careful_loops() as new_loop:
        yield "asyncio", {"loop_factory": new_loop}


@pytest.fixture(scope="module")
async def chrome() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


def local(*scripts: object, **info: object) -> Scripted:
    return Scripted("Local", *scripts, **info)  # type: ignore[arg-type]


async def whole(watched: Watched, page: Page) -> str:
    """What the store has of the answer that the page shows last."""
    id = page.url.rpartition("/")[2]
    return (await watched.gateway.conversations.show("local", id)).messages[-1].text


async def test_a_reload_at_any_moment_of_an_answer_loses_nothing(chrome: Browser, tmp_path: Path) -> None:
    async with watching(chrome, [Paced("Local")], tmp_path) as watched:
        page = await watched.open()
        await send(page, "tell me")
        await page.wait_for_url("**/c/*")
        for _ in range(20):
            await page.wait_for_timeout(random.uniform(5, 60))
            await page.reload()
        await answered(page)
        assert await whole(watched, page) == ANSWER
        assert len(await said(page)) == 2
        await expect(page.locator("article.assistant .prose p")).to_have_count(60)
        await expect(page.locator("article.assistant pre")).to_have_text("print('end')\n")


async def test_the_answer_goes_on_when_the_page_is_closed_and_another_browser_sees_it(
    chrome: Browser, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    script = [TextDelta(text="first "), gate, TextDelta(text="second"), Finish()]
    async with watching(chrome, [local(script)], tmp_path) as watched:
        page = await watched.open()
        await send(page, "hello")
        await expect(page.locator("#live .prose[data-blocks]")).to_have_text("first")
        address = page.url.removeprefix(watched.url)
        await page.close()
        other = await watched.open(address)
        await expect(other.locator("#live .prose[data-blocks]")).to_have_text("first")
        gate.set()
        await answered(other)
        await shows(other, ["hello", "first second"])


async def test_what_models_write_is_shown_as_it_comes_and_says_who_wrote_it(
    chrome: Browser, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    script = [
        ReasoningDelta(text="I think."),
        TextDelta(text="| a |\n|---|\n| 1 |\n\n- [x] done\n\n$x^2$\n\n```python\nprint(1)\n"),
        gate,
        TextDelta(text="```\n\nx[^1]\n\n[^1]: a note\n"),
        ToolCallDelta(index=0, id="1", name="look_up", arguments='{"q": 1}'),
        Citation(url="https://example.org", title="A source"),
        Finish(usage=Usage(10, 20)),
    ]
    async with watching(chrome, [local(script)], tmp_path) as watched:
        page = await watched.open()
        await send(page, "hello")
        await expect(page.locator("#live table")).to_be_visible()
        await expect(page.locator("#live pre")).to_have_text("print(1)\n")
        gate.set()
        await answered(page)
        article = page.locator("article.assistant")
        for selector in ("table", "math msup", ".k, .nb", ".footnotes", ".sources a", "details"):
            assert await article.locator(selector).count() > 0, selector
        await expect(article.locator(".measures")).to_contain_text("Local · local-1")
        await expect(article.locator(".measures")).to_contain_text("20 tokens")
        await article.get_by_text("Reasoning").click()
        await expect(article.get_by_text("I think.")).to_be_visible()
        await article.locator("pre").first.hover()
        await article.locator(".code button").first.click()
        await expect(page.locator("#status")).to_have_text("Copied")
        assert await page.evaluate("navigator.clipboard.readText()") == "print(1)\n"
        await article.locator("[data-action=copy]").click()
        await article.locator("[data-action=copy].done").wait_for()
        assert "[^1]: a note" in await page.evaluate("navigator.clipboard.readText()")


async def test_an_answer_can_be_stopped_continued_asked_for_again_and_compared(
    chrome: Browser, tmp_path: Path
) -> None:
    provider = local([TextDelta(text="half"), asyncio.Event()], says("the rest"), says("second try"))
    async with watching(chrome, [provider], tmp_path) as watched:
        page = await watched.open()
        await send(page, "hello")
        await expect(page.locator("#live .prose[data-blocks]")).to_have_text("half")
        await page.locator("[data-action=stop]").click()
        await page.get_by_role("button", name="Continue").click()
        await answered(page, 2)
        await expect(page.locator("article.message .prose").last).to_have_text("the rest")
        await page.locator("article.assistant").last.locator("[data-action=regenerate]").click()
        await expect(page.locator("article.assistant").last).to_contain_text("second try")
        await answered(page, 2)
        await page.locator("article.assistant").last.get_by_role("button", name="Previous version").click()
        await expect(page.locator("article.assistant").last).to_contain_text("the rest")


async def test_an_earlier_message_can_be_edited_by_keyboard_alone(chrome: Browser, tmp_path: Path) -> None:
    async with watching(chrome, [local(says("one"), says("two"))], tmp_path) as watched:
        page = await watched.open()
        await send(page, "hello")
        await answered(page)
        await page.keyboard.press("ArrowUp")
        field = page.locator("#composer textarea")
        await expect(field).to_have_value("hello")
        await expect(page.get_by_text("Editing an earlier message")).to_be_visible()
        await send(page, "good day")
        await expect(page.locator("article.assistant")).to_contain_text("two")
        await answered(page)
        await shows(page, ["good day", "two"])
        await page.keyboard.press("Alt+ArrowUp")
        await page.keyboard.press("Alt+ArrowUp")
        await page.keyboard.press("Alt+ArrowLeft")
        await expect(page.locator("article.user .prose")).to_have_text("hello")


async def test_everything_can_be_done_by_keyboard(chrome: Browser, tmp_path: Path) -> None:
    async with watching(chrome, [local(says("about cats"))], tmp_path) as watched:
        page = await watched.open()
        await send(page, "cats please")
        await answered(page)
        await page.keyboard.press("Control+Shift+O")
        await page.wait_for_url(watched.url + "/")
        await page.keyboard.press("Control+k")
        await page.keyboard.type("cats")
        await page.locator("#found a").first.wait_for()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/c/*#turn_*")
        await expect(page.locator("article.message").first).to_be_focused()
        await page.locator("#main").focus()
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
        await page.keyboard.press("Escape")
        await page.keyboard.press("Control+b")
        await expect(page.locator("#sidebar")).to_be_hidden()
        await page.keyboard.press("Control+b")
        await expect(page.locator("#sidebar")).to_be_visible()
        await page.keyboard.press("/")
        await expect(page.locator("#composer textarea")).to_be_focused()
        await page.keyboard.type("one")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("two")
        await expect(page.locator("#composer textarea")).to_have_value("one\ntwo")
        await page.keyboard.press("Control+Shift+C")
        await expect(page.locator("#status")).to_have_text("Copied")
        await page.keyboard.press("Control+Shift+Backspace")
        await page.wait_for_url(watched.url + "/")
        await page.get_by_role("button", name="Undo").click()
        await expect(page.locator("#conversations a")).to_have_count(1)


async def test_escape_stops_an_answer(chrome: Browser, tmp_path: Path) -> None:
    async with watching(chrome, [local([TextDelta(text="half"), asyncio.Event()])], tmp_path) as watched:
        page = await watched.open()
        await send(page, "hello")
        await expect(page.locator("#live .prose[data-blocks]")).to_have_text("half")
        await page.keyboard.press("Escape")
        await expect(page.get_by_text("The answer was stopped.")).to_be_visible()


async def test_screen_readers_are_told_of_the_beginning_and_the_end_and_not_of_every_word(
    chrome: Browser, tmp_path: Path
) -> None:
    async with watching(chrome, [Paced("Local")], tmp_path) as watched:
        page = await watched.open()
        await page.evaluate(
            """() => { window.told = []; const line = document.querySelector('#status');
            new MutationObserver(() => told.push(line.textContent)).observe(line, { childList: true }) }"""
        )
        await send(page, "hello")
        await answered(page)
        await expect(page.locator("#status")).to_have_text("The answer is complete.")
        assert await page.evaluate("told") == ["Answering …", "The answer is complete."]
        assert await page.locator("#thread").get_attribute("aria-live") == "off"


async def test_an_error_says_what_happened_and_can_be_tried_again(chrome: Browser, tmp_path: Path) -> None:
    broken = [UpstreamOverloaded("too much to do", hint="wait a minute")]
    async with watching(chrome, [local(broken, broken, says("now"))], tmp_path) as watched:
        page = await watched.open()
        await send(page, "hello")
        await expect(page.locator(".error")).to_contain_text("too much to do; wait a minute")
        await watched.examine(page)
        await page.get_by_role("button", name="Try again").click()
        await answered(page)
        await shows(page, ["hello", "now"])


async def test_long_pastes_and_files_become_attachments(chrome: Browser, tmp_path: Path) -> None:
    provider = local(says("seen"))
    async with watching(chrome, [provider], tmp_path) as watched:
        page = await watched.open()
        await page.locator("#composer textarea").focus()
        await page.evaluate(
            """() => { const data = new DataTransfer(); data.setData('text/plain', 'long '.repeat(500));
            document.querySelector('#composer textarea').dispatchEvent(
            new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true })) }"""
        )
        await page.locator("#files").set_input_files(
            [
                {"name": "notes.md", "mimeType": "text/markdown", "buffer": b"# notes"},
                {"name": "dot.png", "mimeType": "image/png", "buffer": PICTURE},
                {"name": "x.bin", "mimeType": "application/octet-stream", "buffer": b"\0\1\2"},
            ]
        )
        await expect(page.locator(".chips li")).to_have_count(3)
        await expect(page.locator(".toast")).to_contain_text("x.bin is neither text nor a picture")
        await page.get_by_role("button", name="Remove notes.md").click()
        await send(page, "look at these")
        await answered(page)
        await expect(page.locator("article.user details.attachment")).to_have_count(1)
        assert (
            await page.locator("article.user img").evaluate(
                "image => image.decode().then(() => image.naturalWidth)"
            )
            == 1
        )
        assert "long long" in provider.requests[0].messages[0].text


PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    + "1f15c4890000000d49444154789c6360f8cf500f0003860180"
    "5a348d7d0000000049454e44ae426082"
)


async def test_conversations_are_pinned_renamed_and_deleted_with_a_second_thought(
    chrome: Browser, tmp_path: Path
) -> None:
    async with watching(chrome, [local()], tmp_path) as watched:
        page = await watched.open()
        await send(page, "about cats")
        await answered(page)
        menu = page.locator("#row-menu")
        await page.locator("#conversations li .ghost").click(force=True)
        await menu.get_by_text("Pin", exact=True).click()
        await expect(page.locator("#conversations h2")).to_have_text("Pinned")
        await page.locator("#conversations li .ghost").click(force=True)
        await menu.get_by_text("Rename").click()
        await page.locator("#rename input").fill("My cats")
        await page.keyboard.press("Enter")
        await expect(page.locator("#title")).to_have_text("My cats")
        await expect(page.locator("#conversations a")).to_have_text("My cats")
        await page.locator("#conversations li .ghost").click(force=True)
        await menu.get_by_text("Delete").click()
        await page.wait_for_url(watched.url + "/")
        await expect(page.locator("#conversations a")).to_have_count(0)
        await page.get_by_role("button", name="Undo").click()
        await expect(page.locator("#conversations a")).to_have_text("My cats")


async def test_a_conversation_of_another_program_appears_at_once(chrome: Browser, tmp_path: Path) -> None:
    async with watching(chrome, [local()], tmp_path) as watched:
        page = await watched.open()
        await expect(page.locator("#conversations a")).to_have_count(0)
        body = {"messages": [{"role": "user", "content": "from afar"}], "conversation_id": "talk"}
        reply = await page.request.post(
            f"{watched.url}/v1/chat/completions", data=json.dumps(body), headers=JSON
        )
        assert reply.ok
        await expect(page.locator("#conversations a")).to_have_text("from afar")


JSON = {"content-type": "application/json"}


async def test_conversations_are_exported_and_imported(chrome: Browser, tmp_path: Path) -> None:
    async with watching(chrome, [local(says("hello back"))], tmp_path) as watched:
        page = await watched.open()
        await send(page, "hello")
        await answered(page)
        await page.locator("header.top .ghost[data-action=row-menu]").click()
        async with page.expect_download() as downloading:
            await page.get_by_role("menuitem", name="Export as JSON Lines").click()
        file = tmp_path / "exported.jsonl"
        await (await downloading.value).save_as(file)
        async with page.expect_file_chooser() as choosing:
            await page.get_by_role("button", name="Import").click()
        await (await choosing.value).set_files(file)
        await expect(page.locator("#conversations a")).to_have_count(2)
        await page.wait_for_url("**/c/*")
        await shows(page, ["hello", "hello back"])


async def test_a_temporary_chat_remembers_until_the_page_is_left(chrome: Browser, tmp_path: Path) -> None:
    provider = local(says("one"), says("two"))
    async with watching(chrome, [provider], tmp_path) as watched:
        page = await watched.open()
        await page.get_by_role("link", name="Temporary").click()
        await page.wait_for_url("**/?temporary=1")
        await send(page, "hello")
        await answered(page)
        await send(page, "more")
        await answered(page, 2)
        await shows(page, ["hello", "one", "more", "two"])
        assert [message.text for message in provider.requests[1].messages] == ["hello", "one", "more"]
        await page.reload()
        await shows(page, [])
        await expect(page.locator("#conversations a")).to_have_count(0)


async def test_the_model_and_the_instructions_of_a_conversation_are_remembered(
    chrome: Browser, tmp_path: Path
) -> None:
    other = Scripted("Other", says("from the other"))
    async with watching(chrome, [local(), other], tmp_path) as watched:
        page = await watched.open()
        await page.locator("select[name=model]").select_option("Other/other-1")
        await page.locator("[data-action=settings]").click()
        await page.get_by_label("Instructions for the model").fill("Be brief.")
        await watched.examine(page)
        await page.keyboard.press("Escape")
        await send(page, "hello")
        await answered(page)
        assert other.requests[0].messages[0].text == "Be brief."
        await page.reload()
        await expect(page.locator("select[name=model]")).to_have_value("Other/other-1")
        await page.locator("[data-action=settings]").click()
        await expect(page.get_by_label("Instructions for the model")).to_have_value("Be brief.")


@pytest.mark.check(35, 36)
async def test_hostile_texts_stay_texts(chrome: Browser, tmp_path: Path) -> None:
    hostile = "\n\n".join(VECTORS)
    script: list[Event] = [
        ReasoningDelta(text=hostile),
        *(TextDelta(text=vector + "\n\n") for vector in VECTORS),
        ToolCallDelta(index=0, id="1", name=VECTORS[0], arguments=hostile),
        Citation(url="http://example.org/" + VECTORS[0], title=VECTORS[1]),
        Finish(),
    ]
    async with watching(
        chrome, [local(script, [UpstreamOverloaded(VECTORS[2], hint=VECTORS[3])])], tmp_path
    ) as watched:
        page = await watched.open()
        await send(page, VECTORS[0] + "\n" + VECTORS[2])
        await answered(page)
        await page.reload()
        await send(page, "\n".join(VECTORS[:40]))
        await page.locator(".error").wait_for()
        await watched.examine(page)
        await page.keyboard.press("Control+k")
        await page.keyboard.type("alert")
        await page.locator("#found a").first.wait_for()
        strange = await page.evaluate(
            "[...document.querySelectorAll('main *, aside *')].filter((one) => [...one.attributes].some("
            "({name}) => name.startsWith('on'))).length"
            " + document.querySelectorAll('iframe, object, embed, base, main script').length"
        )
        assert strange == 0


async def test_a_phone_shows_everything_without_scrolling_sideways(chrome: Browser, tmp_path: Path) -> None:
    wide = (
        "| "
        + " | ".join("column" for _ in range(20))
        + " |\n|"
        + "---|" * 20
        + "\n\n```\n"
        + "x" * 300
        + "\n```\n"
    )
    async with watching(chrome, [local(says(wide))], tmp_path) as watched:
        page = await watched.open(size=PHONE)
        await send(page, "a table")
        await answered(page)
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        await expect(page.locator("#sidebar")).to_be_hidden()
        await page.get_by_role("button", name="Show the sidebar").click()
        await expect(page.locator("#sidebar")).to_be_visible()
        await watched.examine(page)
        for address in ("/providers", "/figures", "/"):
            await page.goto(watched.url + address)
            assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], address


@pytest.mark.parametrize(("colours", "language"), [("light", "en-US"), ("dark", "ru-RU")])
async def test_every_page_can_be_read_by_everybody(
    chrome: Browser, tmp_path: Path, colours: str, language: str
) -> None:
    async with watching(
        chrome, [local(says("**Hello**\n\n```python\nx = 1  # note\n```"))], tmp_path
    ) as watched:
        page = await watched.open(colours=colours, language=language)
        await send(page, "hello")
        await answered(page)
        for address in (
            "/",
            "/providers",
            "/figures",
            "/c/nothing",
            "/login",
            page.url.removeprefix(watched.url),
        ):
            watched.expected_errors += address == "/c/nothing"
            await page.goto(watched.url + address)
            await watched.examine(page)
        await expect(page.locator("html")).to_have_attribute("lang", language[:2])


async def test_language_and_colours_can_be_chosen(chrome: Browser, tmp_path: Path) -> None:
    async with watching(chrome, [local()], tmp_path) as watched:
        page = await watched.open()
        await page.locator("select[name=theme]").select_option("dark")
        await page.locator("select[name=lang]").select_option("ru")
        await expect(page.locator("#title")).to_have_text("Новая беседа")
        await page.reload()
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_a_provider_is_tested_and_the_figures_show_it(chrome: Browser, tmp_path: Path) -> None:
    async with watching(chrome, [local(says("Hello"))], tmp_path) as watched:
        page = await watched.open("/providers")
        await page.get_by_role("button", name="Test").click()
        await expect(page.locator(".outcome")).to_contain_text("First text after")
        await page.goto(watched.url + "/")
        await send(page, "hello")
        await answered(page)
        await page.goto(watched.url + "/figures")
        await expect(page.locator("svg.plot")).to_have_count(6)
        await page.get_by_text("As a table").first.click()
        await expect(page.locator(".figure table").first).to_be_visible()


async def test_a_key_opens_the_page(chrome: Browser, tmp_path: Path) -> None:
    async with watching(chrome, [local()], tmp_path, Auth({"ann": hash_key("key-of-ann")})) as watched:
        page = await watched.open()
        await page.wait_for_url("**/login")
        watched.expected_errors = 1
        await page.get_by_label("API key").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("This key is not known.")
        await page.get_by_label("API key").fill("key-of-ann")
        await page.keyboard.press("Enter")
        await page.wait_for_url(watched.url + "/")
        await send(page, "hello")
        await answered(page)


async def test_the_first_load_takes_at_most_ten_requests_and_sixty_kilobytes(
    chrome: Browser, tmp_path: Path
) -> None:
    async with watching(chrome, [local()], tmp_path) as watched:
        page = await watched.open()
        await page.wait_for_function(
            "performance.getEntriesByType('resource').some((one) => one.name.includes('/page/models'))"
        )
        sizes = await page.evaluate(
            "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".map((one) => one.transferSize)"
        )
        # The stream of events is counted when it ends.
        assert len(sizes) + 1 <= 10
        assert sum(sizes) <= 60_000


async def test_without_scripts_the_conversation_can_still_be_read(chrome: Browser, tmp_path: Path) -> None:
    async with watching(chrome, [local(says("**Hello**"))], tmp_path) as watched:
        page = await watched.open()
        await send(page, "hello")
        await answered(page)
        context = await chrome.new_context(java_script_enabled=False)
        plain = await context.new_page()
        await plain.goto(page.url)
        assert await plain.locator("article.assistant strong").inner_text() == "Hello"
        await context.close()

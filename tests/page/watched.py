"""A page in headless Chromium that is watched: whatever must never happen on it fails the test."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright, expect

from modelway.auth import Auth
from modelway.gateway import Gateway
from modelway.provider import Provider
from tests.serving import gateway_of, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
WITHOUT = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, PHONE = (1280, 860), (390, 844)
GRAVE = ("serious", "critical")
_REPORT = """
document.addEventListener('securitypolicyviolation', (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


class Watched:
    """Opens pages of one server. `problems` is what has happened that must not."""

    def __init__(self, browser: Browser, url: str, gateway: Gateway) -> None:
        self.url = url
        self.gateway = gateway
        self.problems: list[str] = []
        self.expected_errors = 0
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    async def open(
        self,
        address: str = "/",
        *,
        size: tuple[int, int] = WIDE,
        colours: str = "light",
        language: str = "en-US",
    ) -> Page:
        """A page in a browser of its own."""
        context = await self._browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=colours,
            locale=language,
            permissions=["clipboard-read", "clipboard-write"],
            accept_downloads=True,
        )
        self._contexts.append(context)
        await context.add_init_script(_REPORT)
        page = await context.new_page()
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        page.on("request", self._check)
        await page.goto(self.url + address)
        return page

    async def close(self) -> None:
        """Look once more at every page that is open."""
        for context in self._contexts:
            for page in context.pages:
                await self.examine(page)
            await context.close()

    async def examine(self, page: Page) -> None:
        """Nobody is kept out: no serious violation of the rules of accessibility."""
        found = await Axe().run(page)
        for violation in found.response["violations"]:
            if violation["impact"] in GRAVE:
                where = [node["html"][:120] for node in violation["nodes"][:3]]
                self.problems.append(f"axe: {violation['id']} {where}")

    def _note(self, kind: str, text: str) -> None:
        if kind not in ("error", "warning"):
            return
        if self.expected_errors and "Failed to load resource" in text:
            self.expected_errors -= 1
            return
        self.problems.append(f"{kind}: {text}")

    def _check(self, request: Request) -> None:
        if not request.url.startswith((self.url + "/", "data:", "blob:")):
            self.problems.append(f"request: {request.url}")


@asynccontextmanager
async def watching(
    browser: Browser, providers: Sequence[Provider], folder: Path, auth: Auth | None = None
) -> AsyncIterator[Watched]:
    """Serve these providers, and watch the pages that are opened."""
    gateway = gateway_of(providers, folder)
    async with serving(gateway, auth) as url:
        watched = Watched(browser, url, gateway)
        try:
            yield watched
        finally:
            await watched.close()
        assert watched.problems == []


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium, with an empty profile."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


async def send(page: Page, text: str) -> None:
    """Write a message and press Enter."""
    await page.locator("#composer textarea").fill(text)
    await page.keyboard.press("Enter")


async def answered(page: Page, count: int = 1) -> None:
    """Wait until there are so many answers and none is under way."""
    await page.locator("article.assistant:not(.live)").nth(count - 1).wait_for()
    await page.locator("#live").wait_for(state="detached")


async def shows(page: Page, texts: list[str]) -> None:
    """Wait until these are the messages that the page shows."""
    await expect(page.locator("article.message .prose")).to_have_text(texts)


async def said(page: Page) -> list[str]:
    """The text of each message that the page shows."""
    texts: Any = await page.locator("article.message .prose").all_inner_texts()
    return [" ".join(text.split()) for text in texts]

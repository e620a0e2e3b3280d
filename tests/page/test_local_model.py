"""The page with the embedded model: nothing between them is made up."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.async_api import expect

from modelway.config import LocalSettings, Settings
from modelway.wiring import build
from tests.conftest_local import find_model
from tests.page.watched import WITHOUT, Watched, answered, chromium, said, send
from tests.serving import serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180), WITHOUT]


async def test_the_embedded_model_answers_on_the_page(tmp_path: Path) -> None:
    # Not imported here: another test shows that the engine stays in its child process.
    if find_spec("xllamacpp") is None:
        pytest.skip("the engine is not installed")
    few = LocalSettings(model=str(find_model()), context_length=1024, parallel=1, max_tokens=24)
    gateway = build(Settings(local=few), data_dir=tmp_path)
    async with serving(gateway) as url, chromium() as chrome:
        watched = Watched(chrome, url, gateway)
        page = await watched.open()
        await send(page, "Say hello.")
        await expect(page.locator("#live")).to_be_visible()
        await page.reload()
        await page.locator("article.assistant:not(.live)").wait_for(timeout=120_000)
        await answered(page)
        question, answer = await said(page)
        assert question == "Say hello."
        assert answer
        await expect(page.locator(".measures")).to_contain_text("Local · smollm2")
        await watched.close()
        assert watched.problems == []

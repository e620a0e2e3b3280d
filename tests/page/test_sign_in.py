"""Signing in to Copilot from the page, against the fake of Microsoft's and GitHub's authorities."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from modelway.config import CopilotSettings, UpstreamSettings
from modelway.providers.copilot import Copilot, SignIns
from modelway.providers.copilot.by_code import CodeSignIn
from modelway.providers.copilot.microsoft import MicrosoftDoor
from modelway.providers.copilot.profiles import PROFILES
from modelway.providers.http import HTTPClient
from tests.fake_m365 import FakeM365
from tests.page.browsing import Browser, browsing
from tests.scripted import Scripted

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def signing_in(folder: Path, m365: FakeM365, *, is_registered: bool = True) -> AsyncIterator[Browser]:
    settings = m365.settings() if is_registered else CopilotSettings()
    http = HTTPClient(UpstreamSettings())
    sign_ins = SignIns(folder / "credentials")

    async def nobody(token: str) -> str:
        return "octocat"

    async def at_once(seconds: float) -> None:
        await asyncio.sleep(0)

    by_code = CodeSignIn(settings, sign_ins, http, nobody, sleep=at_once)
    doors = [MicrosoftDoor(profile, settings, http=http, sign_ins=sign_ins) for profile in PROFILES.values()]
    copilot = Copilot(settings, doors, http=http, by_code=by_code)
    async with browsing([copilot, Scripted("Local")], folder) as browser:
        yield browser


async def outcome(browser: Browser) -> dict[str, str]:
    told = await browser.do("sign-in/state", provider="Copilot")
    while told["state"] == "waiting":
        told = await browser.do("sign-in/state", provider="Copilot")
    return told


async def test_somebody_signs_in_with_a_code_and_copilot_is_ready(tmp_path: Path) -> None:
    async with FakeM365() as m365, signing_in(tmp_path, m365) as browser:
        m365.polls = ["authorization_pending", "authorization_pending"]
        assert 'data-action="sign-in"' in (await browser.get("/providers")).text
        [before, _] = await browser.gateway.offering.infos()
        assert not before.ready
        code = await browser.do("sign-in", provider="copilot")
        assert (code["code"], code["address"]) == ("ABCD-EFGH", "https://microsoft.com/devicelogin")
        assert (await outcome(browser))["state"] == "done"
        assert browser.gateway.providers["Copilot"].info.ready
        html = (await browser.get("/providers")).text
        for form in m365.forms:
            assert form.get("refresh_token", "no token") not in html


async def test_a_sign_in_that_is_declined_says_so(tmp_path: Path) -> None:
    async with FakeM365() as m365, signing_in(tmp_path, m365) as browser:
        m365.polls = ["access_denied"]
        await browser.do("sign-in", provider="Copilot")
        told = await outcome(browser)
        assert told["state"] == "failed"
        assert told["text"]


async def test_without_a_registered_application_no_button_is_shown(tmp_path: Path) -> None:
    async with FakeM365() as m365, signing_in(tmp_path, m365, is_registered=False) as browser:
        assert 'data-action="sign-in"' not in (await browser.get("/providers")).text
        reply = await browser.http.post("/page/sign-in", json={"provider": "Copilot"})
        assert reply.json()["error"]["code"] == "provider_not_configured"


async def test_who_has_no_codes_cannot_be_signed_in_to(tmp_path: Path) -> None:
    async with browsing([Scripted("Local")], tmp_path) as browser:
        reply = await browser.http.post("/page/sign-in", json={"provider": "Local"})
        assert reply.status_code == 400
        assert (await browser.do("sign-in/state", provider="Local"))["state"] == "failed"

"""Copilot from the sign-in to the second turn, in processes of their own, before a fake Microsoft."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.client import AsyncClient
from modelway.config import Settings, UpstreamSettings
from modelway.providers.http import HTTPClient
from tests.canary import CANARY, key
from tests.fake_m365 import CLIENT_ID, TENANT, FakeM365

pytestmark = pytest.mark.anyio


async def begin(m365: FakeM365, folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    """A command in a process of its own."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "modelway", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={
            **os.environ,
            **{f"MODELWAY_{name}_DIR": str(folder) for name in ("CONFIG", "DATA", "STATE", "CACHE")},
            "BROWSER": "true",
            "MODELWAY_COPILOT__CLIENT_ID": CLIENT_ID,
            "MODELWAY_COPILOT__TENANT": TENANT,
            "MODELWAY_COPILOT__BASE_URL": m365.base,
            "MODELWAY_COPILOT__AUTHORITY": m365.root,
            "MODELWAY_COPILOT__GITHUB__RUNTIME_PATH": str(folder / "no-runtime"),
        },
    )


async def run(m365: FakeM365, folder: Path, *arguments: str, given: str = "") -> tuple[int, str, str]:
    """A command; its code, stdout and stderr. `given` is its stdin."""
    process = await begin(m365, folder, *arguments)
    out, err = await process.communicate(given.encode())
    return process.returncode or 0, out.decode(), err.decode()


async def test_two_processes_hold_one_conversation_after_a_sign_in(m365: FakeM365, tmp_path: Path) -> None:
    m365.polls = ["authorization_pending"]
    code, out, _ = await run(m365, tmp_path, "status", "copilot")
    assert (code, out.count("nobody has signed in")) == (4, 3)
    code, out, err = await run(m365, tmp_path, "login", "copilot")
    assert (code, out) == (0, "signed in to Microsoft 365 Copilot (Work IQ) as ada@contoso.example\n")
    assert "ABCD-EFGH" in err
    assert "Copilot Credits" in err

    asked = ("chat", "--no-server", "--provider", "Copilot", "--conversation", "c")
    for number, question in enumerate(("I am Ada", "Who am I?")):
        m365.reply("Hello, ", f"Ada {number}")
        code, out, err = await run(m365, tmp_path, *asked, question)
        assert (code, out) == (0, f"Hello, Ada {number}\n"), err
    first, second = m365.turns
    assert first.conversation == second.conversation
    assert second.body["message"] == {"text": "Who am I?"}
    assert "additionalContext" not in second.body

    code, out, _ = await run(m365, tmp_path, "status", "copilot")
    assert code == 0
    (row,) = [line.split("\t") for line in out.splitlines() if line.startswith("workiq")]
    assert (row[1], row[2], row[4]) == ("yes", "ada@contoso.example", "file")
    assert CANARY not in out
    code, out, _ = await run(m365, tmp_path, "logout", "copilot")
    assert (code, out) == (0, "signed out of workiq\n")
    code, _, err = await run(m365, tmp_path, *asked, "And now?")
    assert code == 4
    assert "modelway login copilot" in err


async def test_a_conversation_that_microsoft_dropped_goes_on_with_its_history(
    m365: FakeM365, tmp_path: Path
) -> None:
    m365.signed_in(tmp_path)
    settings = Settings(provider="Copilot", copilot=m365.settings())
    m365.reply("Hello, Ada")
    async with aclosing(AsyncClient(settings=settings, data_dir=tmp_path)) as client:
        await client.conversation("c").send("I am Ada")
        m365.forget()
        m365.reply("You are Ada")
        assert (await client.conversation("c").send("Who am I?")).text == "You are Ada"
        m365.reply("Again")
        assert (await client.conversation("c").send("Really?")).text == "Again"
    told: list[Any] = m365.turns[2].body["additionalContext"]
    assert [item["text"] for item in told] == ["User: I am Ada", "Assistant: Hello, Ada"]
    assert [turn.conversation[-1] for turn in m365.turns] == ["1", "1", "2", "2"]
    assert "additionalContext" not in m365.turns[3].body


async def test_what_cannot_be_signed_in_to_is_told(m365: FakeM365, tmp_path: Path) -> None:
    code, _, err = await run(m365, tmp_path, "login", "groq")
    assert (code, "keys" in err) == (2, True)
    code, _, err = await run(m365, tmp_path, "login", "copilot", "--transport", "teams")
    assert (code, "github, workiq, graph" in err) == (2, True)
    m365.polls = ["authorization_declined"]
    code, _, err = await run(m365, tmp_path, "login", "copilot")
    assert (code, "declined" in err) == (4, True)


async def test_a_browser_signs_in(m365: FakeM365, tmp_path: Path) -> None:
    process = await begin(m365, tmp_path, "login", "copilot", "--browser", "--json")
    assert process.stderr is not None
    page = ""
    while not page:
        line = (await process.stderr.readline()).decode()
        assert line, "it ended without a page"
        page = line.partition("Sign in on this page: ")[2].strip()
    async with aclosing(HTTPClient(UpstreamSettings())) as http:
        response = await http.request("GET", m365.enter(page), headers={})
        async with aclosing(response):
            assert b"signed in" in await response.body()
    out, _ = await process.communicate()
    assert process.returncode == 0
    account = json.loads(out)
    assert (account["signed_in"], account["account"], account["kept"]) == (
        True,
        "ada@contoso.example",
        "file",
    )


async def test_a_token_from_stdin_is_kept_for_github(m365: FakeM365, tmp_path: Path) -> None:
    github = ("login", "copilot", "--transport", "github", "--with-token")
    code, _, err = await run(m365, tmp_path, *github, given=key("ghp_classic"))
    assert (code, "classic" in err, "ghp_" in err) == (3, True, False)
    code, out, err = await run(m365, tmp_path, *github, given=key("github_pat"))
    assert (code, out.startswith("signed in to GitHub Copilot, but the token has not been tried")) == (
        0,
        True,
    )
    assert "without having been tried" in err
    assert CANARY not in out + err
    _, out, _ = await run(m365, tmp_path, "status", "copilot")
    [row] = [line.split("\t") for line in out.splitlines() if line.startswith("github")]
    assert row[1:3] == ["not tried yet", ""]
    code, out, err = await run(m365, tmp_path, "chat", "--no-server", "--provider", "Copilot", "Hi")
    assert (code, "no runtime" in err) == (3, True)
    code, _, err = await run(m365, tmp_path, "login", "copilot", "--with-token", given="x\n")
    assert (code, "--transport github" in err) == (2, True)

"""Copilot from the sign-in to the second turn, in processes of their own, before a fake Microsoft."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.client import AsyncClient
from modelway.config import Settings
from tests.fake_m365 import CLIENT_ID, TENANT, FakeM365

pytestmark = pytest.mark.anyio


@pytest.fixture
async def m365() -> AsyncIterator[FakeM365]:
    async with FakeM365() as fake:
        yield fake


async def run(m365: FakeM365, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """A command in a process of its own; its code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "modelway", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={
            **os.environ,
            **{f"MODELWAY_{name}_DIR": str(folder) for name in ("CONFIG", "DATA", "STATE", "CACHE")},
            "MODELWAY_COPILOT__CLIENT_ID": CLIENT_ID,
            "MODELWAY_COPILOT__TENANT": TENANT,
            "MODELWAY_COPILOT__BASE_URL": m365.base,
            "MODELWAY_COPILOT__AUTHORITY": m365.root,
        },
    )
    out, err = await process.communicate()
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
    assert "refresh" not in out
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

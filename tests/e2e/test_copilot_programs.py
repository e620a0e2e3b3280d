"""Programs of users that name the provider Copilot, through each of its doors, before a fake upstream.

Where CLIENT_PROGRAMS names a folder, the programs in it are run too, unchanged but for the server's port.
GitHub's door needs the runtime; see tests/providers/test_copilot_runtime.py.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from modelway.config import UpstreamSettings
from modelway.providers.http import HTTPClient
from modelway.testing.fake_upstream import FakeUpstream
from tests.e2e.running import Running
from tests.e2e.test_chat_completions import Caller
from tests.fake_m365 import CLIENT_ID, TENANT, FakeM365
from tests.providers.test_copilot_runtime import RUNTIME

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "requests_iter_lines.py"
FOLDER = os.environ.get("CLIENT_PROGRAMS", "")
PROGRAMS = sorted(Path(FOLDER).glob("*.py")) if FOLDER else []
GITHUB = pytest.mark.skipif(not Path(RUNTIME).is_file(), reason="no runtime of GitHub Copilot")

pytestmark = pytest.mark.anyio


class Stage(Struct):
    """A server whose Copilot leads to a fake; `told` gives what the upstream was sent in each turn.

    A turn is the id of the upstream's conversation ("" where it has none on the wire) and all its texts.
    """

    server: Running
    upstream: FakeM365 | FakeUpstream

    def reply(self, text: str) -> None:
        self.upstream.reply(text)

    @property
    def told(self) -> list[tuple[str, str]]:
        if isinstance(self.upstream, FakeM365):
            return [(turn.conversation, str(turn.body)) for turn in self.upstream.turns]
        return [("", str(request.json["messages"])) for request in self.upstream.requests]


@pytest.fixture(params=["workiq", "graph", pytest.param("github", marks=GITHUB)])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    transport = request.param
    if transport == "github":
        async with FakeUpstream() as upstream:
            with Running(tmp_path, config=github_config(upstream)) as server:
                yield Stage(server, upstream)
        return
    async with FakeM365() as m365:
        m365.signed_in(tmp_path, transport)
        with Running(tmp_path, config=microsoft_config(m365, transport)) as server:
            yield Stage(server, m365)


def microsoft_config(m365: FakeM365, transport: str) -> str:
    return f"""
        [copilot]
        transport = "{transport}"
        client_id = "{CLIENT_ID}"
        tenant = "{TENANT}"
        base_url = "{m365.base}"
        authority = "{m365.root}"
    """


def github_config(upstream: FakeUpstream) -> str:
    return f"""
        [copilot]
        transport = "github"
        [copilot.github]
        runtime_path = "{RUNTIME}"
        base_url = "{upstream.url}"
    """


async def output_of(*command: str) -> str:
    done = await asyncio.to_thread(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


async def test_the_second_answer_of_each_program_knows_the_first(stage: Stage, tmp_path: Path) -> None:
    port = stage.server.address.rpartition(":")[2]
    for program in (EXAMPLE, *PROGRAMS):
        stage.reply("I am fine, Heiner")
        stage.reply("It is German")
        copy = tmp_path / program.name
        copy.write_text(program.read_text().replace("localhost:1337", f"localhost:{port}"))
        printed = await output_of(sys.executable, str(copy), f"{stage.server.address}/v1", "Copilot")
        assert "error" not in printed
        assert [line for line in printed.splitlines() if line] == ["I am fine, Heiner", "It is German"]
        # The remaining one asks in two conversations.
        if program.name in ("requests_iter_lines.py", "two_turns.py"):
            check_second_knows_first(stage)


def check_second_knows_first(stage: Stage) -> None:
    (first, _), (second, texts) = stage.told[-2:]
    assert "Tell me somethings about my name" in texts
    if isinstance(stage.upstream, FakeM365):
        # The upstream keeps what was said; only what is new is sent.
        assert first == second
        assert "additionalContext" not in texts
    else:
        assert "Hello, i am Heiner" in texts
        assert "I am fine, Heiner" in texts


def asking(text: str) -> dict[str, Any]:
    return {
        "provider": "Copilot",
        "messages": [{"role": "user", "content": text}],
        "conversation_id": "heiner",
    }


async def test_a_conversation_goes_on_after_a_kill_and_after_the_upstream_dropped_it(
    stage: Stage, tmp_path: Path
) -> None:
    for text in ("Hello, Heiner", "You are Heiner", "Yes, Heiner"):
        stage.reply(text)
    async with aclosing(HTTPClient(UpstreamSettings())) as http:
        assert (await Caller(stage.server.address, http).chunks(asking("I am Heiner")))[-1] == "[DONE]"
        stage.server.kill()
        stage.server.start()
        caller = Caller(stage.server.address, http)
        await caller.chunks(asking("Who am I?"))
        (first, _), (second, texts) = stage.told
        assert first == second
        assert "earlier" not in texts.casefold()
        if not isinstance(stage.upstream, FakeM365):
            roles = [message["role"] for message in stage.upstream.requests[-1].json["messages"]]
            assert roles == ["system", "user", "assistant", "user"]

        if isinstance(stage.upstream, FakeM365):
            stage.upstream.forget()
        else:
            forget(tmp_path / "copilot" / "session-state")
        assert (await caller.chunks(asking("Really?")))[-1] == "[DONE]"
    told = stage.told[-1][1]
    for text in ("User: I am Heiner", "Assistant: Hello, Heiner", "Assistant: You are Heiner", "Really?"):
        assert text in told


def forget(sessions: Path) -> None:
    """Lose all conversations of the runtime."""
    for events in sessions.glob("*/events.jsonl"):
        events.unlink()
        events.parent.rename(events.parent.with_name("gone"))

"""Codex itself, without a window, with a call of its own tool."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from modelway.testing.fake_upstream import FakeUpstream, Received
from modelway.types import ToolCall
from tests.clients.conftest import Programs
from tests.e2e.test_relay import relaying

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

CONFIG = """
model = "Fake/m"
model_provider = "modelway"
web_search = "disabled"
[model_providers.modelway]
name = "Modelway"
base_url = "{address}/v1"
wire_api = "responses"
env_key = "MODELWAY_KEY"
supports_websockets = {sockets}
[analytics]
enabled = false
"""


@pytest.mark.shows("Codex", "fake", "chat", "tools")
@pytest.mark.parametrize("sockets", ["false", "true"])
async def test_codex_reads_a_file_and_answers(
    programs: Programs, tmp_path: Path, sockets: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "modelway.request")
    work, home = tmp_path / "work", tmp_path / "home/.codex"
    work.mkdir()
    home.mkdir(parents=True)
    (work / "plan.md").write_text("The plan is blue.\n")
    async with FakeUpstream() as upstream, relaying(upstream, tmp_path) as caller:

        def choose(request: Received) -> None:
            if any(message["role"] == "tool" for message in request.json["messages"]):
                upstream.reply("The plan", " is blue.", reasoning="It says so.")
            else:
                upstream.reply(calls=[ToolCall("call_1", "exec_command", '{"cmd":"cat plan.md"}')])

        upstream.decide(choose)
        (home / "config.toml").write_text(CONFIG.format(address=caller.address, sockets=sockets))
        out = await programs.run(
            *(
                "codex",
                "exec",
                "--skip-git-repo-check",
                "--json",
                "-s",
                "danger-full-access",
                "What is the plan?",
            ),
            folder=work,
            environ={"HOME": str(tmp_path / "home"), "MODELWAY_KEY": "none"},
        )
    assert ('"status":101' in caplog.text) == (sockets == "true")
    told = [json.loads(line) for line in out.splitlines()]
    said = [event["item"].get("text") for event in told if event["type"] == "item.completed"]
    assert "The plan is blue." in said
    assert "It says so." in said
    [result] = [message for message in upstream.requests[-1].json["messages"] if message["role"] == "tool"]
    assert "The plan is blue." in result["content"]

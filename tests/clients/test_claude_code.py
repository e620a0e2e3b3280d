"""Claude Code itself, in print mode, with a call of its own tool.

What it asks is among the cases of tests/e2e/test_every_format.py, so that every upstream is tried with it
without the program.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelway.testing.fake_upstream import FakeUpstream, Received
from modelway.types import ToolCall
from tests.clients.conftest import Programs
from tests.e2e.test_relay import relaying

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


def quiet(address: str, model: str) -> dict[str, str]:
    """What points it here, and keeps it from asking anybody else."""
    return {
        "ANTHROPIC_BASE_URL": address,
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_MODEL": model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


@pytest.mark.shows("Claude Code", "fake", "chat", "tools")
async def test_claude_code_reads_a_file_and_answers(programs: Programs, tmp_path: Path) -> None:
    plan = tmp_path / "plan.md"
    plan.write_text("The plan is blue.\n")
    async with FakeUpstream() as upstream, relaying(upstream, tmp_path) as caller:

        def choose(request: Received) -> None:
            if any(message["role"] == "tool" for message in request.json["messages"]):
                upstream.reply("The plan", " is blue.")
            else:
                path = json.dumps({"file_path": str(plan)})
                upstream.reply("I read it. ", calls=[ToolCall("call_1", "Read", path)])

        upstream.decide(choose)
        out = await programs.run(
            *("claude", "-p", "What is the plan?", "--output-format", "json", "--allowedTools", "Read"),
            folder=tmp_path,
            environ=quiet(caller.address, "Fake/m"),
        )
    told = json.loads(out)
    assert (told["is_error"], told["result"], told["num_turns"]) == (False, "The plan is blue.", 2)
    [result] = [message for message in upstream.requests[-1].json["messages"] if message["role"] == "tool"]
    assert "The plan is blue." in result["content"]

"""Claude Code itself, in print mode, with a call of its own tool.

Runs where MODELWAY_CLAUDE_CODE names the program (`npm install @anthropic-ai/claude-code`). What it asks is
among the cases of test_every_format.py, so that every upstream is tried with it without the program.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from modelway.testing.fake_upstream import FakeUpstream, Received
from modelway.types import ToolCall
from tests.e2e.test_relay import relaying

pytestmark = pytest.mark.anyio

PROGRAM = os.environ.get("MODELWAY_CLAUDE_CODE", "")


@pytest.mark.skipif(not PROGRAM, reason="MODELWAY_CLAUDE_CODE does not name the program")
async def test_claude_code_reads_a_file_and_answers(tmp_path: Path) -> None:
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
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *("-p", "What is the plan?", "--output-format", "json", "--allowedTools", "Read"),
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path / "home"),
                "ANTHROPIC_BASE_URL": caller.address,
                "ANTHROPIC_API_KEY": "none",
                "ANTHROPIC_MODEL": "Fake/m",
                "ANTHROPIC_DEFAULT_HAIKU_MODEL": "Fake/m",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "DISABLE_TELEMETRY": "1",
                "DISABLE_AUTOUPDATER": "1",
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    told = json.loads(out)
    assert (told["is_error"], told["result"], told["num_turns"]) == (False, "The plan is blue.", 2)
    [result] = [message for message in upstream.requests[-1].json["messages"] if message["role"] == "tool"]
    assert "The plan is blue." in result["content"]

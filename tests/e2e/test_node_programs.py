"""Programs in Node: OpenAI's own SDK, and the Vercel AI SDK in four formats, tools included.

They run where `node` and what node/package.json names are installed: there, or in the folder that
MODELWAY_NODE_MODULES names.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from modelway.testing.fake_upstream import FakeUpstream, Received
from modelway.types import ToolCall
from tests.e2e.test_relay import relaying
from tests.scripted import Scripted, says

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent / "node"
MODULES = Path(os.environ.get("MODELWAY_NODE_MODULES") or HERE / "node_modules")
needs_node = pytest.mark.skipif(
    not (shutil.which("node") and (MODULES / "openai").is_dir()), reason="needs node and its packages"
)


def answering(upstream: FakeUpstream) -> None:
    """A model that looks where it may, writes JSON where it must, and says what it has seen."""

    def choose(request: Received) -> None:
        asked = request.json
        if any(message["role"] == "tool" for message in asked["messages"]):
            upstream.reply("It is ", "blue")
        elif any(tool["function"]["name"] == "json" for tool in asked.get("tools", ())):
            # How some programs ask for an object.
            upstream.reply(calls=[ToolCall("call_2", "json", '{"colour":"blue"}')])
        elif asked.get("tools"):
            upstream.reply("I look. ", calls=[ToolCall("call_1", "look", '{"at":"sky"}')])
        elif asked.get("response_format"):
            upstream.reply('{"colour":', '"blue"}')
        elif isinstance(asked["messages"][-1]["content"], list) and any(
            part["type"] == "image_url" for part in asked["messages"][-1]["content"]
        ):
            upstream.reply("A picture")
        else:
            upstream.reply("Hel", "lo")

    upstream.decide(choose)


async def run(program: str, upstream: FakeUpstream, folder: Path) -> Any:
    """What a program prints."""
    source = folder / program
    source.write_text((HERE / program).read_text())
    (folder / "node_modules").symlink_to(MODULES)
    async with relaying(upstream, folder, Scripted("Other", says(" upon a time"))) as caller:
        process = await asyncio.create_subprocess_exec(
            "node",
            source,
            env={"PATH": os.environ["PATH"], "ADDRESS": caller.address},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@needs_node
async def test_openai_s_sdk(tmp_path: Path) -> None:
    async with FakeUpstream() as upstream:
        answering(upstream)
        seen = await run("openai.mjs", upstream, tmp_path)
    assert (seen["whole"], seen["streamed"]) == ("Hello", "Hello")
    assert (seen["looped"], seen["looped_streamed"], seen["looked"]) == (
        "It is blue",
        "It is blue",
        ["sky"] * 2,
    )
    assert seen["parsed"] == {"colour": "blue"}
    assert (seen["response"], seen["deltas"], seen["retrieved"]) == ("It is blue", 2, 2)
    assert seen["prompt"] == " upon a time"
    assert seen["error"] == ["NotFoundError", 404, "model_not_found"]


@needs_node
async def test_the_vercel_ai_sdk_in_every_format(tmp_path: Path) -> None:
    async with FakeUpstream() as upstream:
        answering(upstream)
        seen = await run("ai_sdk.mjs", upstream, tmp_path)
    assert seen.keys() == {"responses", "chat", "compatible", "anthropic"}
    for own in seen.values():
        assert (own["text"], own["streamed"]) == ("Hello", "Hello")
        assert own["looped"] == ["It is blue", 2, "stop", True]
        assert own["loopedStreamed"] == "It is blue"
        assert own["looked"] == ["sky", "sky"]
        assert own["object"] == {"colour": "blue"}
        assert own["image"] == "A picture"

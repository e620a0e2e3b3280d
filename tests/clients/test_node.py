"""Programs in Node: the packages of OpenAI, Anthropic and Ollama, and the Vercel AI SDK in four formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelway.testing.fake_upstream import FakeUpstream, Received
from modelway.types import ToolCall
from tests.clients.conftest import Programs, Server
from tests.e2e.test_relay import relaying
from tests.scripted import Scripted, says

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

HERE = Path(__file__).parent / "node"


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


async def run(program: str, programs: Programs, folder: Path) -> Any:
    """What a program prints that talks to such a model."""
    async with FakeUpstream() as upstream:
        answering(upstream)
        async with relaying(upstream, folder, Scripted("Other", says(" upon a time"))) as caller:
            source = (HERE / program).read_text()
            return json.loads(await programs.script(source, folder, {"ADDRESS": caller.address}))


@pytest.mark.shows("openai (Node)", "fake", "chat", "tools", "objects")
async def test_openai_s_sdk(programs: Programs, tmp_path: Path) -> None:
    seen = await run("openai.mjs", programs, tmp_path)
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


@pytest.mark.shows("Vercel AI SDK", "fake", "chat", "tools", "objects")
async def test_the_vercel_ai_sdk_in_every_format(programs: Programs, tmp_path: Path) -> None:
    seen = await run("ai_sdk.mjs", programs, tmp_path)
    assert seen.keys() == {"responses", "chat", "compatible", "anthropic"}
    for own in seen.values():
        assert (own["text"], own["streamed"]) == ("Hello", "Hello")
        assert own["looped"] == ["It is blue", 2, "stop", True]
        assert own["loopedStreamed"] == "It is blue"
        assert own["looked"] == ["sky", "sky"]
        assert own["object"] == {"colour": "blue"}
        assert own["image"] == "A picture"


CLIENTS = ("openai (Node)", "anthropic (Node)", "Vercel AI SDK")
EMBEDDED = [pytest.mark.shows(client, "embedded", "tools") for client in CLIENTS]
FAKE = [pytest.mark.shows(client, "fake", "tools") for client in (*CLIENTS, "ollama (Node)")]


@pytest.mark.parametrize(
    ("server", "environ"),
    [
        pytest.param("embedded", {}, id="embedded", marks=EMBEDDED),
        pytest.param("fake", {"CALLS_BY_ITSELF": "1"}, id="fake", marks=FAKE),
    ],
    indirect=["server"],
)
async def test_a_tool_is_called_and_its_result_is_told(
    server: Server, environ: dict[str, str], programs: Programs, tmp_path: Path
) -> None:
    environ = {"ADDRESS": server.address, "MODEL": server.model, **environ}
    seen = json.loads(await programs.script((HERE / "tools.mjs").read_text(), tmp_path, environ))
    assert len(seen) == (16 if server.model == "Fake/m" else 14)
    for name, trip in seen.items():
        assert trip["called"]["city"] in ("Paris", "Rome"), name
        # The model knows it from the tool alone.
        assert "23" in trip["text"], name

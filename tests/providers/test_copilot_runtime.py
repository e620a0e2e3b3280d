"""GitHub Copilot's real runtime, offline, before an OpenAI-compatible fake in GitHub's place.

It is nobody's account that answers, so this shows that we and the runtime understand each other, not that
GitHub does. MODELWAY_TEST_COPILOT_RUNTIME names the runtime, else it must be on the PATH. It is in the npm
package @github/copilot-sdk-linux-x64 (prebuilds/linux-x64/copilot-runtime), or its like for other systems.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.config import CopilotGitHubSettings, CopilotSettings
from modelway.errors import ModelNotFound, SignInRequired, UpstreamTimeout, UpstreamUnreachable
from modelway.providers.copilot import SignIns
from modelway.providers.copilot.github import GitHubDoor
from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import (
    ChatRequest,
    Event,
    Finish,
    ImagePart,
    Message,
    ReasoningDelta,
    TextPart,
    UpstreamState,
    Usage,
    collect,
)
from tests.providers.asking import events_of

RUNTIME = os.environ.get("MODELWAY_TEST_COPILOT_RUNTIME") or shutil.which("copilot-runtime") or ""
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
DEADLINE_S = 20.0

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not Path(RUNTIME).is_file(),
        reason="no runtime of GitHub Copilot: set MODELWAY_TEST_COPILOT_RUNTIME or put it on the PATH",
    ),
    # The SDK leaves the pipes of its process to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


@pytest.fixture
async def door(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[GitHubDoor]:
    async with aclosing(door_of(upstream, tmp_path)) as door:
        yield door
    gc.collect()


def door_of(upstream: FakeUpstream, folder: Path, *, idle_timeout_s: float = 20.0) -> GitHubDoor:
    github = CopilotGitHubSettings(runtime_path=RUNTIME, base_url=upstream.url)
    return GitHubDoor(
        CopilotSettings(idle_timeout_s=idle_timeout_s, github=github),
        sign_ins=SignIns(folder / "credentials"),
        home=folder / "home",
        variable=lambda name: os.environ.get(name, "") if name == "PATH" else "",
        pulse_s=0.2,
    )


def ask(*texts: str, turn: str = "turn-1", **fields: Any) -> ChatRequest:
    messages = tuple(
        Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts)
    )
    known = {"messages": messages, "stream": True, "conversation_id": "c", "turn_id": turn}
    return ChatRequest(**{**known, **fields})


def said_to(upstream: FakeUpstream) -> list[tuple[str, str]]:
    """Role and text of the last request's messages, without the date that the runtime puts before each."""
    return [
        (
            message["role"],
            str(message["content"]).partition("</current_datetime>\n\n")[2] or message["content"],
        )
        for message in upstream.requests[-1].json["messages"]
    ]


def state_in(events: list[Event]) -> dict[str, Any]:
    (state,) = [event for event in events if isinstance(event, UpstreamState)]
    return state.value


async def test_a_conversation_goes_on_in_another_process_of_the_runtime(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.reply("Hello, ", "Ada", reasoning="hm")
    system = Message(role="system", content="Be brief")
    async with aclosing(door_of(upstream, tmp_path)) as door:
        events = await events_of(door, ask(messages=(system, *ask("I am Ada").messages)))
    assert collect(events).text == "Hello, Ada"
    assert ReasoningDelta(text="hm") in events
    assert isinstance(events[-1], Finish)
    assert events[-1].usage == Usage(input_tokens=7, output_tokens=3)
    assert said_to(upstream) == [("system", "Be brief"), ("user", "I am Ada")]
    assert "tools" not in upstream.requests[-1].json

    upstream.reply("You are Ada")
    later = ask("I am Ada", "Hello, Ada", "Who am I?").messages
    request = ask(messages=(system, *later), turn="turn-2", new_from=3, upstream_state=state_in(events))
    async with aclosing(door_of(upstream, tmp_path)) as door:
        again = await events_of(door, request)
    assert collect(again).text == "You are Ada"
    assert state_in(again) == state_in(events)
    assert said_to(upstream)[1:] == [
        ("user", "I am Ada"),
        ("assistant", "Hello, Ada"),
        ("user", "Who am I?"),
    ]
    gc.collect()


async def test_a_conversation_that_the_runtime_lost_is_told_again(
    upstream: FakeUpstream, door: GitHubDoor, tmp_path: Path
) -> None:
    first = await events_of(door, ask("I am Ada"))
    shutil.rmtree(tmp_path / "home" / "session-state")
    request = ask("I am Ada", "Hello", "Who am I?", turn="turn-2", new_from=2, upstream_state=state_in(first))
    await events_of(door, request)
    ((_, _), (_, told)) = said_to(upstream)
    assert "User: I am Ada\n\nAssistant: Hello" in told
    assert told.endswith("Who am I?")


async def test_an_image_reaches_the_model(upstream: FakeUpstream, door: GitHubDoor) -> None:
    message = Message(role="user", content=(TextPart("What is it?"), ImagePart(PIXEL)))
    await events_of(door, ask(messages=(message,)))
    content = upstream.requests[-1].json["messages"][-1]["content"]
    assert {"type": "image_url", "image_url": {"url": PIXEL}} in content


async def test_nothing_is_left_on_disk_without_a_conversation(
    upstream: FakeUpstream, door: GitHubDoor, tmp_path: Path
) -> None:
    await events_of(door, ask("Hi", conversation_id=""))
    assert list((tmp_path / "home" / "session-state").iterdir()) == []


async def test_a_turn_that_is_left_hangs_up_upstream(upstream: FakeUpstream, door: GitHubDoor) -> None:
    upstream.stall("Hel")
    async with aclosing(door.stream(ask("Hi"))) as events:
        await anext(events)
    async with asyncio.timeout(DEADLINE_S):
        await upstream.hung_up.wait()
    upstream.reply("Hello")
    assert collect(await events_of(door, ask("Hi", turn="turn-2"))).text == "Hello"


async def test_a_refused_key_asks_for_a_sign_in(upstream: FakeUpstream, door: GitHubDoor) -> None:
    upstream.fail(401, "bad key")
    with pytest.raises(SignInRequired):
        await events_of(door, ask("Hi"))


async def test_an_unknown_model_is_no_other_model(upstream: FakeUpstream, door: GitHubDoor) -> None:
    upstream.fail(404, "there is no such model", "model_not_found")
    with pytest.raises(ModelNotFound):
        await events_of(door, ask("Hi", model="gpt-9"))


async def test_silence_has_an_end(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.be_silent()
    async with aclosing(door_of(upstream, tmp_path, idle_timeout_s=1.0)) as door:
        with pytest.raises(UpstreamTimeout):
            await events_of(door, ask("Hi"))
    gc.collect()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the process in /proc")
async def test_a_killed_runtime_is_noticed_and_started_again(
    upstream: FakeUpstream, door: GitHubDoor, tmp_path: Path
) -> None:
    upstream.stall("Hel")
    stream = door.stream(ask("Hi"))
    await anext(stream)
    kill_children_in(tmp_path / "home")
    with pytest.raises(UpstreamUnreachable) as raised:
        await anext(stream)
    assert raised.value.sent
    upstream.reply("Hello")
    assert collect(await events_of(door, ask("Hi", turn="turn-2"))).text == "Hello"


def kill_children_in(folder: Path) -> None:
    """Kill the runtime that works in this directory, known by that alone."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink() == folder.resolve():
                    os.kill(int(process.name), 9)
                    return
            except OSError:
                continue
    raise AssertionError("no runtime runs there")

"""A stub of the GitHub Copilot SDK's client, with a memory: what it is asked, and what it says.

It speaks with the SDK's own event types, so that whatever reads them is tested for real.

    github = FakeGitHub()
    github.reply("Hello, ", "Ada")
    door = GitHubDoor(..., start=github.start)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from copilot._jsonrpc import JsonRpcError, ProcessExitedError
from copilot.session_events import (
    AssistantMessageData,
    AssistantMessageDeltaData,
    AssistantReasoningDeltaData,
    AssistantTurnStartData,
    AssistantUsageData,
    SessionErrorData,
    SessionIdleData,
)

from modelway.providers.copilot.runtime import Client, Died, Launch
from modelway.providers.copilot.sdk import SDKClient

SILENCE = object()
DEATH = object()

__all__ = [
    "DEATH",
    "SILENCE",
    "AssistantMessageData",
    "AssistantMessageDeltaData",
    "AssistantReasoningDeltaData",
    "AssistantUsageData",
    "FakeGitHub",
    "FakeSession",
    "SessionErrorData",
    "SessionIdleData",
    "refusal",
]


def refusal(message: str) -> JsonRpcError:
    """What the runtime answers to a call that it refuses."""
    return JsonRpcError(-32603, message)


def model(id: str, *, vision: bool = False, state: str = "enabled") -> Any:
    """An entry of the list of models."""
    return SimpleNamespace(
        id=id,
        capabilities=SimpleNamespace(
            supports=SimpleNamespace(vision=vision),
            limits=SimpleNamespace(max_context_window_tokens=128_000),
        ),
        policy=SimpleNamespace(state=state),
    )


class FakeGitHub:
    """`conversations` are those on disk. What is in `fails_to_…` is raised, one each time."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.conversations: dict[str, list[str]] = {}
        self.sessions: list[FakeSession] = []
        self.deleted: list[str] = []
        self.models = [model("gpt-5", vision=True), model("small"), model("off", state="disabled")]
        self.listed = 0
        self.fails_to_start: list[Exception] = []
        self.fails_to_open: list[Exception] = []
        self.fails_to_list: list[Exception] = []
        self.is_dead = False
        self.stopped = 0
        self.killed = 0
        self.old = ["mw-old", "somebody-elses"]
        self._scripts: list[Sequence[object]] = []

    def reply(self, *pieces: str, usage: AssistantUsageData | None = None) -> None:
        """Answer with these pieces."""
        said: list[object] = [AssistantTurnStartData(turn_id="0")]
        said += [AssistantMessageDeltaData(delta_content=piece, message_id="m") for piece in pieces]
        said.append(AssistantMessageData(content="".join(pieces), message_id="m"))
        said.append(usage or AssistantUsageData(model="gpt-5", input_tokens=7, output_tokens=3))
        self.say(*said, SessionIdleData())

    def say(self, *said: object) -> None:
        """Answer with exactly these: events, (event, agent), asyncio.Events to wait for, SILENCE, DEATH."""
        self._scripts.append(said)

    async def start(self, launch: Launch) -> Client:
        """In place of the runtime's start."""
        self.launches.append(launch)
        if self.fails_to_start:
            raise self.fails_to_start.pop(0)
        self.is_dead = False
        return SDKClient(self, launch)

    def next_script(self) -> Sequence[object]:
        if not self._scripts:
            self.reply("Hello")
        return self._scripts.pop(0)

    # What the SDK's client has.

    async def create_session(self, *, session_id: str, **options: Any) -> FakeSession:
        return self._opened("create", session_id, options)

    async def resume_session(self, session_id: str, **options: Any) -> FakeSession:
        if session_id not in self.conversations:
            self.check()
            raise refusal(f"Request session.resume failed with message: Session not found: {session_id}")
        return self._opened("resume", session_id, options)

    async def delete_session(self, session_id: str) -> None:
        self.check()
        self.deleted.append(session_id)
        self.conversations.pop(session_id, None)

    async def list_sessions(self) -> list[Any]:
        self.check()
        return [
            SimpleNamespace(session_id=name, modified_time=datetime(2020, 1, 1, tzinfo=UTC))
            for name in self.old
        ]

    async def list_models(self) -> list[Any]:
        self.check()
        self.listed += 1
        if self.fails_to_list:
            raise self.fails_to_list.pop(0)
        return self.models

    async def get_auth_status(self) -> Any:
        return SimpleNamespace(login="ada")

    async def ping(self) -> None:
        self.check()

    async def stop(self) -> None:
        if self.is_dead:
            raise ExceptionGroup("errors during CopilotClient.stop()", [RuntimeError("it is dead")])
        self.stopped += 1

    async def force_stop(self) -> None:
        self.killed += 1

    def check(self) -> None:
        if self.is_dead:
            raise ProcessExitedError("CLI process exited with code -9")

    def _opened(self, kind: str, name: str, options: dict[str, Any]) -> FakeSession:
        self.check()
        if self.fails_to_open:
            raise self.fails_to_open.pop(0)
        session = FakeSession(self, kind, name, options)
        self.sessions.append(session)
        return session


class FakeSession:
    """A conversation that is open. `kind` tells how it was opened: "create" or "resume"."""

    def __init__(self, github: FakeGitHub, kind: str, name: str, options: dict[str, Any]) -> None:
        self.kind = kind
        self.name = name
        self.options = options
        self.attachments: list[Any] = []
        self.aborted = False
        self.closed = False
        self._github = github
        self._prompts = github.conversations.setdefault(name, [])
        self._listener: Any = None
        self._task: asyncio.Task[None] | None = None

    @property
    def prompt(self) -> str:
        """What was said last."""
        return self._prompts[-1]

    def on(self, listener: Any) -> Any:
        self._listener = listener
        return lambda: None

    async def send(self, prompt: str, *, attachments: list[Any] | None = None) -> None:
        self._github.check()
        self._prompts.append(prompt)
        self.attachments = attachments or []
        # An idle session says so when it is opened, too.
        self._listener(SimpleNamespace(agent_id=None, data=SessionIdleData()))
        self._task = asyncio.create_task(self._play(self._github.next_script()))

    async def abort(self) -> None:
        self._github.check()
        self.aborted = True

    async def disconnect(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._github.check()
        self.closed = True

    async def _play(self, said: Sequence[object]) -> None:
        for one in said:
            if one is SILENCE:
                return
            if one is DEATH:
                self._github.is_dead = True
                return
            if isinstance(one, asyncio.Event):
                await one.wait()
                continue
            data, agent = one if isinstance(one, tuple) else (one, None)
            self._listener(SimpleNamespace(agent_id=agent, data=data))
            await asyncio.sleep(0)


def died() -> Died:
    """What a start raises whose process ends at once."""
    return Died("it ended at once")

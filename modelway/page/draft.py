"""One answer under way, as pages see it: rendered when somebody looks, once for all who do."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from msgspec import Struct

from modelway.answer import Answer
from modelway.errors import GatewayError
from modelway.page.html import Html
from modelway.page.markdown import Markdown
from modelway.page.patches import Growing, Patcher
from modelway.types import (
    Caller,
    Citation,
    Collector,
    Completion,
    Event,
    Message,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)

SLOW_CHARACTERS = 20_000
SHORTEST_PAUSE_S = 0.05
# Of the time, a page's answer may be rendered for this part.
RENDERING_SHARE = 0.04
# What the keys of chats begin with that are not kept; no id of a conversation can.
TEMPORARY = "temporary/"


class Figures(Struct, frozen=True):
    """What is known of an answer beside its turn. `first_s` until the first text came; `cost` in dollars."""

    first_s: float = 0.0
    cost: float | None = None


class Snapshot(Struct, frozen=True, kw_only=True):
    """A draft at the moment `seq`: all that changes afterwards has a higher number."""

    turn_id: str
    seq: int
    blocks: list[Html]
    reasoning: str
    question: Message | None
    after: str | None
    is_over: bool
    error: GatewayError | None


class Draft:
    """One answer under way, or one that could not be given. `seq` counts what pages have been shown."""

    def __init__(
        self,
        caller: Caller,
        key: str,
        markdown: Markdown,
        question: Message | None,
        *,
        after: str | None = None,
        is_ours: bool = True,
    ) -> None:
        """`question` is what is asked anew, None where an earlier question is answered once more.

        `after` is the message that it follows, see ChatRequest.after_message. `is_ours` is False where
        another program waits for the answer.
        """
        self.caller = caller
        self.is_ours = is_ours
        self.key = key
        self.question = question
        self.after = after
        self.began_at = time.time()
        self.first_s = 0.0
        self.total_s = 0.0
        self.cost: float | None = None
        self.provider = ""
        self.model = ""
        self.turn_id = ""
        self.error: GatewayError | None = None
        self.is_over = False
        self.was_stopped = False
        self.seq = 0
        self.patcher = Patcher(markdown)
        self.reasoning = Growing()
        self.task: asyncio.Task[None] | None = None
        self._new_reasoning: list[str] = []
        self._collector = Collector()
        self._tools_seq = 0
        self._tools_changed = False
        self._watchers: list[asyncio.Future[None]] = []
        self._rendering = asyncio.Lock()
        self._not_before = 0.0

    @property
    def is_temporary(self) -> bool:
        """Whether nothing of it is kept."""
        return self.key.startswith(TEMPORARY)

    @property
    def completion(self) -> Completion:
        """What has come so far."""
        return self._collector.completion()

    def begun(self, answer: Answer) -> None:
        """The first delta is there."""
        self.first_s = time.time() - self.began_at
        self.provider, self.model, self.turn_id = answer.provider, answer.model, answer.turn_id

    def take(self, event: Event) -> None:
        """The next event."""
        self._collector.add(event)
        match event:
            case TextDelta(text=text) | RefusalDelta(text=text) if event.choice == 0:
                self.patcher.add(text)
            case ReasoningDelta() if event.choice == 0:
                self._new_reasoning.append(event.text)
            case ToolCallDelta() | Citation():
                self._tools_changed = True
            case _:
                return
        self._notify()

    def end(self, error: GatewayError | None = None) -> None:
        """Nothing more comes."""
        self.total_s = time.time() - self.began_at
        self.error = error
        self.is_over = True
        self._notify()

    async def wait(self, at_most: float) -> None:
        """Until something new has come, and the pause since the last rendering is over."""
        loop = asyncio.get_running_loop()
        if not (self.is_over or self._is_new()):
            news: asyncio.Future[None] = loop.create_future()
            self._watchers.append(news)
            await asyncio.wait([news], timeout=at_most)
        if not self.is_over and (pause := self._not_before - loop.time()) > 0:
            await asyncio.sleep(pause)

    async def render(self) -> None:
        """Render what is new; pages that look at the same answer share the work."""
        async with self._rendering:
            if not self._is_new():
                return
            loop = asyncio.get_running_loop()
            began = loop.time()
            self.seq += 1
            if self._new_reasoning:
                self.reasoning.add(self.seq, "".join(self._new_reasoning))
                self._new_reasoning.clear()
            if self._tools_changed:
                self._tools_changed, self._tools_seq = False, self.seq
            if self.patcher.waiting > SLOW_CHARACTERS:
                await asyncio.to_thread(self.patcher.flush, self.seq)
            else:
                self.patcher.flush(self.seq)
            took = loop.time() - began
            self._not_before = loop.time() + max(SHORTEST_PAUSE_S, took / RENDERING_SHARE)

    async def snapshot(self) -> Snapshot:
        """What pages have been shown so far; not while it is being rendered."""
        async with self._rendering:
            return Snapshot(
                turn_id=self.turn_id,
                seq=self.seq,
                blocks=self.patcher.html(),
                reasoning=self.reasoning.text,
                question=self.question,
                after=self.after,
                is_over=self.is_over,
                error=self.error,
            )

    def since(self, seq: int) -> dict[str, Any]:
        """What changed after the moment `seq`, as the page's script takes it."""
        news: dict[str, Any] = {"seq": self.seq, "blocks": self.patcher.patches(seq)}
        if reasoning := self.reasoning.since(seq):
            news["reasoning"] = reasoning
        if self._tools_seq > seq:
            news["tools"] = True
        return news

    def _is_new(self) -> bool:
        return bool(self._new_reasoning) or self._tools_changed or not self.patcher.is_fresh

    def _notify(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

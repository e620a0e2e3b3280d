"""Asks one more candidate the same, for whoever compares: nobody waits for its answers or sees them."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import aclosing

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.errors import GatewayError
from modelway.routing import Candidate, Route
from modelway.telemetry import milliseconds_since
from modelway.types import ChatRequest, Collector

MOST_AT_ONCE = 16
LIMIT_S = 300.0

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("modelway.shadow")


class ShadowRecord(Struct, kw_only=True, omit_defaults=True):
    """One answer that went nowhere. Times in milliseconds; `characters` is the length of its text."""

    time: float
    route: str
    provider: str
    model: str
    code: str = ""
    finish_reason: str = ""
    first_ms: float = 0.0
    total_ms: float = 0.0
    characters: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Shadows:
    """The calls under way, of which there are at most MOST_AT_ONCE: more are left out, and never wait.

    `prepare` makes of a request what a candidate is told.
    """

    def __init__(
        self, prepare: Callable[[Candidate, ChatRequest], ChatRequest], *, rng: random.Random | None = None
    ) -> None:
        self._prepare = prepare
        self._random = rng or random.Random()  # noqa: S311 - nothing is kept secret by it
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, route: Route, request: ChatRequest) -> None:
        """Ask the route's shadow, if this request is one of its share."""
        shadow = route.shadow
        if shadow is None or len(self._tasks) >= MOST_AT_ONCE or self._random.random() >= route.shadow_share:
            return
        task = asyncio.create_task(self._ask(route.name, shadow, request))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def aclose(self) -> None:
        """Call off what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, route: str, shadow: Candidate, request: ChatRequest) -> None:
        record = ShadowRecord(time=time.time(), route=route, provider=shadow.name, model=shadow.model)
        collector = Collector()
        try:
            told = self._prepare(shadow, replace(request, turn_id="", conversation_id=""))
            async with asyncio.timeout(LIMIT_S), aclosing(shadow.provider.stream(told)) as events:
                async for event in events:
                    record.first_ms = record.first_ms or milliseconds_since(record.time)
                    collector.add(event)
        except GatewayError as error:
            record.code = error.code
        except TimeoutError:
            record.code = "upstream_timeout"
        completion = collector.completion()
        record.total_ms = milliseconds_since(record.time)
        record.finish_reason = completion.finish_reason or ""
        record.characters = len(completion.text)
        if completion.usage is not None:
            record.input_tokens = completion.usage.input_tokens
            record.output_tokens = completion.usage.output_tokens
        _log.info("%s", _encode(record).decode())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a shadow's provider failed", exc_info=error)

"""Answers under way: they belong to the server, and pages only look at them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import aclosing
from functools import partial

from modelway.errors import ConversationBusy, GatewayError, InternalError, ShuttingDown
from modelway.gateway import Gateway
from modelway.live import CUT_OFF
from modelway.page.draft import Draft
from modelway.page.markdown import Markdown
from modelway.telemetry import RequestRecord, Telemetry, milliseconds_since
from modelway.types import (
    Caller,
    ChatRequest,
    Finish,
    Message,
)

log = logging.getLogger("modelway.page")

KEPT_S = 600.0


class Drafts:
    """Begins answers, and finds those that are under way or that failed a while ago.

    Each is known by its caller and a key: the conversation's id, or a name of its own where nothing is kept.
    """

    def __init__(self, gateway: Gateway, telemetry: Telemetry, markdown: Callable[[], Markdown]) -> None:
        self._gateway = gateway
        self._telemetry = telemetry
        self._markdown = markdown
        self._drafts: dict[tuple[str, str], Draft] = {}

    def begin(
        self, caller: Caller, request: ChatRequest, key: str, request_id: str, question: Message | None
    ) -> Draft:
        """Begin to answer, whether or not anybody looks; raises ConversationBusy while it is answered."""
        self._forget_old()
        self.check_free(caller, key)
        draft = Draft(caller, key, self._markdown(), question, after=request.after_message)
        self._drafts[caller.name, key] = draft
        record = self._telemetry.start(request_id)
        record.caller = caller.name
        self._telemetry.asked(record, request)
        draft.task = asyncio.create_task(self._answer(draft, request, record))
        draft.task.add_done_callback(partial(_log_bug, request_id))
        return draft

    def read_along(self, caller: Caller, key: str, turn_id: str) -> Draft:
        """The answer to a request of another program, as it comes."""
        draft = Draft(caller, key, self._markdown(), None, is_ours=False)
        draft.turn_id = turn_id
        self._drafts[caller.name, key] = draft
        draft.task = asyncio.create_task(self._read_along(draft))
        draft.task.add_done_callback(partial(_log_bug, turn_id))
        return draft

    def check_free(self, caller: Caller, key: str) -> None:
        """Raises ConversationBusy while an answer is under way."""
        draft = self.find(caller, key)
        if draft is not None and not draft.is_over:
            raise ConversationBusy("an answer is still under way here", hint="stop it, or wait for its end")

    def find(self, caller: Caller, key: str) -> Draft | None:
        """The answer under way, or the last one that failed."""
        return self._drafts.get((caller.name, key))

    def forget(self, caller: Caller, key: str) -> None:
        """Keep no failed answer any longer."""
        if (draft := self.find(caller, key)) is not None and draft.is_over:
            del self._drafts[caller.name, key]

    @property
    def under_way(self) -> int:
        """How many answers are that were asked for here."""
        return sum(draft.is_ours and not draft.is_over for draft in self._drafts.values())

    def running(self, caller: Caller) -> Iterable[Draft]:
        """What is under way for a caller."""
        return [
            draft for draft in self._drafts.values() if draft.caller.name == caller.name and not draft.is_over
        ]

    async def stop(self, caller: Caller, key: str) -> None:
        """End an answer; the text so far is kept."""
        draft = self.find(caller, key)
        if draft is None or draft.task is None or draft.is_over:
            return
        draft.was_stopped = True
        if draft.is_ours:
            draft.task.cancel()
            await asyncio.wait([draft.task])
        else:
            await self._gateway.live.cancel(caller, draft.turn_id)

    async def aclose(self) -> None:
        """End everything that is under way."""
        tasks = [draft.task for draft in self._drafts.values() if draft.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_along(self, draft: Draft) -> None:
        error: GatewayError | None = None
        try:
            async with aclosing(self._gateway.live.subscribe(draft.caller, draft.turn_id)) as events:
                async for _, event in events:
                    draft.take(event)
        except GatewayError as raised:
            error = raised
        finally:
            draft.end(error)
            if self._drafts.get((draft.caller.name, draft.key)) is draft:
                del self._drafts[draft.caller.name, draft.key]

    async def _answer(self, draft: Draft, request: ChatRequest, record: RequestRecord) -> None:
        error: GatewayError | None = None
        record.status = 200
        try:
            async with aclosing(await self._gateway.answer(request, draft.caller, record.attempts)) as answer:
                record.first_ms = milliseconds_since(record.time)
                record.provider, record.model = answer.provider, answer.model
                draft.begun(answer)
                async for event in answer:
                    if isinstance(event, Finish):
                        draft.cost = answer.cost
                        self._telemetry.answered(record, answer.completion, answer.cost or 0.0)
                    draft.take(event)
        except GatewayError as raised:
            error, record.status, record.code = raised, raised.status, raised.code
        except asyncio.CancelledError:
            record.status = CUT_OFF
            if not draft.was_stopped:
                error = ShuttingDown("the server is going down", hint="send the message again")
                record.status, record.code = error.status, error.code
        except BaseException:
            error = InternalError("internal error", hint=f"the log has it under {record.request_id}")
            record.status, record.code = error.status, error.code
            raise
        finally:
            draft.end(error)
            self._telemetry.end(record)
            if draft.turn_id and not draft.is_temporary:
                self._gateway.conversations.shelf.measured(draft.turn_id, draft.first_s)
                # The store has it from now on.
                self._drafts.pop((draft.caller.name, draft.key), None)

    def _forget_old(self) -> None:
        now = time.time()
        for key, draft in list(self._drafts.items()):
            if draft.is_over and now - draft.began_at > KEPT_S:
                del self._drafts[key]


def _log_bug(id: str, task: asyncio.Task[None]) -> None:
    """What the page's people are told is only the id."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the answer to %s failed", id, exc_info=error)

"""The logs of answers, as readers find them: under way here or elsewhere, or as they were kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from modelway.config import ConversationSettings
from modelway.conversations.claims import Asking, Claim, claim, give_up
from modelway.conversations.closing import CANCELLED, end_lost_turn
from modelway.conversations.ledger import Ledger
from modelway.conversations.log import Head, Item, Log, decode_piece, is_piece
from modelway.conversations.paths import Paths
from modelway.conversations.reading import not_found
from modelway.conversations.recorder import Recorder
from modelway.conversations.records import Running
from modelway.conversations.resuming import Resuming
from modelway.conversations.writer import Writer
from modelway.errors import NotFound, error_class

POLL_S = 0.15
# A reader of a long answer holds about so much of it.
_MOST_PIECES = 16
# A turn whose key is taken is opened within this and the time that it waits for its conversation.
_OPENING_S = 60.0
# Before the first piece of an answer that runs elsewhere.
_BEFORE_ALL = -2


class Readable(Protocol):
    """The log of one answer, wherever it comes from."""

    @property
    def head(self) -> Head:
        """What surrounds the answer, once anything of it is there."""
        ...

    @property
    def last(self) -> Item | None:
        """The newest event, if there is any."""
        ...

    @property
    def ended_at(self) -> float | None:
        """When the answer ended; None: not yet."""
        ...

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has stopped it."""
        ...

    async def after(self, place: int) -> Sequence[Item]:
        """What comes after so many items, as soon as there is any; nothing after the end."""
        ...


Read = Callable[[Callable[[Ledger], Any]], Awaitable[Any]]
GoOn = Callable[[str], Awaitable[None]]


class Streams:
    """Finds the logs of turns, and the turns that answer the keys of requests."""

    def __init__(
        self,
        recorder: Recorder,
        writer: Writer,
        paths: Paths,
        read: Read,
        *,
        owner: str,
        is_gone: Callable[[str, str], bool],
        resuming: Resuming,
        settings: ConversationSettings,
    ) -> None:
        self._resuming = resuming
        self._recorder = recorder
        self._writer = writer
        self._paths = paths
        self._read = read
        self._owner = owner
        self._is_gone = is_gone
        self._kept_s = settings.stream_log_s
        self._grace_s = settings.reconnect_grace_s
        self._opening_s = settings.wait_s + _OPENING_S

    def here(self, caller: str, turn: str) -> Log | None:
        """The log of a turn of this caller's that is under way in this process, if it has one."""
        found = self._recorder.turn(turn)
        return found.log if found is not None and found.line[0] == caller else None

    def opening(self, turn: str) -> asyncio.Future[None]:
        """What is done when a turn is stored that is about to be asked for."""
        return self._recorder.opening(turn)

    def ended(self, turn: str) -> None:
        """A turn that was to be opened has ended, opened or not."""
        self._recorder.forget_opening(turn)

    def note_cancelled(self, turn: str) -> None:
        """Somebody stops a turn that is under way in this process."""
        found = self._recorder.turn(turn)
        if found is not None:
            found.is_cancelled = True

    async def stored(self, caller: str, turn: str, go_on: GoOn | None = None) -> StoredLog:
        """The log of a turn as the store has it; raises NotFound where there is no such turn, or no log.

        `go_on` is told of a turn whose server is found dead, and with which somebody may go on.
        """

        async def end_lost(turn: str, look: _Look) -> bool:
            return await self._end_lost(caller, turn, look, go_on)

        log = StoredLog(caller, turn, self._look, end_lost, self._mark)
        await log.look()
        return log

    async def newest(self, caller: str, conversation_id: str) -> str:
        """The newest turn of a conversation; raises ConversationNotFound."""
        named = {"caller": caller, "name": conversation_id}
        row = await self._read(lambda ledger: ledger.one(ledger.sql.newest_turn, named))
        if row is None:
            raise not_found(conversation_id)
        return str(row[0])

    async def running(self, caller: str) -> list[Running]:
        """The turns of a caller that are being answered, here or elsewhere, oldest first."""
        rows = await self._read(lambda ledger: ledger.all(ledger.sql.running_turns, {"caller": caller}))
        return [
            Running(turn_id=turn, conversation_id=name, created_at=at)
            for turn, name, at, owner, until in rows
            if self._lives(turn, owner, until)
        ]

    async def claim(self, asking: Asking, is_expected: Callable[[str], bool]) -> Claim:
        """The turn that answers a request with a key; raises IdempotencyKeyReused.

        `is_expected` tells whether a turn that is not in the store yet is about to be opened here.
        """

        def is_gone(owner: str, turn: str) -> bool:
            return not is_expected(turn) and self._is_gone(owner, turn)

        return await self._writer.submit(
            lambda ledger: claim(
                ledger,
                self._paths,
                asking,
                self._resuming,
                owner=self._owner,
                now=time.time(),
                kept_s=self._kept_s,
                opening_s=self._opening_s,
                is_gone=is_gone,
            )
        )

    def give_up(self, asking: Asking) -> None:
        """Free the key of a request that could not be answered."""
        self._writer.send(lambda ledger: give_up(ledger, asking))

    async def end_if_lost(self, caller: str, turn: str) -> bool:
        """End a turn whose holder is gone and with which nobody may go on; whether it has ended."""
        look = await self._look(caller, turn, _BEFORE_ALL)
        return look.status != "open" or await self._end_lost(caller, turn, look)

    async def settled(self) -> None:
        """Wait until everything is written that was begun to be written before."""
        await self._writer.submit(lambda ledger: None)

    async def cancel(self, caller: str, turn: str) -> bool:
        """Stop a turn that runs elsewhere; False where it had ended. Raises NotFound.

        It loses the conversation, and its holder notices.
        """
        look = await self._look(caller, turn, _BEFORE_ALL)
        if look.status != "open":
            return False
        await self._writer.submit(
            lambda ledger: end_lost_turn(
                ledger, self._paths, look.conversation, turn, time.time(), is_cancelled=True
            )
        )
        return True

    async def read_until(self, turn: str) -> float:
        """Until when a turn is read at another server; 0: at none."""
        row = await self._read(lambda ledger: ledger.one(ledger.sql.find_reading, {"turn": turn}))
        return 0.0 if row is None else float(row[0])

    def _mark(self, turn: str) -> float:
        """Note that a turn is read here; gives how long that holds."""

        def mark(ledger: Ledger) -> None:
            ledger.run(ledger.sql.drop_reading, {"turn": turn})
            ledger.run(ledger.sql.insert_reading, {"turn": turn, "until": time.time() + self._grace_s})

        self._writer.send(mark)
        return self._grace_s

    async def _look(self, caller: str, turn: str, after: int) -> _Look:
        look: _Look = await self._read(lambda ledger: _look_up(ledger, caller, turn, after))
        return look

    def _lives(self, turn: str, owner: str | None, lease_until: float | None) -> bool:
        return (lease_until or 0.0) > time.time() and not self._is_gone(owner or "", turn)

    async def _end_lost(self, caller: str, turn: str, look: _Look, go_on: GoOn | None = None) -> bool:
        """End a turn whose holder is gone, unless somebody may go on with it; False where it goes on."""
        if self._lives(turn, look.owner, look.lease_until):
            return False
        if self._resuming.goes_on and await self._read(lambda ledger: self._waits(ledger, turn, look)):
            if go_on is not None:
                await go_on(turn)
            return False

        def end(ledger: Ledger) -> bool:
            row = ledger.one(ledger.sql.find_log, {"caller": caller, "turn": turn})
            if row is not None and row[0] == "open" and self._lives(turn, *row[-2:]):
                # Somebody has gone on with it since then.
                return False
            end_lost_turn(ledger, self._paths, look.conversation, turn, time.time())
            return True

        return await self._writer.submit(end)

    def _waits(self, ledger: Ledger, turn: str, look: _Look) -> bool:
        return self._resuming.waits(ledger, turn, look.owner, look.lease_until, time.time())


class _Look(NamedTuple):
    """How a turn stands, who holds it, and the pieces of its log that are new."""

    status: str
    error_code: str
    error: str
    finished_at: float | None
    finish_reason: str
    conversation: int
    owner: str | None
    lease_until: float | None
    pieces: list[tuple[int, bytes]]


class StoredLog:
    """The log of a turn in the store. Where the turn runs elsewhere, its reader looks until it has ended."""

    def __init__(
        self,
        caller: str,
        turn: str,
        look: Callable[[str, str, int], Awaitable[_Look]],
        end_lost: Callable[[str, _Look], Awaitable[bool]],
        mark: Callable[[str], float],
    ) -> None:
        self._caller = caller
        self._turn = turn
        self._look = look
        self._end_lost = end_lost
        self._mark = mark
        self._mark_at = 0.0
        self._seen = _BEFORE_ALL
        self._items: list[Item] = []
        self._given = 0
        self._is_behind = False
        self.head = Head(turn=turn, created_at=0.0)
        self.last: Item | None = None
        self.ended_at: float | None = None
        self.is_cancelled = False

    async def after(self, place: int) -> Sequence[Item]:
        """What comes after so many items, as soon as there is any; nothing after the end.

        What was before is forgotten.
        """
        self._forget(place)
        while not self._items and self.ended_at is None:
            if not self._is_behind:
                await asyncio.sleep(POLL_S)
            await self.look()
            self._forget(place)
        return self._items

    async def look(self) -> None:
        """Take what is new; raises NotFound, and the error of a turn that has failed before it began."""
        look = await self._look(self._caller, self._turn, self._seen)
        is_lost = look.status == "open" and await self._end_lost(self._turn, look)
        if is_lost:
            look = await self._look(self._caller, self._turn, self._seen)
        for seq, piece in look.pieces:
            self._seen = seq
            for item in decode_piece(piece) if is_piece(piece) else ():
                if isinstance(item, Head):
                    self.head = item
                else:
                    self._items.append(item)
                    self.last = item
        self._is_behind = len(look.pieces) == _MOST_PIECES
        if self._is_behind:
            return
        if look.status == "failed":
            raise error_class(look.error_code)(look.error, code=look.error_code)
        if look.status == "open" and not is_lost and time.monotonic() >= self._mark_at:
            self._mark_at = time.monotonic() + self._mark(self._turn) / 3
        if look.status != "open" or is_lost:
            self.ended_at = look.finished_at or time.time()
            self.is_cancelled = look.finish_reason == CANCELLED
            if self.last is None and look.status == "done":
                raise _no_log()

    def _forget(self, place: int) -> None:
        known = max(0, place - self._given)
        self._given += len(self._items[:known])
        self._items = self._items[known:]


def _look_up(ledger: Ledger, caller: str, turn: str, after: int) -> _Look:
    row = ledger.one(ledger.sql.find_log, {"caller": caller, "turn": turn})
    if row is None:
        raise NotFound("there is no such turn", code="stream_not_found")
    status: tuple[str, str, str, float | None, str, int, str | None, float | None] = row
    some = {"turn": turn, "after": after, "limit": _MOST_PIECES}
    return _Look(*status, ledger.all(ledger.sql.read_pieces, some))


def _no_log() -> NotFound:
    return NotFound(
        "the stream of this answer is not kept any more, or it never was one",
        code="stream_not_found",
        hint="the conversation has the answer",
    )

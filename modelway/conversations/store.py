"""The durable memory: conversations in a database, with an asynchronous face."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from modelway.config import ConversationSettings
from modelway.conversations import codec
from modelway.conversations.callers import Callers
from modelway.conversations.closing import end_lost_turn
from modelway.conversations.ephemeral import new_turn_id
from modelway.conversations.failures import unavailable
from modelway.conversations.groups import Job
from modelway.conversations.instructing import in_force, split_instructions
from modelway.conversations.leases import Leases
from modelway.conversations.ledger import Ledger
from modelway.conversations.lines import Lines
from modelway.conversations.log import Head, encode_piece
from modelway.conversations.opening import Asked, Opened, Opener
from modelway.conversations.paths import Paths
from modelway.conversations.pruning import Pruner
from modelway.conversations.reading import list_conversations, show_conversation
from modelway.conversations.recalling import (
    forget_turn,
    history_after,
    lasting,
    show_messages,
    show_turn,
)
from modelway.conversations.recorder import Recorder
from modelway.conversations.records import Conversation, Kept, Match, Summary
from modelway.conversations.resuming import NOBODY, Left, Resuming, encode_asked, end_lost_turns
from modelway.conversations.search import find, index_some
from modelway.conversations.shelf import Shelf, check_conversation_id
from modelway.conversations.streams import Streams
from modelway.conversations.turn import Turn
from modelway.conversations.upkeep import delete, fork, try_to_write
from modelway.conversations.writer import Writer
from modelway.errors import ConversationBusy, StoreUnavailable
from modelway.types import ChatRequest, Message

if TYPE_CHECKING:
    from modelway.conversations.database import Database

T = TypeVar("T")
Clock = Callable[[], float]

_POLL_S = 0.05
_MOST_LISTED = 1000


class Conversations:
    """All conversations of all callers. Each is known by its caller and its id together.

    `shelf` is where people put them in order, `streams` where answers are read again, `callers` who has keys.
    Raises StoreUnavailable wherever the database cannot be read or written, and works again when it can.
    """

    def __init__(
        self, database: Database, leases: Leases, settings: ConversationSettings, clock: Clock
    ) -> None:
        self._database = database
        self._leases = leases
        self._settings = settings
        self._lines = Lines()
        self._paths = Paths()
        self._writer = Writer(database, clock=clock)
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="conversations-reader")
        self._recorder = Recorder(
            self._writer,
            self._paths,
            checkpoint_s=settings.checkpoint_s,
            lease_s=settings.lease_s,
            goes_on=settings.on_crash == "continue",
            released=lambda turn: self._lines.leave(turn.line),
        )
        self._resuming = Resuming.of(settings, leases)
        self.pruner = Pruner(self._writer, self._read, self._paths, self._resuming, settings)
        self._is_closed = False
        self.reconnect_grace_s = settings.reconnect_grace_s
        self.max_reply_bytes = settings.max_reply_bytes
        self.shelf = Shelf(self._writer, self._read)
        self.callers = Callers(database, self._writer, self._read, leases)
        self._opener = Opener(leases.owner, self._paths, self._is_gone)
        self.streams = Streams(
            self._recorder,
            self._writer,
            self._paths,
            self._read,
            owner=leases.owner,
            is_gone=self._is_gone,
            resuming=self._resuming,
            settings=settings,
        )

    @classmethod
    def open(cls, path: Path, settings: ConversationSettings, clock: Clock = time.monotonic) -> Conversations:
        """Open the database, create it where there is none, and end the turns of holders that died."""
        from modelway.conversations.database import Database  # noqa: PLC0415 - loads SQLAlchemy

        with unavailable("opened"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            leases = Leases(path)
        try:
            with unavailable("opened"), leases.alone():
                database = Database(path, settings.synchronous)
                end_lost_turns(database, leases, Resuming.of(settings, leases))
        except BaseException:
            leases.release()
            raise
        return cls(database, leases, settings, clock)

    async def open_turn(self, caller: str, request: ChatRequest) -> Turn:
        """Store the new messages, read the history and hold the conversation until the turn ends.

        One that is to be stored without a conversation's id goes on after its `after_turn`, or else begins a
        conversation that no list shows. Raises ConversationBusy where another turn holds it for longer than
        `wait_s`, InvalidRequest where the conversation's id or a message cannot be stored.
        """
        return await self._open(caller, request, is_new=False)

    async def add(
        self, caller: str, conversation_id: str, messages: tuple[Message, ...]
    ) -> Sequence[tuple[str, Message]]:
        """Put messages at the end of a conversation without an answer; gives each with its name.

        Raises ConversationNotFound, and what open_turn raises.
        """
        request = ChatRequest(messages=messages, conversation_id=conversation_id)
        turn = await self._open(caller, request, is_new=True)
        await turn.finish("", "")
        instructions, chain = split_instructions(messages)
        told = lasting(turn.opened.instructions, turn.opened.in_force) if instructions else []
        added = turn.opened.path[len(turn.opened.path) - len(chain) :]
        return [*told, *((f"{node.id:x}", node.message) for node in added)]

    async def messages(self, caller: str, conversation_id: str) -> Sequence[tuple[str, Message]]:
        """The instructions and the current path, each message with a name; raises ConversationNotFound."""
        return await self._read(lambda ledger: show_messages(ledger, caller, conversation_id))

    def open_soon(self, caller: str, request: ChatRequest, opened: Callable[[Turn | None], None]) -> bool:
        """As open_turn(), for who does not wait: is told of the turn, or of None where one must wait for it.

        False, and nothing has happened, where others wait already. Raises InvalidRequest.
        """
        asked, line = self._asked(caller, request, is_new=False)
        if self._writer.is_full or not self._lines.enter_at_once(line):
            return False
        self._recorder.expect(asked.turn)

        def ended(job: Job[Opened]) -> None:
            turn: Turn | None = None
            try:
                if job.error is None:
                    turn = self._opened(job.result, line, request)
            finally:
                if turn is None:
                    self._recorder.dismiss(asked.turn)
                    self._lines.leave(line)
                opened(turn)

        self._writer.send(lambda ledger: self._opener.open(ledger, asked), ended)
        return True

    async def _open(self, caller: str, request: ChatRequest, *, is_new: bool) -> Turn:
        until = time.monotonic() + self._settings.wait_s
        asked, line = self._asked(caller, request, is_new=is_new)
        await self._lines.enter(line, self._settings.wait_s)
        try:
            opened = await self._hold(asked, until)
        except BaseException:
            self._lines.leave(line)
            raise
        return self._opened(opened, line, request)

    def _asked(self, caller: str, request: ChatRequest, *, is_new: bool) -> tuple[Asked, tuple[str, str]]:
        """The request as the store takes it, and the line in which it waits."""
        if request.conversation_id or not request.store:
            check_conversation_id(request.conversation_id)
        instructions, chain = split_instructions(request.messages)
        now = time.time()
        turn_id = request.turn_id or new_turn_id()
        asked = Asked(
            turn=turn_id,
            caller=caller,
            name=request.conversation_id,
            instructions=codec.rows(instructions),
            messages=chain,
            now=now,
            lease_s=self._settings.lease_s,
            after=request.after_turn,
            at=request.after_message,
            # What was not to be stored is kept for its stream's time only, and cannot be asked for.
            asked=None if (request.echo or {}).get("store") is False else codec.encode_asked(request.echo),
            head=self._first_piece(request, turn_id, now) if request.when_left == "finish" else None,
            is_new=is_new,
        )
        return asked, (caller, request.conversation_id or turn_id)

    def _opened(self, opened: Opened, line: tuple[str, str], request: ChatRequest) -> Turn:
        turn = Turn(opened, line, request, self._recorder)
        self._recorder.add(turn)
        self.pruner.start()
        return turn

    def _first_piece(self, request: ChatRequest, turn_id: str, now: float) -> bytes:
        """What is known of a turn before it is answered."""
        asked = encode_asked(replace(request, messages=())) if self._resuming.goes_on else b""
        return encode_piece([Head(turn=turn_id, created_at=now, request=asked)])

    async def take_over(self, caller: str, turn_id: str) -> Turn | None:
        """Hold a turn whose server has died, to go on with it; None where it is not to be had.

        Raises ConversationBusy where another turn of the conversation is under way here.
        """
        line = await self._read(lambda ledger: self._resuming.line_of(ledger, turn_id, caller))
        if line is None:
            return None
        await self._lines.enter(line, self._settings.wait_s)
        left: Left | None = None
        self._recorder.expect(turn_id)
        try:
            left = await self._writer.submit(
                lambda ledger: self._resuming.take_over(
                    ledger,
                    self._paths,
                    turn_id,
                    caller,
                    by=self._leases.owner,
                    lease_s=self._settings.lease_s,
                    now=time.time(),
                )
            )
        finally:
            if left is None:
                self._recorder.dismiss(turn_id)
                self._lines.leave(line)
        if left is None:
            return None
        turn = Turn(left.opened, line, left.request, self._recorder, left)
        self._recorder.add(turn)
        return turn

    async def list(self, caller: str, *, limit: int = 50, before: str = "") -> Sequence[Summary]:
        """A caller's conversations, newest first; `before` is the conversation_id of the last one seen."""
        limit = max(1, min(limit, _MOST_LISTED))
        return await self._read(lambda ledger: list_conversations(ledger, caller, limit, before))

    async def show(self, caller: str, conversation_id: str) -> Conversation:
        """Everything about a conversation; raises ConversationNotFound."""
        shown = await self._read(lambda ledger: show_conversation(ledger, caller, conversation_id))
        ended = [
            await self.streams.end_if_lost(caller, turn.id) for turn in shown.turns if turn.status == "open"
        ]
        if any(ended):
            return await self._read(lambda ledger: show_conversation(ledger, caller, conversation_id))
        return shown

    async def after(self, caller: str, request: ChatRequest) -> ChatRequest:
        """The request with everything said up to the end of its `after_turn`; nothing is stored."""
        before = await self._read(lambda ledger: history_after(ledger, caller, request.after_turn))
        instructions, chain = split_instructions(request.messages)
        known = in_force(instructions, before.instructions) + before.messages
        return replace(request, messages=known + chain, new_from=len(known))

    async def turn(self, caller: str, turn: str) -> Kept:
        """One turn that can be asked for by its id; raises NotFound."""
        kept = await self._read(lambda ledger: show_turn(ledger, caller, turn))
        if kept.turn.status == "open" and await self.streams.end_if_lost(caller, turn):
            return await self._read(lambda ledger: show_turn(ledger, caller, turn))
        return kept

    async def forget_turn(self, caller: str, turn: str) -> None:
        """Let a turn no longer be asked for, and delete it where no conversation shows it.

        Raises NotFound, and ConversationBusy while it is being answered.
        """
        await self._writer.submit(lambda ledger: forget_turn(ledger, caller, turn), is_quick=False)

    async def search(self, caller: str, text: str, *, limit: int = 20) -> Sequence[Match]:
        """Messages that hold all words of `text`, the last word as a beginning; newest first.

        A title is the beginning of a message, so titles are searched too.
        """
        while await self._writer.submit(index_some, is_quick=False):
            pass
        limit = max(1, min(limit, _MOST_LISTED))
        return await self._read(lambda ledger: find(ledger, caller, text, limit))

    async def fork(self, caller: str, conversation_id: str, new_id: str, *, at_turn: str = "") -> Summary:
        """Begin a second conversation with the history of this one, up to the end of a turn.

        Raises ConversationNotFound, and InvalidRequest where `new_id` is taken or not an id.
        """
        check_conversation_id(new_id, param="conversation_id")
        return await self._writer.submit(
            lambda ledger: fork(ledger, caller, conversation_id, new_id, at_turn, time.time()),
            is_quick=False,
        )

    async def delete(self, caller: str, conversation_id: str) -> None:
        """Delete a conversation; forks of it stay whole. Raises ConversationNotFound."""
        await self._writer.submit(lambda ledger: delete(ledger, caller, conversation_id), is_quick=False)

    async def ready(self) -> None:
        """Raises StoreUnavailable where nothing can be written now."""
        await self._writer.submit(try_to_write)

    @property
    def is_writing(self) -> bool:
        """Whether something is not written yet."""
        return self._writer.is_busy

    async def aclose(self) -> None:
        """Interrupt the turns that are open, write what waits, and give everything back."""
        self._is_closed = True
        await self.pruner.aclose()
        self._recorder.close()
        await self._writer.aclose()
        await asyncio.to_thread(self._readers.shutdown)
        self.callers.close()
        self._leases.release()

    async def _hold(self, asked: Asked, until: float) -> Opened:
        """Open the turn as soon as no other process holds the conversation."""
        while True:
            try:
                return await self._try_to_hold(asked)
            except ConversationBusy:
                if time.monotonic() + _POLL_S > until:
                    raise
            await asyncio.sleep(_POLL_S)

    async def _try_to_hold(self, asked: Asked) -> Opened:
        job: Job[Opened] | None = None

        def ended(written: Job[Opened]) -> None:
            nonlocal job
            job = written
            if not job.is_wanted:
                self._abandon(asked, job)

        self._recorder.expect(asked.turn)
        try:
            return await self._writer.submit(lambda ledger: self._opener.open(ledger, asked), ended=ended)
        except asyncio.CancelledError:
            if job is not None and job.is_wanted:
                self._abandon(asked, job)
            raise
        except BaseException:
            self._recorder.dismiss(asked.turn)
            raise

    def _abandon(self, asked: Asked, opening: Job[Opened]) -> None:
        """The caller went away while its turn was being opened: nobody will answer it."""
        self._recorder.dismiss(asked.turn)
        if opening.error is None:
            conversation = opening.result.conversation
            self._writer.send(
                lambda ledger: end_lost_turn(ledger, self._paths, conversation, asked.turn, time.time())
            )

    def _is_gone(self, owner: str, turn: str) -> bool:
        if owner == self._leases.owner:
            return not self._recorder.is_open(turn)
        return owner == NOBODY or self._leases.is_dead(owner)

    async def _read(self, work: Callable[[Ledger], T]) -> T:
        if self._is_closed:
            raise StoreUnavailable("the conversation store is closed", retry_after=1)

        def run() -> T:
            with self._database.reading() as ledger:
                return work(ledger)

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

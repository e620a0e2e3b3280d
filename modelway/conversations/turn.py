"""One exchange of a stored conversation, from its new messages to the end of the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from modelway.conversations import codec
from modelway.conversations.charging import Bill
from modelway.conversations.closing import CANCELLED, Checkpoint, Ending
from modelway.conversations.codec import Recorded
from modelway.conversations.log import Failed, Head, Item, Log, StoredFirst
from modelway.conversations.opening import Opened
from modelway.conversations.records import TurnStatus
from modelway.conversations.resuming import Left, encode_asked
from modelway.conversations.spending import Charge
from modelway.errors import GatewayError, InternalError, StoreUnavailable, TurnInterrupted
from modelway.types import (
    ChatRequest,
    Citation,
    Collector,
    Completion,
    Delta,
    Event,
    Finish,
    Opaque,
    TextDelta,
    ToolCallDelta,
    UpstreamState,
)

if TYPE_CHECKING:
    from modelway.conversations.recorder import Recorder

_NOT_LOGGED = (Finish, UpstreamState)
_MUCH = 2048
_MUCH_AS_IT_CAME = 256 * 1024


class Turn:
    """An open turn. It holds the conversation until finish(), fail() or interrupt().

    `request` is what the provider is to answer: the instructions, the history and the new messages, which
    begin at `new_from`. `conversation_id` is "" where no caller may see the conversation; `line` is where
    the next turn waits. `log` is there where the answer can be read again: it is streamed, or goes on when
    its reader leaves. `bill` is there as soon as somebody answers. `survives`: another server may go on with
    it, so that what readers are told of must be stored. `left` is what a dead server has left of it.
    """

    def __init__(
        self,
        opened: Opened,
        line: tuple[str, str],
        request: ChatRequest,
        recorder: Recorder,
        left: Left | None = None,
    ) -> None:
        self.id = opened.turn
        self.line = line
        self.conversation_id = "" if opened.hidden else opened.name
        self.request = replace(
            request,
            conversation_id=opened.name,
            messages=opened.instructions + tuple([node.message for node in opened.path]),
            new_from=len(opened.instructions) + opened.new_from,
            turn_id=opened.turn,
            upstream_state=None,
        )
        self.opened = opened
        self.opened_at = opened.opened_at
        has_log = request.stream or request.when_left != "cancel"
        self.survives = recorder.goes_on and has_log and bool(opened.path)
        self.log = self._new_log(left) if has_log else None
        self.finished_at = 0.0
        self.is_cancelled = False
        self.is_lost = False
        self.bill: Bill | None = None
        self._recorder = recorder
        self._collector = Collector()
        self._state: dict[str, Any] | None = None
        self._state_was_used = False
        self._provider = ""
        self._has_begun = False
        self._has_ended = False
        self._unstored: tuple[Completion, Ending] | None = None
        self._is_storing = False
        self._is_left = False
        self._unsaved: list[Recorded] = []
        self._unsaved_size = 0
        self._checkpoints = 0
        self._is_tab_open = False
        # What a dead server had begun, where that is gone on with.
        self.left: Left | None = None
        if left is not None:
            self._checkpoints = left.pieces
        if left is not None and left.items:
            self._go_on_after(left)

    def take_state(self, provider: str) -> dict[str, Any] | None:
        """Note that this provider is asked, and hand it what it yielded as UpstreamState if that still holds.

        Whether it does is not known any longer once the provider has had it and failed.
        """
        self._provider = provider
        state = self.opened.state
        if state is None or state.provider != provider:
            return None
        self._state_was_used = True
        return state.value

    def answered_by(
        self, provider: str, model: str, ignored: tuple[str, ...] = (), *, trail: str = ""
    ) -> None:
        """Note who has begun to answer, what of the request they could not be told, and who was asked."""
        if self.log is not None and self.left is None:
            self.log.head = replace(
                self.log.head, provider=provider, model=model, ignored=ignored, trail=trail
            )

    def record(self, event: Event) -> None:
        """Take the next event of the answer; the store gets it within `checkpoint_s` or 2 KB.

        Raises TurnInterrupted where somebody has stopped the turn from elsewhere.
        """
        if self.is_lost and not isinstance(event, Finish):
            raise _stopped()
        self._collector.add(event)
        if self.log is not None and not isinstance(event, _NOT_LOGGED):
            self.log.add(event)
        if isinstance(event, Delta):
            if not self._unsaved and not self._has_ended:
                self._has_begun = True
                self._recorder.save_later(self)
            self._unsaved.append(event)
            self._unsaved_size += len(event.text) if isinstance(event, TextDelta) else _size(event)
            if self._unsaved_size >= _MUCH:
                self._unsaved_size = 0
                self._recorder.save_soon()
        elif isinstance(event, UpstreamState):
            self._state = event.value

    def keep(self, piece: bytes) -> None:
        """Take the next piece of an answer that is kept as it came, and that nobody takes apart.

        Raises TurnInterrupted as record() does.
        """
        if self.is_lost:
            raise _stopped()
        if self.log is None:
            raise InternalError("what is kept as it came needs a log")
        self.log.add(Opaque(piece))
        self._has_begun = True
        self._recorder.save_later(self)
        self._unsaved_size += len(piece)
        if self._unsaved_size >= _MUCH_AS_IT_CAME:
            self._unsaved_size = 0
            self._recorder.save_soon()

    async def stored(self) -> None:
        """Wait until everything that was recorded is stored; only then readers are told of it."""
        log = self.log
        if isinstance(log, StoredFirst) and not self._has_ended and log.hidden:
            count = len(log.items)
            await self._recorder.stored(self)
            log.show(count)

    def pay_anew(self) -> None:
        """Somebody else answers from now on: the next checkpoint says who."""
        self._is_tab_open = False

    def so_far(self) -> Completion:
        """What has come of the answer."""
        return self._collector.completion()

    async def finish(self, provider: str, model: str) -> Completion:
        """Store the answer; durable on return.

        Raises StoreUnavailable, or ConversationBusy where the conversation went on without this turn.
        """
        completion, ending = self._last_words(provider, model)
        self._unstored = None
        told: Item | None = None
        try:
            await self._recorder.finish(self, ending)
            told = self._collector.finish
        except GatewayError as error:
            told = Failed.of(error)
            raise
        finally:
            # Who reads along waits for the end, whatever it is.
            self._end_log(ending, told)
        return completion

    def finish_soon(self, provider: str, model: str, ended: Callable[[Completion | None], None]) -> None:
        """As finish(), for who does not wait: is told of the answer; of None where finish() must be tried."""
        completion, ending = self._last_words(provider, model)

        def stored(is_stored: bool, is_charged: bool) -> None:
            self._is_storing = False
            left = replace(ending, charge=None) if is_charged else ending
            if is_stored:
                self._unstored = None
                self._end_log(ending, self._collector.finish)
            elif self._is_left:
                self._give_up(left)
            else:
                self._unstored = (completion, left)
            ended(completion if is_stored else None)

        self._is_storing = True
        self._recorder.finish_soon(self, ending, stored)

    def _last_words(self, provider: str, model: str) -> tuple[Completion, Ending]:
        """The whole answer, and how it is stored; the same again where it could not be stored."""
        if self._unstored is not None:
            return self._unstored
        if self._has_ended:
            raise StoreUnavailable("this turn has already ended", hint="send the message again")
        completion = replace(
            self._collector.completion(), provider=provider, conversation_id=self.conversation_id
        )
        finish = self._collector.finish
        ending = self._end("done", completion, provider, model or completion.model, last=finish)
        self._unstored = (completion, ending)
        return self._unstored

    def interrupt(self, provider: str = "", model: str = "") -> None:
        """Keep the text so far. Where the turn has ended, its end is not tried to be stored again."""
        if self._unstored is not None:
            self._is_left = True
            if not self._is_storing:
                self._give_up(self._unstored[1])
        if not self._has_ended:
            ending = self._end("interrupted", self._collector.completion(), provider, model)
            self._recorder.interrupt(self, ending, is_known=self._is_known)
            self._end_log(ending, None)

    def _give_up(self, ending: Ending) -> None:
        """The end could not be stored, and nobody tries again."""
        self._unstored = None
        self._recorder.give_up(self, ending)
        self._end_log(ending, None)

    async def fail(self, error: GatewayError, provider: str = "", model: str = "") -> None:
        """Keep the error, and the text so far if there is any; without text the history stays as it was."""
        if self._has_ended:
            return
        status: TurnStatus = "interrupted" if self._has_begun else "failed"
        failed = Failed.of(error)
        ending = self._end(status, self._collector.completion(), provider, model, error, last=failed)
        if self._has_begun:
            await self._recorder.cut(self, ending)
        else:
            await self._recorder.fail(self, ending, drop_state=self._state_was_used)
        self._end_log(ending, failed)

    def take_checkpoint(self) -> Checkpoint:
        """What has come since the last checkpoint."""
        events = codec.encode_deltas(self._unsaved) if self.log is None else self.log.take()
        # The first one says who pays, so that a crash does not make the answer free.
        tab = self.bill.tab() if self.bill is not None and not self._is_tab_open else None
        self._is_tab_open = self.bill is not None
        checkpoint = Checkpoint(self.id, self.opened.conversation, self._checkpoints, events, tab)
        self._checkpoints += 1
        self._unsaved = []
        self._unsaved_size = 0
        return checkpoint

    def _end(
        self,
        status: TurnStatus,
        completion: Completion,
        provider: str,
        model: str,
        error: GatewayError | None = None,
        last: Item | None = None,
    ) -> Ending:
        self._has_ended = True
        self.finished_at = time.time()
        opened = self.opened
        is_logged = self._has_begun or status == "done"
        return Ending(
            turn=opened.turn,
            conversation=opened.conversation,
            tree=opened.tree,
            path=opened.path,
            in_force=opened.in_force,
            status=status,
            now=self.finished_at,
            answers=codec.answer_rows(completion),
            provider=provider or self._provider,
            model=model,
            finish_reason=completion.finish_reason or (CANCELLED if self.is_cancelled else ""),
            usage=completion.usage,
            state=self._state if status == "done" else None,
            error_code=error.code if error else "",
            error=error.explanation if error else "",
            checkpoints=self._checkpoints,
            piece=self.log.take(last) if self.log is not None and is_logged else None,
            is_secret=not self._is_known,
            charge=self._settle(completion),
        )

    def _settle(self, completion: Completion) -> Charge | None:
        if self.bill is not None:
            return self.bill.settle(completion)
        tab = self.left.tab if self.left is not None else None
        return tab.rest(self.finished_at) if tab is not None else None

    @property
    def _is_known(self) -> bool:
        """Whether a caller has been told of this turn: of a hidden one by the beginning of its stream."""
        goes_on = self.request.when_left == "finish"
        return not self.opened.hidden or goes_on or (self._has_begun and self.log is not None)

    def _new_log(self, left: Left | None) -> Log:
        request = self.request
        if left is not None and left.items:
            return StoredFirst(left.head, left.items)
        head = Head(
            turn=self.id,
            created_at=self.opened_at,
            dialect=request.dialect,
            conversation_id=self.conversation_id,
            include_usage=request.include_usage,
            echo=request.echo,
        )
        if not self.survives:
            return Log(head)
        return StoredFirst(replace(head, request=encode_asked(replace(request, messages=()))))

    def _go_on_after(self, left: Left) -> None:
        """Take what had come of the answer; the conversation knows it by its first server's provider."""
        self.left = left
        self._has_begun = True
        for item in left.items:
            if not isinstance(item, Failed):
                self._collector.add(item)

    def _end_log(self, ending: Ending, last: Item | None) -> None:
        if self.log is not None:
            self.log.is_cancelled = self.is_cancelled
            self.log.end(last, ending.now)


def _stopped() -> TurnInterrupted:
    return TurnInterrupted("somebody has stopped this turn, or the conversation went on without it")


def _size(delta: Recorded) -> int:
    match delta:
        case ToolCallDelta():
            return len(delta.arguments)
        case Citation():
            return len(delta.url) + len(delta.title)
    return len(delta.text)

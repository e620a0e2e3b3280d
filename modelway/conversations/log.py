"""The log of an answer: its events in their order, for whoever reads along, reads again or comes late."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Union

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.conversations import codec
from modelway.conversations.codec import Recorded
from modelway.errors import GatewayError, error_class
from modelway.types import (
    Citation,
    Delta,
    Event,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)

_MUCH = 1024
# What is longer is no text that was written word by word, and to compress it would keep everybody waiting.
_TOO_MUCH = 64 * 1024


class Head(Struct, frozen=True, kw_only=True, tag="head", omit_defaults=True):
    """What surrounds an answer: with it a dialect writes the same bytes again.

    `dialect` is the one in which the caller asked and whose bytes the events may carry. `echo` and
    `ignored`: see ChatRequest and Envelope. `trail` tells who was asked until it began. `request` is what was
    asked, where another server may go on with the answer.
    """

    turn: str
    created_at: float
    dialect: str = ""
    provider: str = ""
    model: str = ""
    conversation_id: str = ""
    include_usage: bool = False
    ignored: tuple[str, ...] = ()
    trail: str = ""
    echo: dict[str, Any] | None = None
    request: bytes = b""


class Failed(Struct, frozen=True, kw_only=True, tag="failed", omit_defaults=True):
    """The error that an answer ended with after it had begun."""

    code: str
    message: str
    status: int = 502
    hint: str = ""
    param: str | None = None

    @classmethod
    def of(cls, error: GatewayError) -> Failed:
        """The error as it is kept."""
        return cls(
            code=error.code, message=error.message, status=error.status, hint=error.hint, param=error.param
        )

    def error(self) -> GatewayError:
        """The error again."""
        kind = error_class(self.code, self.status)
        return kind(self.message, hint=self.hint, param=self.param, code=self.code)


Item = Union[Event, Failed]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Union[Head, Item]])


class Log:
    """The log of an answer that is under way in this process. Belongs to the event loop's thread.

    Readers hold a place in it and nothing else, so a slow one costs no more than a quick one. `ended_at` is
    None until everything is in it and, where that could be done, is stored.
    """

    __slots__ = ("_pieces", "_readers", "_saved", "ended_at", "head", "is_cancelled", "items")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.items: list[Item] = []
        self.ended_at: float | None = None
        self.is_cancelled = False
        self._readers: list[asyncio.Future[None]] = []
        self._saved = 0
        self._pieces = 0

    def add(self, item: Item) -> None:
        """Take what comes next."""
        self.items.append(item)
        if self._readers:
            self._wake()

    def end(self, item: Item | None, at: float) -> None:
        """Nothing more comes; `item` is the last. Without a Finish and a Failed the answer was cut off."""
        if item is not None:
            self.items.append(item)
        self.ended_at = at
        self._wake()

    @property
    def last(self) -> Item | None:
        """The newest event, if there is any."""
        return self.items[-1] if self.items else None

    async def after(self, place: int) -> Sequence[Item]:
        """What comes after so many items, as soon as there is any; nothing after the end."""
        while len(self.items) <= place and self.ended_at is None:
            await self._news()
        return self.items[place:]

    def take(self, last: Item | None = None) -> bytes:
        """What has not been taken yet, as the next piece for the store; `last` is not in the log yet."""
        written: list[Head | Item] = [] if self._pieces else [self.head]
        written += self.items[self._saved :]
        if last is not None:
            written.append(last)
        # An answer that is complete at once is short, and its caller waits for the commit.
        piece = encode_piece(written, compact=last is None or self._pieces > 0)
        self._saved = len(self.items)
        self._pieces += 1
        return piece

    async def _news(self) -> None:
        reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._readers.append(reader)
        try:
            await reader
        finally:
            if reader in self._readers:
                self._readers.remove(reader)

    def _wake(self) -> None:
        readers, self._readers = self._readers, []
        for reader in readers:
            if not reader.done():
                reader.set_result(None)


class StoredFirst(Log):
    """A log of which readers are only told what is stored, so that no crash can take back what they have."""

    __slots__ = ("_shown",)

    def __init__(self, head: Head, items: Sequence[Item] = ()) -> None:
        super().__init__(head)
        self.items = list(items)
        self._saved = self._pieces = self._shown = len(self.items)

    def add(self, item: Item) -> None:
        """Take what comes next."""
        self.items.append(item)

    @property
    def hidden(self) -> int:
        """How many items readers are not told of yet."""
        return len(self.items) - self._shown

    def show(self, count: int) -> None:
        """So many items are stored."""
        self._shown = max(self._shown, count)
        self._wake()

    def end(self, item: Item | None, at: float) -> None:
        """See Log."""
        self._shown = len(self.items) + (item is not None)
        super().end(item, at)

    async def after(self, place: int) -> Sequence[Item]:
        """See Log."""
        while self._shown <= place and self.ended_at is None:
            await self._news()
        return self.items[place : self._shown]


def encode_piece(items: Sequence[Head | Item], *, compact: bool = True) -> bytes:
    """A piece of a log as it is stored."""
    try:
        piece = _encoder.encode(items)
    except UnicodeEncodeError:
        piece = _encoder.encode([_well_formed(item) for item in items])
    return zlib.compress(piece, 1) if compact and _MUCH < len(piece) < _TOO_MUCH else piece


def decode_piece(piece: bytes) -> list[Head | Item]:
    """A piece of a log as it was stored."""
    # What zlib writes begins with 0x78, which no list in MessagePack does.
    return _decoder.decode(zlib.decompress(piece) if piece[:1] == b"\x78" else piece)


def is_piece(events: bytes) -> bool:
    """Whether a checkpoint is a piece of a log; otherwise it is deltas in JSON, of an answer without one."""
    return not events.startswith(b"[")


def deltas_of(checkpoints: Iterable[bytes]) -> list[Recorded]:
    """The deltas that checkpoints of either kind hold."""
    found: list[Recorded] = []
    for events in checkpoints:
        if is_piece(events):
            found += [item for item in decode_piece(events) if isinstance(item, Delta)]
        else:
            found += codec.decode_deltas(events)
    return found


def _well_formed(item: Head | Item) -> Head | Item:
    match item:
        case TextDelta() | ReasoningDelta() | RefusalDelta():
            return replace(item, text=codec.well_formed(item.text))
        case ToolCallDelta():
            return replace(item, arguments=codec.well_formed(item.arguments))
        case Citation():
            return replace(item, url=codec.well_formed(item.url), title=codec.well_formed(item.title))
    return item

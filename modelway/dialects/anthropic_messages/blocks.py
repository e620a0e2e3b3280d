"""Turns content blocks, whole or in pieces, into events, and keeps them as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from modelway.dialects.replay import Block, state_after
from modelway.errors import UpstreamProtocolError
from modelway.types import Citation, Event, ReasoningDelta, TextDelta, ToolCallDelta, UpstreamState

MAX_BLOCKS = 10_000
_PLAIN = ("text", "tool_use")

_encode = msgspec.json.Encoder().encode


class WireDelta(Struct):
    """A piece of a block, or the end of a message."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: dict[str, Any] | None = None
    stop_reason: str | None = None
    stop_details: dict[str, Any] | None = None


class _Open:
    """A block under way."""

    def __init__(self, block: Block, call: int, begins_at: int) -> None:
        self.block = block
        self.call = call
        self.begins_at = begins_at
        self.input: list[str] = []
        self.pieces: list[str] = []


class Blocks:
    """The content of one answer. `raw` goes into every event: b"" where other bytes carry it already."""

    def __init__(self, raw: bytes | None = None) -> None:
        self.content: list[Block] = []
        self._raw = raw
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._written = 0

    def start(self, index: int, block: Block) -> list[Event]:
        """A block begins, perhaps with all of its content."""
        if len(self.content) >= MAX_BLOCKS:
            raise UpstreamProtocolError(f"the upstream's answer has more than {MAX_BLOCKS} blocks")
        block = dict(block)
        kind = block.get("type")
        opened = _Open(block, self._calls, self._written)
        self.content.append(block)
        self._open[index] = opened
        if kind == "text":
            return self._text(opened, _word(block, "text"))
        if kind == "thinking":
            return self._thinking(opened, _word(block, "thinking"))
        if kind != "tool_use":
            return []
        if not (_word(block, "id") and _word(block, "name")):
            raise UpstreamProtocolError("the upstream's answer has a call without an id or a name")
        self._calls += 1
        arguments = _encode(block["input"]).decode() if block.get("input") else ""
        opened.input.append(arguments)
        call = ToolCallDelta(
            index=opened.call,
            id=_word(block, "id"),
            name=_word(block, "name"),
            arguments=arguments,
            raw=self._raw,
        )
        return [call]

    def add(self, index: int, delta: WireDelta) -> list[Event]:
        """A piece of a block; kinds of pieces that are not known yet are passed over."""
        opened = self._open.get(index)
        if opened is None:
            raise UpstreamProtocolError("the upstream sent a piece of a block that it has not begun")
        if delta.text is not None:
            return self._text(opened, delta.text)
        if delta.thinking is not None:
            return self._thinking(opened, delta.thinking)
        if delta.signature is not None:
            opened.block["signature"] = _word(opened.block, "signature") + delta.signature
        if delta.citation is not None:
            opened.block["citations"] = [*_cited(opened.block), delta.citation]
        if delta.partial_json is None:
            return []
        opened.input.append(delta.partial_json)
        if opened.block.get("type") != "tool_use" or not delta.partial_json:
            return []
        return [ToolCallDelta(index=opened.call, arguments=delta.partial_json, raw=self._raw)]

    def stop(self, index: int) -> list[Event]:
        """A block ends: now it is known what its citations support."""
        opened = self._open.pop(index, None)
        if opened is None:
            return []
        block, arguments = opened.block, "".join(opened.input)
        if opened.pieces:
            block["thinking" if block.get("type") == "thinking" else "text"] = "".join(opened.pieces)
        if arguments:
            block["input"] = _object(arguments)
        if block.get("type") == "tool_use" and not arguments:
            return [ToolCallDelta(index=opened.call, arguments="{}", raw=self._raw)]
        return self._citations(opened) if block.get("type") == "text" else []

    def state(self, turns: Sequence[list[Block]], stop_reason: str) -> list[UpstreamState]:
        """What the next turn of a tool loop needs; `turns` were replayed for this answer."""
        needed = turns or any(block.get("type") not in _PLAIN for block in self.content)
        return [state_after(turns, self.content)] if needed and stop_reason == "tool_use" else []

    def _text(self, opened: _Open, text: str) -> list[Event]:
        opened.pieces.append(text)
        self._written += len(text)
        return [TextDelta(text=text, raw=self._raw)] if text else []

    def _thinking(self, opened: _Open, text: str) -> list[Event]:
        opened.pieces.append(text)
        return [ReasoningDelta(text=text, raw=self._raw)] if text else []

    def _citations(self, opened: _Open) -> list[Event]:
        """The sources that have an address; a passage of a document of the caller's own has none."""
        found: list[Event] = []
        for cited in _cited(opened.block):
            if url := _word(cited, "url"):
                citation = Citation(
                    url=url,
                    title=_word(cited, "title"),
                    start_index=opened.begins_at,
                    end_index=self._written,
                    raw=self._raw,
                )
                found.append(citation)
        return found


def joined(events: list[Event]) -> list[Event]:
    """The events with neighbouring pieces of text made one, so that a read of fifty pieces is one event."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if (isinstance(event, TextDelta) and isinstance(last, TextDelta)) or (
            isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta)
        ):
            result[-1] = msgspec.structs.replace(last, text=last.text + event.text)
        else:
            result.append(event)
    return result


def _cited(block: Block) -> list[Block]:
    """What a text cites."""
    citations = block.get("citations")
    return [one for one in citations if isinstance(one, dict)] if isinstance(citations, list) else []


def _word(block: Block, name: str) -> str:
    value = block.get(name)
    return value if isinstance(value, str) else ""


def _object(arguments: str) -> dict[str, Any]:
    """The input of a call; one that was cut off is never sent back, so it does not matter what it holds."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

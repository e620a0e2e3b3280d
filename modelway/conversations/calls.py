"""Which call a tool's result answers, where a client names calls in its own way or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from modelway.conversations import codec
from modelway.conversations.codec import Row
from modelway.conversations.matching import Path
from modelway.errors import InvalidRequest
from modelway.types import Message, ToolCall


def with_stored_ids(known: Sequence[Message], base: Path, new: list[Row]) -> list[Row]:
    """The new rows, whose results name the calls as the store does.

    `known` are the messages before them, recognised in `base`: some clients (Ollama's) cannot carry the ids
    of calls and make up their own each time they send the history, or name only the function.
    """
    if not any(row.message.role == "tool" for row in new):
        return new
    ids = {
        asked.id: stored.id
        for message, node in zip(known, base, strict=False)
        for asked, stored in zip(message.tool_calls, node.message.tool_calls, strict=False)
    }
    unanswered = Unanswered(node.message for node in base)
    named: list[Row] = []
    for row in new:
        message = row.message
        if message.role == "tool":
            id = ids.get(message.tool_call_id, message.tool_call_id) or unanswered.named(message.name)
            message = replace(message, tool_call_id=id)
        unanswered.add(message)
        for call in message.tool_calls:
            # From here on the client means its new call by this id.
            ids.pop(call.id, None)
        named.append(row if message is row.message else codec.row(message))
    return named


def refuse_nameless_results(messages: Iterable[Message]) -> None:
    """InvalidRequest where a tool's result does not say which call it answers."""
    for message in messages:
        if message.role == "tool" and not message.tool_call_id:
            raise _never_called(message.name)


class Unanswered:
    """The calls of a conversation that have no result yet."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._calls: list[ToolCall] = []
        for message in messages:
            self.add(message)

    def add(self, message: Message) -> None:
        """Take the next message."""
        if message.role == "tool":
            answered = next((call for call in self._calls if call.id == message.tool_call_id), None)
            if answered is not None:
                self._calls.remove(answered)
        self._calls.extend(message.tool_calls)

    def named(self, name: str) -> str:
        """The id of the first call of this function, "" of any."""
        for call in self._calls:
            if name in ("", call.name):
                return call.id
        raise _never_called(name)


def _never_called(name: str) -> InvalidRequest:
    return InvalidRequest(
        f'the result of the tool "{name[:80]}" answers no call that was made before',
        param="messages",
        hint="send the message with the call too, or the id of the call",
    )

"""Puts the items that a request for a response refers to in their places, out of the store."""

from __future__ import annotations

from modelway.conversations import Conversations, Kept
from modelway.dialects import openai_responses
from modelway.dialects.openai_responses import Fields
from modelway.errors import ConversationNotFound, NotFound
from modelway.server.exchange import Exchange
from modelway.server.responses import sent


class References:
    """Finds items of the caller's own responses, and of the conversation that its request names."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def resolved(self, exchange: Exchange, body: bytes) -> bytes:
        """The body with the items themselves; InvalidRequest for those that are not there."""
        wanted = openai_responses.references(body)
        if not wanted:
            return body
        caller = exchange.caller.name
        turns = {id: openai_responses.turn_of_item(id) for id in wanted.values()}
        there: dict[str, Fields] = {}
        for turn in dict.fromkeys(filter(None, turns.values())):
            there |= await self._of_turn(caller, turn)
        if any(id not in there for id in wanted.values()):
            there |= await self._of_conversation(caller, openai_responses.conversation_named(body))
        found = {place: openai_responses.pick(id, place, there) for place, id in wanted.items()}
        return openai_responses.put_in(body, found)

    async def _of_turn(self, caller: str, turn: str) -> dict[str, Fields]:
        try:
            kept = await self._conversations.turn(caller, turn)
        except NotFound:
            return {}
        return {item["id"]: item for item in _items(kept)}

    async def _of_conversation(self, caller: str, name: str) -> dict[str, Fields]:
        try:
            messages = await self._conversations.messages(caller, name) if name else ()
        except ConversationNotFound:
            return {}
        return {item["id"]: item for item in openai_responses.conversation_items(messages)}


def _items(kept: Kept) -> list[Fields]:
    """What a response answers, and what it says."""
    id, answer = openai_responses.response_id(kept.turn.id), kept.turn.answer
    said = [] if answer is None else openai_responses.answer_items(answer, id)
    return openai_responses.input_items(sent(kept), id) + said

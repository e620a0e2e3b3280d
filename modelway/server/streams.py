"""Endpoints for answers under way: read along or read again, from any event on, and stopped."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request

from modelway.conversations import Conversations
from modelway.dialects import anthropic_messages, openai_chat, openai_responses
from modelway.dialects.openai_chat import completions
from modelway.errors import ConversationNotFound, InvalidRequest
from modelway.gateway import Gateway
from modelway.server.catalogue import json_response
from modelway.server.dialect import Dialect
from modelway.server.exchange import Exchange
from modelway.server.following import LAST_HEADER, Following
from modelway.server.numbering import number_of
from modelway.server.responses import ResponseEndpoints

_DIALECTS: tuple[Dialect, ...] = (openai_chat, openai_responses, anthropic_messages, completions)
_TRUE, _FALSE = "true", "false"


class StreamEndpoints:
    """Gives each caller the streams of its own turns; those of others do not exist for it."""

    def __init__(self, gateway: Gateway, responses: ResponseEndpoints, *, keep_alive_s: float) -> None:
        self._responses = responses
        self._live = gateway.live
        self._conversations: Conversations = gateway.conversations
        self._following = {
            dialect.NAME: Following(gateway, dialect, keep_alive_s=keep_alive_s) for dialect in _DIALECTS
        }

    async def conversation(self, exchange: Exchange) -> None:
        """The stream of a turn, by default the newest, in the format in which it was asked or in `format`."""
        query = _Query(exchange)
        turn_id = await self._turn(exchange, query)
        with self._live.reading(turn_id):
            log = await self._live.log(exchange.caller, turn_id)
            await log.after(0)
            self._check(exchange, log.head.conversation_id)
            spoken = log.head.dialect if log.head.dialect in self._following else openai_chat.NAME
            name = query.get("format") or spoken
            if name not in self._following:
                raise InvalidRequest(f"`format` must be one of {', '.join(self._following)}", param="format")
            await self._following[name].stream(exchange, turn_id, query.after(exchange))

    async def stop(self, exchange: Exchange) -> None:
        """Stop a turn, by default the newest."""
        query = _Query(exchange)
        turn_id = await self._turn(exchange, query)
        stopped = await self._live.cancel(exchange.caller, turn_id)
        reply = json_response({"id": turn_id, "object": "conversation.turn", "stopped": stopped})
        await reply(exchange.scope, exchange.receive, exchange.send)

    async def response(self, exchange: Exchange) -> None:
        """One response as it stands, or the stream of it."""
        query = _Query(exchange)
        if query.get("stream") in ("", _FALSE):
            if query.get("starting_after"):
                raise InvalidRequest("`starting_after` belongs to a stream", param="starting_after")
            shown = await self._responses.show(Request(exchange.scope, exchange.receive))
            await shown(exchange.scope, exchange.receive, exchange.send)
            return
        if query.get("stream") != _TRUE:
            raise InvalidRequest('`stream` must be "true" or "false"', param="stream")
        turn_id = openai_responses.turn_id(exchange.scope["path_params"]["id"])
        await self._conversations.turn(exchange.caller.name, turn_id)
        await self._following[openai_responses.NAME].stream(exchange, turn_id, query.after(exchange))

    async def _turn(self, exchange: Exchange, query: _Query) -> str:
        newest = await self._conversations.streams.newest(exchange.caller.name, _id(exchange))
        return query.get("turn") or newest

    def _check(self, exchange: Exchange, conversation_id: str) -> None:
        if conversation_id != _id(exchange):
            raise ConversationNotFound("the conversation has no turn of this id", param="turn")


class _Query:
    """What follows the question mark."""

    def __init__(self, exchange: Exchange) -> None:
        self._values = parse_qs(exchange.scope["query_string"].decode("latin-1"))

    def get(self, name: str) -> str:
        """A value, "" where it is absent."""
        values: list[str] = self._values.get(name, [""])
        return values[-1]

    def after(self, exchange: Exchange) -> int:
        """The number of the last event that the client has."""
        text = self.get("starting_after") or exchange.header(LAST_HEADER)
        return number_of(text, "starting_after" if self.get("starting_after") else "Last-Event-ID")


def _id(exchange: Exchange) -> str:
    id: str = exchange.scope["path_params"]["id"]
    return id

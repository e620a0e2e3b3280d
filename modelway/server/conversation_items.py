"""OpenAI's Conversations API beside our own addresses: create and annotate, read and add items."""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import Response

from modelway.conversations import Conversations
from modelway.dialects import openai_responses
from modelway.errors import InvalidRequest, NotFound
from modelway.server.catalogue import json_response
from modelway.server.exchange import Exchange
from modelway.server.pages import page_of


class ItemEndpoints:
    """Conversations as OpenAI's clients handle them. What was said cannot be changed or taken out."""

    def __init__(self, conversations: Conversations, *, max_body_bytes: int) -> None:
        self._conversations = conversations
        self._max_body_bytes = max_body_bytes

    async def create(self, request: Request) -> Response:
        """A conversation with a new id, which begins with `items` if there are any."""
        exchange = _exchange(request)
        messages, metadata = await self._decode(exchange)
        id = "conv_" + secrets.token_hex(12)
        await self._conversations.shelf.create(exchange.caller.name, id, metadata or {})
        if messages:
            await self._conversations.add(exchange.caller.name, id, messages)
        return await self._shown(exchange, id)

    async def update(self, request: Request) -> Response:
        """Replace the `metadata`."""
        exchange, id = _exchange(request), request.path_params["id"]
        _, metadata = await self._decode(exchange)
        if metadata is None:
            raise InvalidRequest("`metadata` is missing", param="metadata", hint="{} removes all of it")
        await self._conversations.shelf.annotate(exchange.caller.name, id, metadata)
        return await self._shown(exchange, id)

    async def page(self, request: Request) -> Response:
        """The items of the current branch, newest first unless `order` is "asc"."""
        return page_of(await self._items(request), request)

    async def item(self, request: Request) -> Response:
        """One of them."""
        wanted = request.path_params["item_id"]
        for item in await self._items(request):
            if item["id"] == wanted:
                return json_response(item)
        raise NotFound("the conversation has no such item")

    async def add(self, request: Request) -> Response:
        """Put items at the end, without an answer."""
        exchange, id = _exchange(request), request.path_params["id"]
        messages, _ = await self._decode(exchange)
        if not messages:
            raise InvalidRequest("`items` is missing", param="items", hint="send at least one item")
        added = await self._conversations.add(exchange.caller.name, id, messages)
        items = openai_responses.conversation_items(added)
        body = openai_responses.encode_items(items, has_more=False)
        return Response(body, media_type="application/json")

    async def _decode(self, exchange: Exchange) -> openai_responses.Noted:
        return openai_responses.decode_conversation(await exchange.body(self._max_body_bytes))

    async def _items(self, request: Request) -> list[openai_responses.Fields]:
        caller = _exchange(request).caller.name
        messages = await self._conversations.messages(caller, request.path_params["id"])
        return openai_responses.conversation_items(messages)

    async def _shown(self, exchange: Exchange, id: str) -> Response:
        found = await self._conversations.show(exchange.caller.name, id)
        return json_response(
            {
                "id": id,
                "object": "conversation",
                "created_at": int(found.created_at),
                "metadata": found.metadata,
            }
        )


def _exchange(request: Request) -> Exchange:
    exchange: Exchange = request.scope["modelway.exchange"]
    return exchange

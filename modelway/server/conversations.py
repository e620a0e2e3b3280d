"""Endpoints for looking at, forking and deleting conversations."""

from __future__ import annotations

import secrets

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from modelway.conversations import Conversation, Conversations, Summary, export_json, export_markdown
from modelway.errors import InvalidRequest
from modelway.server.catalogue import json_response
from modelway.server.exchange import Exchange
from modelway.types import Caller

MAX_PAGE = 200
MAX_FORK_BYTES = 64 * 1024


class ConversationEndpoints:
    """Shows each caller its own conversations; those of others do not exist for it."""

    def __init__(self, conversations: Conversations, *, max_body_bytes: int) -> None:
        self._conversations = conversations
        self._max_body_bytes = min(max_body_bytes, MAX_FORK_BYTES)

    async def list(self, request: Request) -> Response:
        """Conversations, newest first; with `q`, those in which the text was found."""
        caller, limit = _caller(request), _limit(request)
        query = request.query_params.get("q", "")
        if query:
            matches = await self._conversations.search(caller.name, query, limit=limit)
            return json_response({"object": "list", "data": matches})
        before = request.query_params.get("before", "")
        summaries = await self._conversations.list(caller.name, limit=limit, before=before)
        return json_response({"object": "list", "data": [_with_id(summary) for summary in summaries]})

    async def show(self, request: Request) -> Response:
        """One conversation with its messages and turns."""
        found = await self._conversations.show(_caller(request).name, request.path_params["id"])
        return json_response(_with_id(found))

    async def export(self, request: Request) -> Response:
        """One conversation as a file: `format` is "json" or "md"."""
        conversation_id = request.path_params["id"]
        found = await self._conversations.show(_caller(request).name, conversation_id)
        match request.query_params.get("format", "json"):
            case "json":
                return Response(export_json(found), media_type="application/json")
            case "md":
                return Response(export_markdown(found), media_type="text/markdown; charset=utf-8")
            case _:
                raise InvalidRequest('`format` must be "json" or "md"', param="format")

    async def fork(self, request: Request) -> Response:
        """A new conversation that shares the old one's messages, up to `at_turn` if given."""
        wanted = _fork_request(await _exchange(request).body(self._max_body_bytes))
        new_id = wanted.conversation_id or "conv_" + secrets.token_hex(12)
        summary = await self._conversations.fork(
            _caller(request).name, request.path_params["id"], new_id, at_turn=wanted.at_turn
        )
        return json_response(_with_id(summary), 201)

    async def delete(self, request: Request) -> Response:
        """Forget a conversation."""
        conversation_id = request.path_params["id"]
        await self._conversations.delete(_caller(request).name, conversation_id)
        return json_response({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


class _Fork(msgspec.Struct, forbid_unknown_fields=True):
    conversation_id: str = ""
    at_turn: str = ""


def _fork_request(body: bytes) -> _Fork:
    try:
        return msgspec.json.decode(body or b"{}", type=_Fork)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from None


def _with_id(value: Summary | Conversation) -> dict[str, object]:
    """What the store tells, under the names that clients of this kind of address expect."""
    fields: dict[str, object] = msgspec.structs.asdict(value)
    return {"id": fields.pop("conversation_id"), "object": "conversation", **fields}


def _exchange(request: Request) -> Exchange:
    exchange: Exchange = request.scope["modelway.exchange"]
    return exchange


def _caller(request: Request) -> Caller:
    return _exchange(request).caller


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", "50")
    if not text.isdecimal() or len(text) > len(str(MAX_PAGE)) or not 1 <= int(text) <= MAX_PAGE:
        raise InvalidRequest(f"`limit` must be an integer from 1 to {MAX_PAGE}", param="limit")
    return int(text)

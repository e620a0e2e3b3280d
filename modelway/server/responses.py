"""Endpoints for responses that were kept: shown, listed item by item, deleted."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from modelway.conversations import CANCELLED, Conversations, Kept, is_passing
from modelway.dialects import openai_responses
from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_responses import Status
from modelway.errors import InvalidRequest, error_class
from modelway.live import Live
from modelway.server.exchange import Exchange
from modelway.server.pages import page_of
from modelway.types import FinishReason


class ResponseEndpoints:
    """Shows each caller its own responses; those of others do not exist for it."""

    def __init__(self, conversations: Conversations, live: Live) -> None:
        self._conversations = conversations
        self._live = live

    async def show(self, request: Request) -> Response:
        """One response as it stands."""
        kept = await self._find(request)
        if kept.turn.status == "open" and kept.asked.get("background"):
            exchange: Exchange = request.scope["modelway.exchange"]
            await self._live.look_after(exchange.caller, kept.turn.id)
        return _json(written(kept))

    async def delete(self, request: Request) -> Response:
        """Forget a response."""
        id = request.path_params["id"]
        await self._conversations.forget_turn(_caller(request), openai_responses.turn_id(id))
        return _json(openai_responses.encode_deleted(id))

    async def cancel(self, request: Request) -> Response:
        """Stop a response in the background; one that has ended is shown as it is."""
        kept = await self._find(request)
        if not kept.asked.get("background"):
            raise InvalidRequest(
                "only a response in the background can be cancelled",
                param="id",
                hint="close the connection on which it comes",
            )
        exchange: Exchange = request.scope["modelway.exchange"]
        if kept.turn.status == "open" and await self._live.cancel(exchange.caller, kept.turn.id):
            kept = await self._find(request)
        return _json(written(kept))

    async def input_items(self, request: Request) -> Response:
        """What the caller had sent, newest first unless `order` is "asc"."""
        kept = await self._find(request)
        items = openai_responses.input_items(sent(kept), request.path_params["id"])
        return page_of(items, request)

    async def _find(self, request: Request) -> Kept:
        turn = openai_responses.turn_id(request.path_params["id"])
        return await self._conversations.turn(_caller(request), turn)


def written(kept: Kept) -> bytes:
    """A response as it stands, in its format."""
    turn = kept.turn
    envelope = Envelope(
        id=openai_responses.response_id(turn.id),
        created=int(turn.created_at),
        completed=int(turn.finished_at or 0),
        model=turn.model or kept.asked.get("model", ""),
        provider=turn.provider,
        conversation_id=kept.conversation_id,
        echo=kept.asked,
    )
    failure = None
    if turn.error_code:
        failure = openai_responses.response_error(error_class(turn.error_code).status, turn.error)
    status, incomplete = _status(kept)
    return openai_responses.encode_response(
        envelope, status, turn.answer, usage=turn.usage, incomplete=incomplete, error=failure
    )


def _status(kept: Kept) -> tuple[Status, str | None]:
    """What the state of a turn is called here; one that was cut off by nobody's error is incomplete."""
    turn = kept.turn
    if turn.error_code:
        return "failed", None
    if turn.status == "open":
        is_waiting = kept.asked.get("background") and turn.answer is None
        return "queued" if is_waiting else "in_progress", None
    if turn.status == "interrupted":
        return "cancelled" if turn.finish_reason == CANCELLED else "incomplete", None
    reason: FinishReason = turn.finish_reason or "stop"  # type: ignore[assignment]
    return openai_responses.status_of(reason)


def sent(kept: Kept) -> list[Any]:
    """The messages of the request; instructions in its input count with the first turn, which set them."""
    turn = kept.turn
    lasting = [message for message in turn.instructions if not is_passing(message)]
    return [*([] if turn.parent else lasting), *turn.messages]


def _caller(request: Request) -> str:
    exchange: Exchange = request.scope["modelway.exchange"]
    return exchange.caller.name


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")

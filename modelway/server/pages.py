"""Cuts a list of items into pages, as OpenAI's addresses have them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from modelway.dialects import openai_responses
from modelway.errors import InvalidRequest

MAX_PAGE = 100
DEFAULT_PAGE = "20"


def page_of(items: list[dict[str, Any]], request: Request) -> Response:
    """The page that the query asks for: `limit`, `after`, and `order`, where the newest come first."""
    query = request.query_params
    limit, order = query.get("limit", DEFAULT_PAGE), query.get("order", "desc")
    if not limit.isdecimal() or len(limit) > len(str(MAX_PAGE)) or not 1 <= int(limit) <= MAX_PAGE:
        raise InvalidRequest(f"`limit` must be an integer from 1 to {MAX_PAGE}", param="limit")
    if order not in ("asc", "desc"):
        raise InvalidRequest('`order` must be "asc" or "desc"', param="order")
    ordered = items if order == "asc" else items[::-1]
    after, ids = query.get("after", ""), [item["id"] for item in ordered]
    if after and after not in ids:
        raise InvalidRequest("there is no such item", param="after")
    begin = ids.index(after) + 1 if after else 0
    end = begin + int(limit)
    body = openai_responses.encode_items(ordered[begin:end], has_more=end < len(ordered))
    return Response(body, media_type="application/json")

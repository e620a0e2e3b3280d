"""What is done with whole conversations: rename, pin, delete, search, export, import."""

from __future__ import annotations

import asyncio
import secrets

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from modelway.conversations import Conversation, export_markdown
from modelway.errors import InvalidRequest
from modelway.page.exporting import export_html, export_lines
from modelway.page.frame import (
    PINNED,
    Frame,
    caller_of,
    decoded,
    exchange_of,
    html_response,
    json_response,
)
from modelway.page.importing import read_exported
from modelway.page.trash import is_deleted
from modelway.page.views.found import found as found_view
from modelway.page.views.sidebar import conversations as list_view

MOST_TITLE = 200
MOST_FOUND = 30
MOST_EXPORTED = 1000


class _Named(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    conversation: str
    title: str = ""
    pinned: bool = False


class Keeping:
    """The list of conversations, and what is done with one of them as a whole."""

    def __init__(self, frame: Frame, max_body_bytes: int) -> None:
        self._frame = frame
        self._max_body_bytes = max_body_bytes

    async def list(self, request: Request) -> Response:
        """The list of the sidebar; `current` is the address that is open, `all`: not only the newest."""
        words = self._frame.look(request).texts
        listed = await self._frame.listed(caller_of(request), all="all" in request.query_params)
        return html_response(list_view(words, listed, request.query_params.get("current", "")))

    async def rename(self, request: Request) -> Response:
        """Give a conversation another title."""
        named = await decoded(request, _Named)
        title = " ".join(named.title.split())[:MOST_TITLE]
        if not title:
            raise InvalidRequest("a title must say something", param="title")
        await self._frame.gateway.conversations.shelf.rename(
            caller_of(request).name, named.conversation, title
        )
        return self._arranged()

    async def pin(self, request: Request) -> Response:
        """Keep a conversation at the top of the list, or no longer."""
        named, store = await decoded(request, _Named), self._frame.gateway.conversations
        await store.shelf.note(
            caller_of(request).name, named.conversation, PINNED, "1" if named.pinned else ""
        )
        return self._arranged()

    async def delete(self, request: Request) -> Response:
        """Delete a conversation in a moment."""
        named, caller = await decoded(request, _Named), caller_of(request)
        await self._frame.gateway.conversations.show(caller.name, named.conversation)
        await self._frame.drafts.stop(caller, named.conversation)
        await self._frame.trash.put(caller, named.conversation)
        return self._arranged()

    async def undo(self, request: Request) -> Response:
        """Do not delete it."""
        named = await decoded(request, _Named)
        await self._frame.trash.take_back(caller_of(request), named.conversation)
        return self._arranged()

    async def search(self, request: Request) -> Response:
        """The messages in which something was found."""
        caller, query = caller_of(request), request.query_params.get("q", "")
        matches = await self._frame.gateway.conversations.search(caller.name, query, limit=MOST_FOUND)
        there = [match for match in matches if not self._frame.trash.has(caller, match.conversation_id)]
        return html_response(found_view(self._frame.look(request).texts, there, query))

    async def export(self, request: Request) -> Response:
        """One conversation as a file."""
        caller = caller_of(request)
        found = await self._frame.conversation(caller, request.path_params["id"])
        match request.query_params.get("format", "md"):
            case "md":
                return _file(
                    export_markdown(found).encode(), f"{_stem(found)}.md", "text/markdown; charset=utf-8"
                )
            case "jsonl":
                return _file(export_lines([found]), f"{_stem(found)}.jsonl", "application/jsonl")
            case "html":
                look = self._frame.look(request)
                style = self._frame.assets.files["style.css"].plain.decode()
                html = await asyncio.to_thread(
                    export_html, found, self._frame.writer(look.texts), style, look.texts.language
                )
                return _file(html.encode(), f"{_stem(found)}.html", "text/html; charset=utf-8")
            case _:
                raise InvalidRequest('`format` must be "md", "jsonl" or "html"', param="format")

    async def export_all(self, request: Request) -> Response:
        """Every conversation, each as a line of JSON."""
        caller, store = caller_of(request), self._frame.gateway.conversations
        lines, before = [], ""
        while some := await store.list(caller.name, limit=MOST_EXPORTED, before=before):
            found = [await store.show(caller.name, one.conversation_id) for one in some]
            lines.append(export_lines(one for one in found if not is_deleted(one)))
            before = some[-1].conversation_id
        return _file(b"".join(lines), "conversations.jsonl", "application/jsonl")

    async def take_in(self, request: Request) -> Response:
        """Import what was exported; the reply tells how many conversations there were."""
        body = await exchange_of(request).body(self._max_body_bytes)
        try:
            text = msgspec.json.decode(body, type=dict[str, str]).get("text", "")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the body cannot be read: {error}") from None
        caller, store = caller_of(request), self._frame.gateway.conversations
        imported = read_exported(text)
        last = ""
        for one in imported:
            last = "conv_" + secrets.token_hex(12)
            await store.shelf.take_in(caller.name, last, one)
        self._frame.arranged += 1
        return json_response({"count": len(imported), "conversation": last})

    def _arranged(self) -> Response:
        self._frame.arranged += 1
        return json_response({})


def _stem(found: Conversation) -> str:
    """The title as the name of a file."""
    kept = "".join(one if one.isalnum() else "-" for one in found.title.lower())
    return "-".join(part for part in kept.split("-") if part)[:60] or "conversation"


def _file(body: bytes, name: str, media_type: str) -> Response:
    from urllib.parse import quote  # noqa: PLC0415

    headers = {
        "content-disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    return Response(body, headers=headers, media_type=media_type)

"""The pages that show conversations."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Mapping

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from modelway.conversations import Conversation
from modelway.errors import ConversationNotFound, GatewayError
from modelway.page.choices import choice_of
from modelway.page.draft import Figures, Snapshot
from modelway.page.frame import Frame, caller_of, html_response, version_of
from modelway.page.html import Html, tag
from modelway.page.thread import Thread, thread_of
from modelway.page.views import chat as view
from modelway.page.views.composer import Choice, model_options
from modelway.page.views.look import Look
from modelway.page.views.messages import Writer
from modelway.page.views.parts import written_by
from modelway.page.views.shell import page
from modelway.types import ImagePart

_PLAIN = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
SCRIPTS = ("chat.js",)
_PICTURES = {"image/png", "image/jpeg", "image/gif", "image/webp"}


class Pages:
    """A new chat, a conversation, a part of one."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def home(self, request: Request) -> Response:
        """A new chat; programs are told where to ask."""
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse(
                {"server": "modelway", "api": "/v1", "openapi": "/openapi.json", "page": "/ in a browser"}
            )
        shown = view.Chat(
            conversation="",
            title="",
            articles=(),
            choice=Choice(),
            models={},
            temporary=request.query_params.get("temporary") == "1",
        )
        return await self._page(request, shown, "/")

    async def conversation(self, request: Request) -> Response:
        """One conversation, from its end or before one of its messages."""
        try:
            shown = await self._shown(request, request.path_params["id"])
        except ConversationNotFound as error:
            return await self._missing(request, error)
        return await self._page(request, shown, request.url.path)

    async def thread(self, request: Request) -> Response:
        """The messages of a conversation, without the page around them."""
        shown = await self._shown(request, request.path_params["id"])
        return html_response(view.thread(self._frame.look(request).texts, shown))

    async def models(self, request: Request) -> Response:
        """What can be chosen from."""
        words, models = self._frame.look(request).texts, await self._frame.models(caller_of(request))
        options = model_options(words, models, request.query_params.get("chosen", ""))
        return html_response(tag("select", *options))

    async def text(self, request: Request) -> Response:
        """What somebody wrote, as it was written."""
        found = await self._frame.conversation(caller_of(request), request.path_params["id"])
        for node in found.tree:
            if node.id == request.path_params["message"]:
                return Response(
                    written_by(node.message), headers=_PLAIN, media_type="text/plain; charset=utf-8"
                )
        raise ConversationNotFound("there is no such message")

    async def file(self, request: Request) -> Response:
        """A picture that came with a message."""
        found = await self._frame.conversation(caller_of(request), request.path_params["id"])
        index = request.path_params["index"]
        for node in found.tree:
            parts = node.message.content
            if (
                node.id == request.path_params["message"]
                and not isinstance(parts, str)
                and index < len(parts)
            ):
                part = parts[index]
                if isinstance(part, ImagePart) and part.url.startswith("data:"):
                    return _picture(part.url)
        raise ConversationNotFound("there is no such picture")

    async def _page(self, request: Request, shown: view.Chat, current: str) -> Response:
        look, listed = self._frame.look(request), await self._frame.listed(caller_of(request))
        content = view.chat(look.texts, shown)
        return html_response(page(look, shown.title, SCRIPTS, listed, current, *content))

    async def _missing(self, request: Request, error: GatewayError) -> Response:
        look, listed = self._frame.look(request), await self._frame.listed(caller_of(request))
        told = tag(
            "main",
            tag(
                "section",
                tag("h1", look.texts("missing.title")),
                tag("p", look.texts("missing.text")),
                class_="welcome",
            ),
            id="main",
        )
        return html_response(page(look, look.texts("missing.title"), (), listed, "", told), error.status)

    async def _shown(self, request: Request, id: str) -> view.Chat:
        caller, look = caller_of(request), self._frame.look(request)
        before = request.query_params.get("before", "")
        # Asked before the conversation is read: what changes in between, the page is told of.
        version = version_of(await self._frame.gateway.conversations.shelf.standing(caller.name, id))
        found = await self._frame.conversation(caller, id)
        figures = await self._frame.figures(caller, id)
        running = self._frame.drafts.find(caller, id)
        draft = await running.snapshot() if running is not None else None
        shown = await asyncio.to_thread(self._written, look, found, draft, figures, before)
        return replace(shown, version=version)

    def _written(
        self,
        look: Look,
        found: Conversation,
        draft: Snapshot | None,
        figures: Mapping[str, Figures],
        before: str,
    ) -> view.Chat:
        if draft is not None and _has_ended(found, draft.turn_id):
            draft = None
        if draft is not None and draft.after is not None:
            # What goes on elsewhere is shown there at once, and also where it could not even be begun.
            found = replace(found, head=draft.after)
        writer = self._frame.writer(look.texts)
        thread = thread_of(found, before)
        articles = writer.thread(thread, found.conversation_id, figures)
        is_live = draft is not None and not draft.is_over
        if not before:
            articles += self._end(writer, thread, draft)
        return view.Chat(
            conversation=found.conversation_id,
            title=found.title or look.texts("untitled"),
            articles=articles,
            choice=choice_of(found),
            models={},
            earlier=thread.entries[0].id if thread.earlier and thread.entries else "",
            live=is_live,
            seq=draft.seq if draft is not None and is_live else 0,
        )

    def _end(self, writer: Writer, thread: Thread, draft: Snapshot | None) -> list[Html]:
        """What follows the path: the answer under way, or the turn that failed."""
        last, is_live = thread.last, draft is not None and not draft.is_over
        asked = []
        if last is not None:
            asked = [writer.question(f"{last.id}-{n}", one) for n, one in enumerate(last.messages)]
        if draft is not None and (is_live or last is None or last.status != "failed"):
            # Until the turn is in the store, the draft alone knows what was asked.
            return [*asked, *self._draft_articles(writer, draft, with_question=last is None)]
        if last is None:
            is_open = thread.entries and thread.entries[-1].message.role == "user"
            return [writer.unanswered()] if is_open else []
        if last.status == "open":
            return [*asked, writer.elsewhere(last.answer)]
        return [*asked, writer.failure(last.error_code, last.error)]

    def _draft_articles(self, writer: Writer, draft: Snapshot, *, with_question: bool) -> list[Html]:
        asked = [writer.question("asked", draft.question)] if with_question and draft.question else []
        if draft.error is not None:
            return [*asked, writer.failure(draft.error.code, draft.error.explanation)]
        return [*asked, writer.draft(draft.blocks, draft.reasoning)]


def _has_ended(found: Conversation, turn_id: str) -> bool:
    """Whether the store has the end of a turn already, which its draft is told of a moment later."""
    return any(turn.id == turn_id and turn.status != "open" for turn in found.turns)


def _picture(url: str) -> Response:
    head, _, body = url.removeprefix("data:").partition(",")
    media_type = head.partition(";")[0]
    if media_type not in _PICTURES:
        raise ConversationNotFound("there is no such picture")
    headers = {
        "cache-control": "private, max-age=86400, immutable",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "same-origin",
        "x-content-type-options": "nosniff",
    }
    try:
        content = b64decode(body)
    except ValueError:
        raise ConversationNotFound("what was sent as a picture is none") from None
    return Response(content, headers=headers, media_type=media_type)

"""What every address of the page needs: who asks, in which words, what there is."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from modelway.accounts import visible_infos
from modelway.conversations import Conversation, Summary
from modelway.errors import InvalidRequest
from modelway.gateway import Gateway
from modelway.page.assets import Assets
from modelway.page.draft import Figures
from modelway.page.drafts import Drafts
from modelway.page.html import Html
from modelway.page.markdown import Markdown
from modelway.page.signing import COOKIE
from modelway.page.texts import Texts, chosen_language, texts
from modelway.page.trash import Trash, refuse_deleted
from modelway.page.views.look import THEMES, Look
from modelway.page.views.messages import Writer
from modelway.page.views.sidebar import Listed
from modelway.prices import NANOS
from modelway.server.exchange import Exchange
from modelway.telemetry import Telemetry
from modelway.types import Caller

T = TypeVar("T")

PINNED = "page.pinned"
MOST_LISTED = 200
MOST_OF_ALL = 1000
MOST_BYTES = 64 * 1024
CACHED_CHARACTERS = 8_000_000

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types modelway"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Renderings:
    """What has been rendered lately, so that opening a conversation again costs little."""

    def __init__(self, markdown: Markdown) -> None:
        self._markdown = markdown
        self._kept: OrderedDict[tuple[str, str], Html] = OrderedDict()
        self._size = 0

    def __call__(self, text: str, name: str) -> Html:
        """The Markdown as HTML; `name` keeps its footnotes apart."""
        key = (text, name)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self._markdown.html(text, name)
            self._size += len(found) + len(text)
            while self._size > CACHED_CHARACTERS:
                (old, _), html = self._kept.popitem(last=False)
                self._size -= len(html) + len(old)
        return found


class Frame(Struct, kw_only=True):
    """Shared by all endpoints of the page. `arranged` grows whenever the list of conversations is changed."""

    gateway: Gateway
    telemetry: Telemetry
    drafts: Drafts
    trash: Trash
    assets: Assets
    answers: Renderings
    questions: Renderings
    arranged: int = 0

    def look(self, request: Request) -> Look:
        """How this browser wants its pages."""
        cookies = request.cookies
        language = chosen_language(cookies.get("lang", ""), request.headers.get("accept-language", ""))
        theme = cookies.get("theme", "")
        return Look(
            texts=texts(language),
            theme=theme if theme in THEMES else "auto",
            asset=self.assets.url,
            signs_in=COOKIE in cookies,
            shows_figures=caller_of(request).rules is None,
        )

    def writer(self, words: Texts) -> Writer:
        """Writes messages in the words of a language."""
        return Writer(words, self.answers, self.questions)

    async def listed(self, caller: Caller, *, all: bool = False) -> Listed:
        """The conversations of the sidebar: the newest, or `all` that a list may hold."""
        store = self.gateway.conversations
        noted = await store.shelf.noted(caller.name)
        for one, notes in noted:
            self.trash.notice(caller, one.conversation_id, notes)
        some = await store.list(caller.name, limit=MOST_OF_ALL if all else MOST_LISTED)
        pinned = [one for one, notes in noted if notes.get(PINNED) and self._is_there(caller, one)]
        known = {one.conversation_id for one in pinned}
        others = [one for one in some if one.conversation_id not in known and self._is_there(caller, one)]
        running = frozenset(draft.key for draft in self.drafts.running(caller))
        return Listed(pinned, others, running, has_more=not all and len(some) == MOST_LISTED)

    async def conversation(self, caller: Caller, id: str) -> Conversation:
        """Everything about a conversation; ConversationNotFound also where it is about to be deleted."""
        found = await self.gateway.conversations.show(caller.name, id)
        refuse_deleted(found)
        return found

    async def figures(self, caller: Caller, conversation: str) -> dict[str, Figures]:
        """What was measured of the answers of a conversation, by their turns."""
        found = await self.gateway.conversations.shelf.figures(caller.name, conversation)
        return {
            turn: Figures(first_s, None if nanos is None else nanos / NANOS)
            for turn, (first_s, nanos) in found.items()
        }

    async def models(self, caller: Caller) -> Mapping[str, Sequence[str]]:
        """The models of the providers that are ready, as far as they are known by now and may be used."""
        found: dict[str, list[str]] = {}
        for info in await visible_infos(self.gateway.offering, caller):
            names = [info.default_model, *info.models]
            if not info.finds_model:
                names = [name for name in names if name]
            if info.ready and names:
                found[info.name] = list(dict.fromkeys(names))
        return found

    def _is_there(self, caller: Caller, one: Summary) -> bool:
        return not self.trash.has(caller, one.conversation_id)


def version_of(standing: tuple[object, ...]) -> str:
    """Another one whenever a conversation is to be shown anew."""
    return hashlib.blake2b(repr(standing[1:]).encode(), digest_size=8).hexdigest()


def open_turn(standing: tuple[object, ...]) -> str:
    """The turn that holds the conversation, "" where none does."""
    match standing:
        case (_, (_, _, str(turn), _)):
            return turn
    return ""


def exchange_of(request: Request) -> Exchange:
    """The request and its reply as the rest of the server sees them."""
    exchange: Exchange = request.scope["modelway.exchange"]
    return exchange


def caller_of(request: Request) -> Caller:
    """Who asks."""
    return exchange_of(request).caller


async def decoded(request: Request, type: type[T]) -> T:
    """The body of a small request; InvalidRequest where it is not of this type."""
    body = await exchange_of(request).body(MOST_BYTES)
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from None


def json_response(value: object) -> Response:
    """What the page's scripts read."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def html_response(html: Html, status: int = 200) -> Response:
    """A page or a part of one, which may load nothing but our own files."""
    return Response(html, status, SECURITY_HEADERS, media_type="text/html; charset=utf-8")

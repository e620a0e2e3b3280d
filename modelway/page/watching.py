"""The pages of providers and of figures."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from modelway.accounts import check_may_watch, only_without_rules, visible_infos
from modelway.errors import GatewayError, InvalidRequest
from modelway.page.codes import Codes
from modelway.page.frame import Frame, caller_of, decoded, exchange_of, html_response, json_response
from modelway.page.html import Content, Html, tag
from modelway.page.views.chat import bare_top
from modelway.page.views.figures import figures
from modelway.page.views.providers import providers
from modelway.page.views.shell import page
from modelway.provider import SignsIn
from modelway.types import ChatRequest, Message, TextDelta

QUESTION = "Say hello in one word."
MOST_SHOWN = 200


class _Tried(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    provider: str
    model: str = ""


class Watching:
    """What the server can reach, and what it did."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._codes = Codes()

    async def providers(self, request: Request) -> Response:
        """Every provider."""
        caller, words = caller_of(request), self._frame.look(request).texts
        infos = await visible_infos(self._frame.gateway.offering, caller)
        able = frozenset() if caller.rules is not None else self._able()
        return await self._page(request, "sidebar.providers", "watching.js", providers(words, infos, able))

    async def test(self, request: Request) -> Response:
        """Ask a provider one short question; tells how long the answer took, or why there is none."""
        tried = await decoded(request, _Tried)
        asked = ChatRequest(
            messages=(Message(role="user", content=QUESTION),),
            provider=tried.provider,
            model=tried.model,
            stream=True,
            dialect="page",
        )
        began, first, pieces = time.perf_counter(), 0.0, []
        try:
            async with aclosing(await self._frame.gateway.answer(asked, caller_of(request))) as answer:
                async for event in answer:
                    if isinstance(event, TextDelta):
                        first = first or time.perf_counter() - began
                        pieces.append(event.text)
        except GatewayError as error:
            return json_response({"ok": False, "code": error.code, "text": error.explanation})
        total = time.perf_counter() - began
        said = " ".join("".join(pieces).split())[:MOST_SHOWN]
        told: dict[str, Any] = {"ok": True, "model": answer.model, "text": said}
        return json_response({**told, "first_s": round(first, 3), "total_s": round(total, 3)})

    async def sign_in(self, request: Request) -> Response:
        """Begin to sign in to a provider; the reply holds the code that is to be entered elsewhere."""
        tried = await decoded(request, _Tried)
        # It changes the account that all callers share.
        only_without_rules(caller_of(request), "a sign-in for the server")
        provider = self._frame.gateway.router.provider(tried.provider)
        if not isinstance(provider, SignsIn):
            raise InvalidRequest("nobody can sign in to this provider with a code", param="provider")
        return json_response(await self._codes.begin(provider))

    async def sign_in_state(self, request: Request) -> Response:
        """Whether somebody has signed in by now."""
        tried = await decoded(request, _Tried)
        only_without_rules(caller_of(request), "a sign-in for the server")
        return json_response(self._codes.state(self._frame.gateway.router.provider(tried.provider).info.name))

    async def figures(self, request: Request) -> Response:
        """Plots of the last hour."""
        return await self._page(request, "sidebar.figures", "watching.js", [self._plots(request)])

    async def plots(self, request: Request) -> Response:
        """The plots without the page around them."""
        return html_response(self._plots(request))

    async def aclose(self) -> None:
        """Wait for nobody's code any longer."""
        await self._codes.aclose()

    def _plots(self, request: Request) -> Html:
        check_may_watch(caller_of(request))
        # Who looks at the figures is not to be seen in them.
        self._frame.telemetry.stands_aside(exchange_of(request).record)
        return figures(self._frame.look(request).texts, self._frame.telemetry.figures.snapshot())

    def _able(self) -> frozenset[str]:
        """Who can be signed in to here."""
        known = self._frame.gateway.providers
        return frozenset(name for name, one in known.items() if isinstance(one, SignsIn) and one.can_sign_in)

    async def _page(self, request: Request, title: str, script: str, content: list[Content]) -> Response:
        look, listed = self._frame.look(request), await self._frame.listed(caller_of(request))
        said = look.texts(title)
        shown = tag("main", tag("div", *content, class_="wide"), id="main", tabindex="-1")
        return html_response(
            page(look, said, [script], listed, request.url.path, bare_top(look.texts, said), shown)
        )

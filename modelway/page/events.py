"""Tells an open page what happens: the answer under way, piece by piece, and that something else changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from modelway.page.draft import TEMPORARY, Draft
from modelway.page.frame import SECURITY_HEADERS, Frame, open_turn, version_of
from modelway.page.texts import chosen_language, texts
from modelway.server.exchange import ClientGone, Exchange, until_client_is_gone
from modelway.types import Caller

TICK_S = 1.0
SILENCE_TICKS = 15

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
    *((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()),
]


class _Shown(Struct, kw_only=True):
    """What a page shows: which conversation, how much of the answer under way, in which version.

    `may_stay`: whether the key that opened it still counts.
    """

    caller: Caller
    may_stay: Callable[[], bool]
    key: str
    seq: int
    version: str
    is_live: bool


class Events:
    """Server-sent events for one page: `patch`, `over`, `changed`, `list`.

    What a page has missed it finds out from the number of the last patch that it has seen: the state is sent
    again from there, so nothing has to be kept for pages that read slowly or come back.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams, so that the server can end."""
        self._closing.set()

    async def __call__(self, exchange: Exchange, may_stay: Callable[[], bool]) -> None:
        """Stream until the page is closed, or may not stay any longer."""
        query = parse_qs(exchange.scope["query_string"].decode("latin-1"))
        key = query.get("key", [""])[0]
        last_seen = exchange.header(b"last-event-id") or query.get("seq", ["0"])[0]
        seq = int(last_seen) if last_seen.isdigit() and len(last_seen) < 10 else 0
        shown = _Shown(
            caller=exchange.caller,
            may_stay=may_stay,
            key=key,
            seq=seq,
            version=query.get("version", [""])[0],
            is_live="live" in query,
        )
        self._frame.telemetry.stands_aside(exchange.record)
        # Whoever closes a page has not broken anything off.
        with suppress(ClientGone), until_client_is_gone(exchange):
            await exchange.start(200, _HEADERS)
            await exchange.write(b"retry: 500\n\n")
            await self._stream(exchange, shown)
            await exchange.write(b"", last=True)

    async def _stream(self, exchange: Exchange, shown: _Shown) -> None:
        # Asked before anything else: what changes from here on is told.
        known, silent = await self._standing(shown), 0
        shown.version = shown.version or version_of(known)
        while self._goes_on(shown):
            draft = self._draft(shown, known)
            if draft is not None and not draft.is_over:
                await exchange.write(_event("begin", {}))
                await self._follow(exchange, draft, shown)
                if not self._goes_on(shown):
                    return
                known = await self._standing(shown)
                await exchange.write(_event("over", self._ending(exchange, draft)))
            elif shown.is_live and draft is not None and draft.is_temporary:
                await exchange.write(_event("over", self._ending(exchange, draft)))
            elif shown.is_live or shown.version != version_of(known):
                await exchange.write(_event("changed", {}))
            shown.is_live, shown.seq, shown.version = False, 0, version_of(known)
            await self._pause(TICK_S)
            now = await self._standing(shown)
            silent = silent + 1 if now == known else 0
            if now[0] != known[0]:
                await exchange.write(_event("list", {}))
            elif silent and silent % SILENCE_TICKS == 0:
                await exchange.write(b": nothing new\n\n")
            known = now

    def _draft(self, shown: _Shown, known: tuple[object, ...]) -> Draft | None:
        """The answer under way; one that another program asked for is read along."""
        drafts = self._frame.drafts
        draft = drafts.find(shown.caller, shown.key) if shown.key else None
        if (draft is None or draft.is_over) and (turn := open_turn(known)):
            return drafts.read_along(shown.caller, shown.key, turn)
        return draft

    def _goes_on(self, shown: _Shown) -> bool:
        return not self._closing.is_set() and shown.may_stay()

    async def _follow(self, exchange: Exchange, draft: Draft, shown: _Shown) -> None:
        """Send an answer from the moment that is shown on, until it is over."""
        seq = shown.seq
        while self._goes_on(shown):
            await draft.render()
            if draft.seq > seq:
                await exchange.write(_event("patch", draft.since(seq), draft.seq))
                seq = draft.seq
            elif draft.is_over:
                return
            else:
                await draft.wait(TICK_S)

    def _ending(self, exchange: Exchange, draft: Draft) -> dict[str, object]:
        """A page asks for what is kept; the end of what is not kept comes with the event."""
        if not draft.is_temporary:
            return {}
        cookies = exchange.header(b"cookie")
        chosen = next((one[5:] for one in cookies.split("; ") if one.startswith("lang=")), "")
        words = texts(chosen_language(chosen, exchange.header(b"accept-language")))
        article = self._frame.writer(words).unkept(draft)
        return {"html": article, "text": draft.completion.text, "failed": draft.error is not None}

    async def _standing(self, shown: _Shown) -> tuple[object, ...]:
        stored = "" if shown.key.startswith(TEMPORARY) else shown.key
        listed, *one = await self._frame.gateway.conversations.shelf.standing(shown.caller.name, stored)
        return ((listed, self._frame.arranged), *one)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return


def _event(name: str, content: dict[str, object], id: int | None = None) -> bytes:
    numbered = f"id: {id}\n" if id is not None else ""
    return (
        f"{numbered}event: {name}\ndata: {msgspec.json.encode(content, enc_hook=str).decode()}\n\n".encode()
    )

"""Tells an open page what happens: the answer under way, piece by piece, and that something else changed."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

import msgspec

from modelway.page.drafts import Draft
from modelway.page.frame import SECURITY_HEADERS, Frame
from modelway.page.texts import chosen_language, texts
from modelway.server.exchange import Exchange, until_client_is_gone

TICK_S = 1.0
SILENCE_TICKS = 15

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
    *((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()),
]


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

    async def __call__(self, exchange: Exchange) -> None:
        """Stream until the page is closed."""
        query = parse_qs(exchange.scope["query_string"].decode("latin-1"))
        key = query.get("key", [""])[0]
        last_seen = exchange.header(b"last-event-id") or query.get("seq", ["0"])[0]
        seq = int(last_seen) if last_seen.isdigit() and len(last_seen) < 10 else 0
        with until_client_is_gone(exchange):
            await exchange.start(200, _HEADERS)
            await exchange.write(b"retry: 500\n\n")
            await self._stream(exchange, key, seq)
            await exchange.write(b"", last=True)

    async def _stream(self, exchange: Exchange, key: str, seq: int) -> None:
        known = await self._standing(exchange, key)
        silent = 0
        while not self._closing.is_set():
            draft = self._frame.drafts.find(exchange.caller, key) if key else None
            if draft is not None and not draft.is_over:
                await exchange.write(_event("begin", {"live": True}))
                await self._follow(exchange, draft, seq)
                seq, silent = 0, 0
                known = await self._standing(exchange, key)
                await exchange.write(_event("list", {}))
                continue
            await self._pause(TICK_S)
            now = await self._standing(exchange, key)
            if now != known:
                news = "changed" if now[1:] != known[1:] else "list"
                await exchange.write(_event(news, {}))
                known, silent = now, 0
                continue
            silent += 1
            if silent >= SILENCE_TICKS:
                await exchange.write(b": nothing new\n\n")
                silent = 0

    async def _follow(self, exchange: Exchange, draft: Draft, seq: int) -> None:
        """Send an answer from the moment `seq` on, until it is over."""
        while not self._closing.is_set():
            await draft.render()
            if draft.seq > seq:
                await exchange.write(_event("patch", draft.since(seq), draft.seq))
                seq = draft.seq
            elif draft.is_over:
                await exchange.write(_event("over", self._ending(exchange, draft)))
                return
            else:
                await draft.wait(TICK_S)

    def _ending(self, exchange: Exchange, draft: Draft) -> dict[str, object]:
        """A page asks for what is kept; the end of what is not kept comes with the event."""
        if not draft.key.startswith("temporary."):
            return {}
        cookies = exchange.header(b"cookie")
        chosen = next((one[5:] for one in cookies.split("; ") if one.startswith("lang=")), "")
        words = texts(chosen_language(chosen, exchange.header(b"accept-language")))
        article = self._frame.writer(words).unkept(draft)
        return {"html": article, "text": draft.completion.text, "failed": draft.error is not None}

    async def _standing(self, exchange: Exchange, key: str) -> tuple[object, ...]:
        stored = "" if key.startswith("temporary.") else key
        listed, *one = await self._frame.gateway.conversations.standing(exchange.caller.name, stored)
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

"""A browser without scripts: asks a real server for pages, and reads along with its events."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from modelway.auth import Auth
from modelway.gateway import Gateway
from modelway.provider import Provider
from modelway.types import Rules
from tests.serving import gateway_of, serving

HTML = {"accept": "text/html,application/xhtml+xml"}


class Browser:
    """Asks one server; `gateway` is what that server serves."""

    def __init__(self, http: httpx.AsyncClient, gateway: Gateway) -> None:
        self.http = http
        self.gateway = gateway

    async def get(self, address: str, **headers: str) -> httpx.Response:
        return await self.http.get(address, headers=HTML | headers)

    async def do(self, what: str, /, **body: Any) -> dict[str, Any]:
        reply = await self.http.post(f"/page/{what}", json=body)
        assert reply.status_code == 200, reply.text
        told: dict[str, Any] = reply.json()
        return told

    async def events(self, key: str, **query: int | str) -> AsyncIterator[tuple[str, Any]]:
        asked = {"key": key, **query}
        async with self.http.stream("GET", "/page/events", params=asked) as reply:
            name = ""
            async for line in reply.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "retry":
                    yield "open", None
                elif field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)

    async def until_over(self, key: str, **query: int | str) -> dict[str, Any]:
        """What the event at the end of an answer says."""
        async for name, told in self.events(key, live=1, **query):
            if name in ("over", "changed"):
                return dict(told)
        raise AssertionError("the stream of events ended")

    async def ask(self, text: str, **asked: Any) -> str:
        """Send a message and wait for the answer; the conversation's id."""
        sent = await self.do("send", text=text, **asked)
        await self.until_over(sent["key"])
        return str(sent["conversation"])

    async def thread(self, conversation: str) -> list[tuple[str, str]]:
        """The messages that the page of a conversation shows: the kind of each and its text."""
        html = (await self.get(f"/c/{conversation}")).text
        return messages(html)

    async def ids(self, conversation: str, kind: str) -> list[str]:
        html = (await self.get(f"/c/{conversation}")).text
        return re.findall(rf'<article id="([^"]+)" class="message {kind}"', html)


def messages(html: str) -> list[tuple[str, str]]:
    found = re.findall(r'<article [^>]*class="message ([a-z ]+)"[^>]*>(.*?)</article>', html, re.DOTALL)
    return [(kind, _text(body)) for kind, body in found]


def _text(html: str) -> str:
    bare = re.sub(r"<h2.*?</h2>|<footer.*?</footer>|<summary.*?</summary>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", bare).split())


@asynccontextmanager
async def browsing(
    providers: Sequence[Provider], folder: Path, auth: Auth | None = None, *, rules: Rules | None = None
) -> AsyncIterator[Browser]:
    """A browser before a server of these providers; with a key of the caller "ann" where it has rules."""
    gateway, headers = gateway_of(providers, folder), {}
    if rules is not None:
        key, _ = await gateway.conversations.callers.create("ann", rules)
        headers["authorization"] = f"Bearer {key}"
    async with (
        serving(gateway, auth) as url,
        httpx.AsyncClient(base_url=url, timeout=20, headers=headers) as http,
    ):
        yield Browser(http, gateway)

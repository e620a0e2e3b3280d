"""What is asked at every address that an upstream answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from modelway.config import ProviderSettings, Settings, UpstreamSettings
from modelway.provider import Provider
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import build_provider, load_presets
from modelway.testing import FakeUpstream
from tests.serving import gateway_of, serving

ASKED = {"messages": [{"role": "user", "content": "hi"}]}


class Call(NamedTuple):
    """One kind of request; `note` tells it from others at the same address."""

    path: str
    fields: dict[str, Any]
    note: str = ""
    can_stream: bool = True

    @property
    def is_relayed(self) -> bool:
        """Whether the upstream's reply is passed on as it is."""
        return self.note == "relayed"

    def body(self, *, stream: bool) -> dict[str, Any]:
        """What is sent."""
        return {"model": "Chats/model-a", "stream": stream, **self.fields}


CALLS = (
    Call("/v1/chat/completions", ASKED),
    Call("/v1/chat/completions", {**ASKED, "conversation_id": "c"}, "stored"),
    Call("/api/Chats/chat/completions", ASKED),
    Call("/v1/responses", {"input": "hi"}),
    Call("/v1/responses", {"input": "hi", "store": False}, "not stored"),
    Call("/v1/messages", {**ASKED, "max_tokens": 9}),
    Call("/api/chat", ASKED),
    Call("/api/generate", {"prompt": "hi"}),
    Call("/v1/completions", {"prompt": "hi"}, "as a chat"),
    Call("/v1/completions", {"prompt": ["hi", "there"]}, "as two chats"),
    Call("/v1/completions", {"prompt": "hi", "model": "Completes/model-a"}, "relayed"),
    Call("/v1/images/generations", {"prompt": "hi"}, "relayed"),
    Call("/v1/embeddings", {"input": "hi"}, "relayed"),
    Call("/api/embed", {"input": "hi"}, can_stream=False),
    Call("/api/embeddings", {"prompt": "hi"}, can_stream=False),
)
CASES = [(call, stream) for call in CALLS for stream in ((False, True) if call.can_stream else (False,))]


@asynccontextmanager
async def between(folder: Path, *providers: Provider) -> AsyncIterator[int]:
    """A server before these providers; gives its port."""
    settings = Settings(provider=providers[0].info.name)
    async with serving(gateway_of(providers, folder, settings)) as address:
        yield int(address.rpartition(":")[2])


@asynccontextmanager
async def answering_all(folder: Path, upstream: FakeUpstream) -> AsyncIterator[int]:
    """A server that has somebody to ask for each of the calls; gives its port."""
    async with aclosing(HTTPClient(UpstreamSettings())) as http:
        own = ProviderSettings(base_url=upstream.url, default_model="model-a")
        chats = build_provider("Chats", None, own, http, lambda env, file: "key")
        completes = build_provider("Completes", load_presets()["vLLM"], own, http, lambda env, file: "key")
        async with between(folder, chats, completes) as port:
            yield port


def post(path: str, body: dict[str, Any]) -> bytes:
    """A request as it is sent."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content

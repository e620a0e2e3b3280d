"""Anthropic's addresses: chats with the features that a header turns on, and counts of tokens."""

from __future__ import annotations

import re

from msgspec.structs import replace

from modelway.dialects import anthropic_messages
from modelway.errors import InvalidRequest
from modelway.gateway import Gateway
from modelway.server.chat import ChatEndpoint
from modelway.server.counting import counted, named
from modelway.server.exchange import Exchange
from modelway.server.formats import ANTHROPIC_VERSION
from modelway.types import ChatRequest

BETA_HEADER = b"anthropic-beta"
_is_list = re.compile(r"[A-Za-z0-9._-]{1,128}(?:\s*,\s*[A-Za-z0-9._-]{1,128})*").fullmatch


class AnthropicEndpoints:
    """What programs written for Anthropic ask; `chat` reads and answers their requests."""

    def __init__(self, gateway: Gateway, chat: ChatEndpoint) -> None:
        self._gateway = gateway
        self._chat = chat

    async def messages(self, exchange: Exchange) -> None:
        """Answer a chat."""
        await self._chat(exchange)

    async def count_tokens(self, exchange: Exchange) -> None:
        """How many tokens the provider counts in a request; NotFound where it counts none."""
        tokens = await counted(self._gateway, exchange, await self._chat.read(exchange))
        await exchange.reply(200, anthropic_messages.encode_count(tokens), named(exchange))


def with_headers(request: ChatRequest, exchange: Exchange) -> ChatRequest:
    """The request with what the headers of the format say: its version, and features that are turned on."""
    request = _with_version(request, exchange.header(ANTHROPIC_VERSION))
    if BETA_HEADER not in exchange.headers:
        return request
    written = [value.decode("latin-1") for name, value in exchange.scope["headers"] if name == BETA_HEADER]
    if not all(map(_is_list, written)):
        raise InvalidRequest("the header anthropic-beta must be names with commas between them")
    said = [name.strip() for line in written for name in line.split(",")]
    features = dict.fromkeys([*request.extra.get(anthropic_messages.BETA, ()), *said])
    return replace(request, extra={**request.extra, anthropic_messages.BETA: list(features)})


def _with_version(request: ChatRequest, version: str) -> ChatRequest:
    """The request with the version of the format that its header names, which Anthropic is told."""
    if not version:
        return request
    if not anthropic_messages.is_version(version):
        raise InvalidRequest(
            f"the header anthropic-version is no version: {version[:40]!r}",
            hint=f"send {anthropic_messages.VERSION}",
        )
    return replace(request, extra={**request.extra, anthropic_messages.VERSION_SPOKEN: version})

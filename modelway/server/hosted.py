"""POST /v1/responses: passed on as it is where it asks for tools that only an upstream can run."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from modelway.dialects.openai_responses import references
from modelway.errors import InvalidRequest
from modelway.server.chat import ChatEndpoint
from modelway.server.exchange import Exchange, addressed
from modelway.server.relay import RelayEndpoint

SUPPORTED = "responses"
# Tools that the client runs itself, and that every provider can be told.
_OF_CALLERS = frozenset({"function", "custom", "namespace"})
# With these the turn would have to be kept here, without what its tools have found.
_KEPT = ("background", "conversation", "conversation_id", "previous_response_id", "store")


class _Tool(Struct):
    type: str = ""


class _Asked(Struct):
    tools: list[_Tool] | None = None
    provider: str | None = None
    model: str | None = None


class HostedTools:
    """Answers responses; `relay` passes on those with tools of an upstream that has the address."""

    def __init__(self, chat: ChatEndpoint, relay: RelayEndpoint, *, max_body_bytes: int) -> None:
        self._chat = chat
        self._relay = relay
        self._max_body_bytes = max_body_bytes

    async def __call__(self, exchange: Exchange) -> None:
        """Pass the request on, or answer it as a chat."""
        body = await exchange.body(self._max_body_bytes)
        asked = _read(body) if b'"tools"' in body else None
        tool = _hosted(asked)
        if asked is None or not tool or not self._has_it(exchange, asked):
            await self._chat(exchange)
            return
        await self._relay.pass_on(exchange, SUPPORTED, _not_kept(exchange, body, tool))

    def _has_it(self, exchange: Exchange, asked: _Asked) -> bool:
        return self._relay.finds(exchange, SUPPORTED, asked.provider or "", asked.model or "")


def is_plain(body: bytes) -> bool:
    """Whether no tool of an upstream's own can be asked for, and nothing that is kept is referred to."""
    return b'"tools"' not in body and not references(body)


def _read(body: bytes) -> _Asked | None:
    try:
        return msgspec.json.decode(body, type=_Asked)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Whoever answers chats says what is wrong with it.
        return None


def _hosted(asked: _Asked | None) -> str:
    """The first tool that is none of the caller's own; "" where all are."""
    tools = (asked.tools if asked is not None else None) or ()
    return next((tool.type for tool in tools if tool.type and tool.type not in _OF_CALLERS), "")


def _not_kept(exchange: Exchange, body: bytes, tool: str) -> bytes:
    """The body for an upstream that is to keep nothing, as nothing is kept here."""
    fields = msgspec.json.decode(body, type=dict[str, Raw])
    header = b"x-modelway-conversation-id"
    asked = [name for name in _KEPT if bytes(fields.get(name, b"")) not in (b"", b"null", b"false")]
    if asked or addressed(exchange, "conversation_id", header, ""):
        param = asked[0] if asked else "conversation_id"
        raise InvalidRequest(
            f"`{param}` cannot be used together with the tool {tool[:40]!r}, which only the upstream has: "
            "such a response is passed on, and not kept",
            param=param,
            code="unsupported_parameter",
            hint="leave it out, and send the whole input each time",
        )
    for name in _KEPT:
        fields.pop(name, None)
    return msgspec.json.encode({**fields, "store": False})

"""What a door to Copilot is, and where a conversation stands behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from modelway.providers.copilot.profiles import Transport
from modelway.types import ChatRequest, Event, Model


class Lost(Exception):
    """The upstream no longer takes turns of this conversation."""


class State(Struct, frozen=True):
    """Where a conversation stands upstream, and under which conditions it may go on there."""

    transport: Transport
    account: str
    conversation: str
    instructions_hash: str

    def as_dict(self) -> dict[str, Any]:
        """As the store keeps it."""
        return msgspec.structs.asdict(self)


def known_conversation(request: ChatRequest, state: State) -> str:
    """The upstream's conversation, if this turn can go on in it; else "". `state` is the one it needs."""
    saved = request.upstream_state or {}
    conversation = saved.get("conversation")
    if not isinstance(conversation, str):
        return ""
    wanted = {**state.as_dict(), "conversation": conversation}
    return conversation if saved == wanted else ""


class Door(Protocol):
    """One way to Copilot. See Provider for what stream() promises."""

    transport: Transport
    label: str
    url: str
    default_model: str
    supports: tuple[str, ...]
    params: tuple[str, ...]

    def credential_source(self) -> str:
        """Where the sign-in is kept; "" where nobody has signed in.

        GatewayError where there is one that cannot be used.
        """
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer with one turn; in a new conversation with all of the history where the old one is lost."""
        ...

    async def models(self) -> list[Model]:
        """The models that can be asked for."""
        ...

    async def aclose(self) -> None:
        """Give everything back."""
        ...

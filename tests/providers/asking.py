"""Asks a provider in tests: for all events of an answer, or for the error that there is instead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Protocol

import pytest

from modelway.errors import GatewayError
from modelway.types import ChatRequest, Event, Message, Part

STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


class Events(Protocol):
    """An answer under way."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    def aclose(self) -> Awaitable[object]: ...


class Streams(Protocol):
    """A provider, or a part of one that answers by itself."""

    def stream(self, request: ChatRequest) -> Events: ...


async def events_of(provider: Streams, request: ChatRequest) -> list[Event]:
    """The whole answer."""
    async with aclosing(provider.stream(request)) as events:
        return [event async for event in events]


async def failure(provider: Streams, request: ChatRequest) -> GatewayError:
    """Why there is no answer, or no end of one."""
    with pytest.raises(GatewayError) as caught:
        await events_of(provider, request)
    return caught.value


def said(*parts: Part) -> Message:
    """What a user says in parts."""
    return Message(role="user", content=parts)

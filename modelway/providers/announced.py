"""Providers that are known by name and cannot answer yet: they say why, and what to do instead."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from modelway.errors import GatewayError
from modelway.provider import ProviderInfo
from modelway.types import ChatRequest, Event, Model


class Announced:
    """A provider that answers every request with the same error."""

    def __init__(self, info: ProviderInfo, error: type[GatewayError], hint: str) -> None:
        self.info = info
        self._error = error
        self._hint = hint

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Raise the error."""
        raise self._error(self.info.missing, hint=self._hint)
        # Makes this an asynchronous generator, as the protocol asks.
        yield  # type: ignore[unreachable]

    async def models(self) -> list[Model]:
        """None: there is nothing to ask."""
        return []

    async def aclose(self) -> None:
        """Nothing is held."""

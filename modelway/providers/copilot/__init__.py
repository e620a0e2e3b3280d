"""Copilot: GitHub's or Microsoft 365's, through the first door that somebody has signed in to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing

from modelway.config import CopilotSettings
from modelway.errors import GatewayError, ProviderNotConfigured
from modelway.provider import ProviderInfo, SignInCode
from modelway.providers.copilot.by_code import CodeSignIn
from modelway.providers.copilot.door import Door
from modelway.providers.copilot.refusals import HINT, sign_in_required
from modelway.providers.copilot.sign_ins import SignIns
from modelway.providers.http import HTTPClient
from modelway.types import ChatRequest, Event, Model

__all__ = ["Copilot", "SignIns"]

NOBODY = "nobody has signed in to Copilot here"


class Copilot:
    """The provider. `doors` come in the order of preference; they and `http` are its own."""

    def __init__(
        self,
        settings: CopilotSettings,
        doors: Sequence[Door],
        *,
        http: HTTPClient,
        by_code: CodeSignIn | None = None,
    ) -> None:
        self._by_code = by_code
        self._doors = doors
        self._http = http
        self._places = asyncio.Semaphore(settings.max_concurrency)

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; not ready as long as nobody has signed in."""
        found, source, missing = None, "", f"{NOBODY}: {HINT}"
        try:
            found, source = next(self._open_doors(), (None, ""))
        except GatewayError as error:
            missing = error.explanation
        door = found or self._doors[0]
        return ProviderInfo(
            name="Copilot",
            label=door.label,
            url=door.url,
            default_model=door.default_model,
            models=(door.default_model,),
            needs_auth=True,
            credential_source=source,
            supports=door.supports,
            params=door.params,
            stateful=True,
            ready=found is not None,
            missing="" if found else missing,
        )

    @property
    def can_sign_in(self) -> bool:
        """Whether an application is registered, so that a code can be asked for."""
        return self._by_code is not None and self._by_code.transport is not None

    async def sign_in(self, show: Callable[[SignInCode], None]) -> str:
        """Sign in with a code; see SignsIn."""
        if self._by_code is None:
            raise ProviderNotConfigured("nobody can sign in to Copilot here")
        return await self._by_code(show)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer with one turn, through the door that the conversation is held behind."""
        door = self._door(request)
        async with self._places, aclosing(door.stream(request)) as events:
            async for event in events:
                yield event

    async def models(self) -> list[Model]:
        """What the first open door offers."""
        door, _ = next(self._open_doors(), (self._doors[0], ""))
        return await door.models()

    async def aclose(self) -> None:
        """Close the doors and the connections."""
        for door in self._doors:
            await door.aclose()
        await self._http.aclose()

    def _door(self, request: ChatRequest) -> Door:
        """The door of the conversation, which never changes by itself; else the first with a sign-in."""
        before = (request.upstream_state or {}).get("transport")
        for door in self._doors:
            if door.transport == before:
                if not door.credential_source():
                    raise sign_in_required(f"nobody has signed in to {door.label} here any more")
                return door
        for door, _ in self._open_doors():
            return door
        raise sign_in_required(NOBODY)

    def _open_doors(self) -> Iterator[tuple[Door, str]]:
        for door in self._doors:
            if source := door.credential_source():
                yield door, source

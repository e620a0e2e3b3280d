"""Microsoft 365 Copilot, which keeps the conversation itself: each turn sends only what is new."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from msgspec import Struct

from modelway.config import CopilotSettings
from modelway.errors import GatewayError, UpstreamError, UpstreamProtocolError
from modelway.provider import ProviderInfo
from modelway.providers.copilot.asked import MODEL, Asked, read
from modelway.providers.copilot.m365 import M365, Lost
from modelway.providers.copilot.profiles import (
    PROFILES,
    authority_of,
    base_url_of,
    time_zone_of,
    transports_of,
)
from modelway.providers.copilot.refusals import HINT, sign_in_required
from modelway.providers.copilot.sign_ins import SignIn, SignIns
from modelway.providers.copilot.signin import AccessTokens
from modelway.providers.copilot.snapshots import Snapshots
from modelway.providers.http import HTTPClient, Response
from modelway.types import ChatRequest, Event, Finish, Model, TextDelta, UpstreamState

__all__ = ["Copilot", "SignIns"]

NOBODY = "nobody has signed in to Copilot here"


class State(Struct, frozen=True):
    """Where a conversation stands upstream, and under which conditions it may go on there."""

    transport: str
    account: str
    conversation: str
    instructions_hash: str


class _Door(Struct, frozen=True):
    """One transport, with whoever has signed in to it."""

    sign_in: SignIn
    m365: M365

    def state(self, asked: Asked, conversation: str) -> State:
        sign_in = self.sign_in
        return State(sign_in.transport, sign_in.account, conversation, asked.instructions_hash)


class Copilot:
    """The provider. `http` is its own, and is closed with it."""

    def __init__(self, settings: CopilotSettings, *, http: HTTPClient, sign_ins: SignIns) -> None:
        self._settings = settings
        self._http = http
        authority = authority_of(settings)
        self._tokens = {
            name: AccessTokens(PROFILES[name], authority, http=http, sign_ins=sign_ins)
            for name in transports_of(settings)
        }
        self._doors = {
            name: M365(PROFILES[name], base_url_of(PROFILES[name], settings), tokens.token, http=http)
            for name, tokens in self._tokens.items()
        }

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; not ready as long as nobody has signed in."""
        found, missing = None, f"{NOBODY}: {HINT}"
        try:
            found = next(self._signed_in(), None)
        except GatewayError as error:
            missing = error.explanation
        profile = PROFILES[found.transport if found else next(iter(self._tokens))]
        return ProviderInfo(
            name="Copilot",
            label=profile.label,
            url=profile.url,
            default_model=MODEL,
            models=(MODEL,),
            needs_auth=True,
            supports=("system",),
            stateful=True,
            ready=found is not None,
            missing="" if found else missing,
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer with one turn; in a new conversation with all of the history where the old one is lost."""
        door = self._door(request)
        asked = read(request)
        known = _known_conversation(request, door, asked)
        for conversation in (known, "") if known else ("",):
            try:
                async with aclosing(self._answer(request.stream, door, asked, conversation)) as events:
                    async for event in events:
                        yield event
            except Lost:
                continue
            return
        raise UpstreamProtocolError("Copilot has no trace of the conversation that it has just opened")

    async def models(self) -> list[Model]:
        """The one name there is: the upstream offers no choice."""
        return [Model(MODEL)]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _answer(
        self, stream: bool, door: _Door, asked: Asked, known: str
    ) -> AsyncGenerator[Event, None]:
        """One attempt; Lost only before its first event. Without `stream`, the text comes in one piece."""
        conversation = known or await _opened(door.m365)
        snapshots = Snapshots(asked.prompt)
        response = await self._say(door, asked, conversation, is_known=bool(known))
        async with aclosing(response), aclosing(door.m365.read(response)) as items:
            async for item in items:
                delta = snapshots.feed(item)
                if delta and stream:
                    yield TextDelta(text=delta)
        if not snapshots.text and snapshots.disengaged and known:
            raise Lost
        rest = snapshots.close() if stream else snapshots.text
        _check_end(snapshots)
        if rest:
            yield TextDelta(text=rest)
        for citation in snapshots.citations:
            yield citation
        if snapshots.disengaged:
            yield Finish(reasons=("content_filter",), model=MODEL)
            return
        yield UpstreamState(_as_dict(door.state(asked, conversation)))
        yield Finish(model=MODEL)

    async def _say(self, door: _Door, asked: Asked, conversation: str, *, is_known: bool) -> Response:
        settings = self._settings
        turn = asked.turn(is_known=is_known, time_zone=time_zone_of(settings), web=settings.web)
        return await door.m365.say(conversation, turn)

    def _door(self, request: ChatRequest) -> _Door:
        """The transport that the conversation is held on, else the first with a sign-in."""
        signed_in = list(self._signed_in())
        if not signed_in:
            raise sign_in_required(NOBODY)
        before = (request.upstream_state or {}).get("transport")
        sign_in = next((one for one in signed_in if one.transport == before), signed_in[0])
        return _Door(sign_in, self._doors[sign_in.transport])

    def _signed_in(self) -> Iterator[SignIn]:
        for tokens in self._tokens.values():
            if sign_in := tokens.sign_in():
                yield sign_in


async def _opened(m365: M365) -> str:
    try:
        return await m365.open()
    except UpstreamError as error:
        if error.retryable:
            # The turn itself has not been sent.
            error.sent = False
        raise


def _known_conversation(request: ChatRequest, door: _Door, asked: Asked) -> str:
    """The upstream's conversation, if this turn can go on in it; else ""."""
    state = request.upstream_state or {}
    conversation = state.get("conversation")
    if not isinstance(conversation, str) or state != _as_dict(door.state(asked, conversation)):
        return ""
    return conversation


def _as_dict(state: State) -> dict[str, object]:
    return {field: getattr(state, field) for field in state.__struct_fields__}


def _check_end(snapshots: Snapshots) -> None:
    if snapshots.disengaged:
        return
    if not snapshots.text:
        raise UpstreamProtocolError(
            "Copilot ended without an answer",
            hint="send the message again; for a new tenant the index may not be ready",
        )
    if not snapshots.ended:
        raise UpstreamProtocolError("the answer of Copilot was cut off", code="upstream_truncated")

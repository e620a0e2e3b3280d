"""Microsoft 365 Copilot, which keeps the conversation itself: each turn sends only what is new."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from modelway.config import CopilotSettings
from modelway.errors import ModelNotFound, UpstreamError, UpstreamProtocolError
from modelway.providers.copilot.access_tokens import AccessTokens
from modelway.providers.copilot.asked import Asked, read
from modelway.providers.copilot.door import Lost, State, known_conversation
from modelway.providers.copilot.m365 import M365, Answer
from modelway.providers.copilot.profiles import (
    Profile,
    Transport,
    authority_of,
    base_url_of,
    time_zone_of,
)
from modelway.providers.copilot.refusals import sign_in_required
from modelway.providers.copilot.sign_ins import SignIns
from modelway.providers.copilot.snapshots import Snapshots
from modelway.providers.http import HTTPClient
from modelway.types import ChatRequest, Event, Finish, Model, TextDelta, UpstreamState

MODEL = "m365-copilot"


class MicrosoftDoor:
    """Work IQ or Graph, for the account that has signed in. `http` is not its own."""

    supports: tuple[str, ...] = ("system",)
    params: tuple[str, ...] = ()
    default_model = MODEL

    def __init__(
        self, profile: Profile, settings: CopilotSettings, *, http: HTTPClient, sign_ins: SignIns
    ) -> None:
        self.transport: Transport = profile.transport
        self.label = profile.label
        self.url = profile.url
        self._settings = settings
        self._tokens = AccessTokens(profile, authority_of(settings), http=http, sign_ins=sign_ins)
        self._m365 = M365(profile, base_url_of(profile, settings), self._tokens.token, http=http)

    def credential_source(self) -> str:
        """Where the sign-in is kept, "" where there is none."""
        sign_in = self._tokens.sign_in()
        return sign_in.kept if sign_in else ""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer with one turn; in a new conversation with all of the history where the old one is lost."""
        _refuse_models(request)
        asked = read(request, takes_images=False)
        sign_in = self._tokens.sign_in()
        if sign_in is None:
            raise sign_in_required()
        state = State(self.transport, sign_in.account, "", asked.instructions_hash)
        known = known_conversation(request, state)
        for conversation in (known, "") if known else ("",):
            try:
                async with aclosing(self._answer(request.stream, state, asked, conversation)) as events:
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
        """Nothing is held."""

    async def _answer(
        self, stream: bool, state: State, asked: Asked, known: str
    ) -> AsyncGenerator[Event, None]:
        """One attempt; Lost only before its first event. Without `stream`, the text comes in one piece."""
        conversation = known or await self._opened()
        snapshots = Snapshots(asked.prompt)
        answer = await self._say(asked, conversation, is_known=bool(known))
        async with aclosing(answer), aclosing(answer.snapshots()) as items:
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
        yield UpstreamState({**state.as_dict(), "conversation": conversation})
        yield Finish(model=MODEL)

    async def _opened(self) -> str:
        try:
            return await self._m365.open()
        except UpstreamError as error:
            if error.retryable:
                # The turn itself has not been sent.
                error.sent = False
            raise

    async def _say(self, asked: Asked, conversation: str, *, is_known: bool) -> Answer:
        settings = self._settings
        context = [{"text": asked.instructions, "description": "Instructions"}] if asked.instructions else []
        context += [
            {"text": text, "description": "Earlier conversation"} for text in asked.earlier(is_known=is_known)
        ]
        turn: dict[str, Any] = {
            "message": {"text": asked.prompt},
            "locationHint": {"timeZone": time_zone_of(settings)},
        }
        if context:
            turn["additionalContext"] = context
        if not settings.web:
            # It is on by default, and turned off for one turn only.
            turn["contextualResources"] = {"webContext": {"isWebEnabled": False}}
        return await self._m365.say(conversation, turn)


def _refuse_models(request: ChatRequest) -> None:
    if request.model not in ("", MODEL):
        raise ModelNotFound(
            "Microsoft 365 Copilot does not let its callers choose a model",
            hint=f'leave `model` out, or name "{MODEL}"',
            param="model",
            failover=True,
        )


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

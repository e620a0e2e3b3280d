"""GitHub Copilot through its official SDK, whose runtime keeps the conversation."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from hashlib import sha256
from pathlib import Path

from modelway.config import CopilotSettings
from modelway.errors import (
    GatewayError,
    InvalidRequest,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelway.providers.copilot.asked import Asked, read
from modelway.providers.copilot.door import Lost, State, known_conversation
from modelway.providers.copilot.github_account import Credential, account_of, credential_of, token_of
from modelway.providers.copilot.github_failures import unknown_model
from modelway.providers.copilot.launching import launch_of, require_runtime, start
from modelway.providers.copilot.profiles import LABELS, Transport
from modelway.providers.copilot.refusals import sign_in_required
from modelway.providers.copilot.runtime import (
    Client,
    Died,
    Launch,
    OfferedModel,
    Options,
    Runtime,
    Session,
    Start,
)
from modelway.providers.copilot.sign_ins import SignIns
from modelway.types import ChatRequest, Event, Finish, Model, TextDelta, UpstreamState

MODEL = "github-copilot"
EFFORTS = ("low", "medium", "high", "xhigh", "max")
MODELS_S = 600.0
PULSE_S = 2.0
LEAVE_S = 5.0
UNUSED_S = 30 * 86_400.0


class GitHubDoor:
    """GitHub Copilot, for the account that has signed in.

    `home` is the runtime's directory where the settings name none; `variable` reads the environment.
    """

    transport: Transport = "github"
    label = LABELS["github"]
    url = "https://github.com/features/copilot"
    supports: tuple[str, ...] = ("system", "images", "reasoning")
    params: tuple[str, ...] = ("reasoning_effort",)

    def __init__(
        self,
        settings: CopilotSettings,
        *,
        sign_ins: SignIns,
        home: Path,
        variable: Callable[[str], str],
        start: Start = start,
        pulse_s: float = PULSE_S,
    ) -> None:
        self.default_model = settings.default_model or MODEL
        self._settings = settings
        self._sign_ins = sign_ins
        self._home = home
        self._variable = variable
        self._pulse_s = pulse_s
        self._runtime = Runtime(start)
        self._offered: dict[str, tuple[float, list[OfferedModel]]] = {}

    def credential_source(self) -> str:
        """Where the credential is kept, "" where there is none."""
        found = credential_of(self._settings, self._sign_ins, self._variable)
        if found is None:
            return ""
        require_runtime(self._settings, self._variable)
        return found.source

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer with one turn; in a new conversation with all of the history where the old one is lost."""
        credential = self._credential()
        asked = read(request, takes_images=True)
        options = _options(request, asked)
        talk: _Talk | None = None
        try:
            async with self._runtime.using(await self._launch(credential)) as client:
                await self._check(client, credential, asked, options)
                talk = await _opened(client, credential, request, asked, options)
                async with aclosing(self._turn(client, talk, asked)) as events:
                    async for event in events:
                        yield event
        except Died as died:
            raise UpstreamUnreachable(
                f"the runtime of GitHub Copilot has ended: {str(died) or 'it does not answer'}",
                hint="send the message again",
                sent=talk is not None and talk.is_sent,
            ) from None

    async def models(self) -> list[Model]:
        """What the account may use, and the name that leaves the choice to GitHub."""
        credential = self._credential()
        try:
            async with self._runtime.using(await self._launch(credential)) as client:
                offered = await self._models(client, credential)
        except Died as died:
            raise UpstreamUnreachable(f"the runtime of GitHub Copilot has ended: {died}") from None
        own = Model(MODEL, owned_by="GitHub")
        return [
            own,
            *(Model(one.id, owned_by="GitHub", context_length=one.context_length) for one in offered),
        ]

    async def aclose(self) -> None:
        """End the runtime."""
        await self._runtime.aclose()

    async def who(self, token: str) -> str:
        """The name of the account of a token; the token is asked for what it may use, which proves it."""
        credential = Credential("", account_of(token), token)
        try:
            async with self._runtime.using(await self._launch(credential)) as client:
                await self._models(client, credential)
                return await client.account()
        except Died as died:
            raise UpstreamUnreachable(f"the runtime of GitHub Copilot has ended: {died}") from None

    def _credential(self) -> Credential:
        found = credential_of(self._settings, self._sign_ins, self._variable)
        if found is None:
            raise sign_in_required("nobody has signed in to GitHub Copilot here")
        return found

    async def _launch(self, credential: Credential) -> Launch:
        token = await token_of(credential, self._sign_ins)
        return await launch_of(self._settings, self._home, token, self._variable)

    async def _check(self, client: Client, credential: Credential, asked: Asked, options: Options) -> None:
        """Fail early: a credential that is not good would be met with a long silence."""
        offered = await self._models(client, credential)
        usable = [one for one in offered if options.model in (None, one.id)]
        if offered and not usable:
            # The runtime would answer with another one.
            unknown = unknown_model(f'this account at GitHub Copilot has no model "{options.model}"')
            unknown.others = [one.id for one in offered]
            raise unknown
        if asked.images and usable and not any(one.sees_images for one in usable):
            raise InvalidRequest(
                f"{options.model or 'no model of this account'} does not take images",
                param="messages",
                code="unsupported_content",
            )

    async def _models(self, client: Client, credential: Credential) -> list[OfferedModel]:
        if self._settings.github.base_url:
            return []
        until, offered = self._offered.get(credential.account, (0.0, []))
        if until < time.monotonic():
            offered = await client.models()
            self._offered = {credential.account: (time.monotonic() + MODELS_S, offered)}
            await client.forget_older_than(UNUSED_S)
        return offered

    async def _turn(self, client: Client, talk: _Talk, asked: Asked) -> AsyncGenerator[Event, None]:
        session, finish, has_text = talk.session, None, False
        try:
            talk.is_sent = True
            await session.send(_prompt(asked, is_known=talk.is_known), asked.images)
            while finish is None:
                event = await self._next(client, session)
                if isinstance(event, Finish):
                    finish = event
                elif event is not None:
                    has_text = has_text or isinstance(event, TextDelta)
                    yield event
        finally:
            await _leave(client, talk, is_done=finish is not None)
        if not has_text and finish.reason == "stop":
            raise UpstreamProtocolError("Copilot ended without an answer", hint="send the message again")
        if talk.is_kept:
            yield UpstreamState({**talk.state.as_dict(), "conversation": talk.name})
        yield finish

    async def _next(self, client: Client, session: Session) -> Event | None:
        """What comes next; while nothing does, look whether the runtime is still there."""
        limit = self._settings.idle_timeout_s
        until = time.monotonic() + limit
        while (left := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                return await asyncio.wait_for(session.next(), min(left, self._pulse_s))
            await client.check()
        raise UpstreamTimeout(
            f"GitHub Copilot was silent for {limit:g} seconds",
            hint="send the message again; `modelway status copilot` tells whether the sign-in is there",
        )


class _Talk:
    """A conversation that is open, and how its turn goes."""

    def __init__(self, session: Session, name: str, state: State, *, is_known: bool, is_kept: bool) -> None:
        self.session = session
        self.name = name
        self.state = state
        self.is_known = is_known
        self.is_kept = is_kept
        self.is_sent = False


async def _opened(
    client: Client, credential: Credential, request: ChatRequest, asked: Asked, options: Options
) -> _Talk:
    """The conversation of the turn before, or a new one."""
    state = State("github", credential.account, "", asked.instructions_hash)
    known = known_conversation(request, state)
    is_kept = bool(request.conversation_id)
    if known:
        with suppress(Lost):
            session = await client.open(known, options, resume=True)
            return _Talk(session, known, state, is_known=True, is_kept=is_kept)
    name = _new_name(credential, request)
    session = await client.open(name, options, resume=False)
    return _Talk(session, name, state, is_known=False, is_kept=is_kept)


def _new_name(credential: Credential, request: ChatRequest) -> str:
    """The runtime's id of a conversation. Two callers may use one conversation_id, so the turn counts too."""
    turn = request.turn_id or uuid.uuid4().hex
    written = f"{credential.account}|{request.conversation_id}|{turn}"
    return "mw-" + sha256(written.encode()).hexdigest()[:32]


def _options(request: ChatRequest, asked: Asked) -> Options:
    effort = request.params.reasoning_effort
    if effort is not None and effort not in EFFORTS:
        raise InvalidRequest(
            f"GitHub Copilot knows no reasoning effort {effort[:40]!r}",
            hint="it knows " + ", ".join(EFFORTS),
            param="reasoning_effort",
        )
    model = None if request.model in ("", MODEL) else request.model
    return Options(asked.instructions, model, effort)


def _prompt(asked: Asked, *, is_known: bool) -> str:
    """The prompt, after what the upstream has not seen."""
    earlier = asked.earlier(is_known=is_known)
    if not earlier:
        return asked.prompt
    told = "\n\n".join(earlier)
    return f"<earlier_conversation>\n{told}\n</earlier_conversation>\n\n{asked.prompt}"


async def _leave(client: Client, talk: _Talk, *, is_done: bool) -> None:
    """Give the memory back. A turn that failed would stay in the runtime's history: that is deleted."""
    with suppress(Died, Lost, GatewayError, TimeoutError):
        async with asyncio.timeout(LEAVE_S):
            if not is_done:
                await talk.session.abort()
            await talk.session.close()
            if not (is_done and talk.is_kept):
                await client.delete(talk.name)

"""Signs in to Copilot with a code while the server runs: the person enters it in any browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from modelway.config import CopilotSettings
from modelway.errors import ProviderNotConfigured
from modelway.provider import SignInCode
from modelway.providers.copilot import device
from modelway.providers.copilot.device import Prompt, Sleep
from modelway.providers.copilot.github_account import account_of
from modelway.providers.copilot.profiles import PROFILES, Transport, authority_of, transports_of
from modelway.providers.copilot.sign_ins import SignIn, SignIns
from modelway.providers.http import HTTPClient

Show = Callable[[SignInCode], None]


class CodeSignIn:
    """Signs in to the first door for which an application is registered.

    `who` asks GitHub whose a token is.
    """

    def __init__(
        self,
        settings: CopilotSettings,
        sign_ins: SignIns,
        http: HTTPClient,
        who: Callable[[str], Awaitable[str]],
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._sign_ins = sign_ins
        self._http = http
        self._who = who
        self._sleep = sleep

    @property
    def transport(self) -> Transport | None:
        """The door that can be signed in to; None where no application is registered."""
        for transport in transports_of(self._settings):
            registered = (
                self._settings.github.client_id if transport == "github" else self._settings.client_id
            )
            if registered:
                return transport
        return None

    async def __call__(self, show: Show) -> str:
        """Show a code and wait until somebody has entered it; the name of the account."""
        transport = self.transport
        if transport is None:
            raise ProviderNotConfigured(
                "no application is registered to sign in to Copilot with",
                hint="set [copilot] client_id or [copilot.github] client_id; docs/copilot.md says how",
            )
        sign_in = await (
            self._at_github(show) if transport == "github" else self._at_microsoft(transport, show)
        )
        await asyncio.to_thread(self._sign_ins.save, sign_in)
        return sign_in.username

    async def _at_microsoft(self, transport: Transport, show: Show) -> SignIn:
        assert transport != "github"  # noqa: S101 - tells the type checker
        profile, authority = PROFILES[transport], authority_of(self._settings, transport)
        prompt = await device.begin(self._http, authority, profile)
        show(_code(prompt, profile.notice))
        return await device.wait(self._http, authority, profile, prompt, sleep=self._sleep)

    async def _at_github(self, show: Show) -> SignIn:
        authority = authority_of(self._settings, "github")
        prompt = await device.begin_at_github(self._http, authority)
        show(_code(prompt, ""))
        token = await device.token_of_github(self._http, authority, prompt, sleep=self._sleep)
        try:
            name, tried = await self._who(token), True
        except ProviderNotConfigured:
            # Without its runtime nobody can ask; the first chat will show.
            name, tried = "", False
        return SignIn(
            transport="github",
            authority=authority,
            account=name or account_of(token),
            username=name,
            refresh_token=token,
            tried=tried,
            at=time.time(),
        )


def _code(prompt: Prompt, notice: str) -> SignInCode:
    return SignInCode(
        code=prompt.user_code, address=prompt.verification_uri, expires_in=prompt.expires_in, notice=notice
    )

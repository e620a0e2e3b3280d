"""Keeps an access token to Microsoft 365 Copilot fresh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from msgspec.structs import replace

from modelway.errors import NotEntitled
from modelway.providers.copilot.oauth import Granted, endpoint, post
from modelway.providers.copilot.profiles import Authority, Profile
from modelway.providers.copilot.refusals import Refused, explained, sign_in_required
from modelway.providers.copilot.sign_ins import SignIn, SignIns
from modelway.providers.http import HTTPClient

SKEW_S = 300.0
_ENDED = {"invalid_grant", "interaction_required", "consent_required", "login_required"}


class AccessTokens:
    """Access tokens of one sign-in, in memory. All who need a new one wait for the same refresh."""

    def __init__(
        self,
        profile: Profile,
        authority: Authority,
        *,
        http: HTTPClient,
        sign_ins: SignIns,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._profile = profile
        self._authority = authority
        self._http = http
        self._sign_ins = sign_ins
        self._now = now
        self._one_at_a_time = asyncio.Lock()
        self._token = ""
        self._expires_at = 0.0
        self._of: tuple[str, float] = ("", 0.0)

    def sign_in(self) -> SignIn | None:
        """Who has signed in, if the configured authority has issued that and nothing has ended it."""
        found = self._sign_ins.load(self._profile.transport)
        if found is None or found.ended or found.authority != self._authority:
            return None
        return found

    async def token(self, refused: str = "") -> str:
        """A token that is good for some minutes and is not the refused one; SignInRequired without one."""
        async with self._one_at_a_time:
            sign_in = self.sign_in()
            if sign_in is None:
                raise sign_in_required()
            is_same = self._of == (sign_in.account, sign_in.at)
            if not is_same or self._token == refused or self._expires_at - SKEW_S <= self._now():
                await self._refresh(sign_in)
            return self._token

    async def _refresh(self, sign_in: SignIn) -> None:
        try:
            granted = await self._refreshed(sign_in)
        except Refused as refused:
            error = explained(refused)
            if refused.code not in _ENDED or isinstance(error, NotEntitled):
                raise error from None
            newest = self._sign_ins.load(self._profile.transport)
            if newest is None or newest == sign_in:
                self._end(sign_in, refused)
                raise sign_in_required("the sign-in to Copilot has ended") from None
            # Another process has signed in or refreshed meanwhile.
            sign_in = newest
            try:
                granted = await self._refreshed(newest)
            except Refused as again:
                raise explained(again) from None
        self._token = granted.access_token
        self._expires_at = self._now() + granted.expires_in
        self._of = (sign_in.account, sign_in.at)
        await asyncio.to_thread(self._keep_rotated, sign_in, granted.refresh_token)

    async def _refreshed(self, sign_in: SignIn) -> Granted:
        secret = await asyncio.to_thread(self._sign_ins.secret_of, sign_in)
        fields = {
            "grant_type": "refresh_token",
            "client_id": self._authority.client_id,
            "refresh_token": secret,
            "scope": self._profile.scope,
        }
        return await post(self._http, endpoint(self._authority, "token"), fields, Granted)

    def _keep_rotated(self, sign_in: SignIn, refresh_token: str) -> None:
        # Whoever signed out meanwhile stays signed out.
        standing = self._sign_ins.load(self._profile.transport)
        if refresh_token and standing == sign_in and refresh_token != sign_in.refresh_token:
            renewed = sign_in.renewed + 1
            self._sign_ins.save(replace(sign_in, refresh_token=refresh_token, renewed=renewed))

    def _end(self, sign_in: SignIn, refused: Refused) -> None:
        if self._sign_ins.load(self._profile.transport) == sign_in:
            self._sign_ins.save(replace(sign_in, refresh_token="", ended=refused.named))
        self._token = ""

"""Signs in by the device flow of OAuth 2.0 (RFC 8628), and keeps an access token fresh."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.dialects import openai_chat
from modelway.errors import NotEntitled, ProviderNotConfigured, UpstreamProtocolError
from modelway.providers.copilot.profiles import Authority, Profile
from modelway.providers.copilot.refusals import Refused, explained, sign_in_required
from modelway.providers.copilot.sign_ins import SignIn, SignIns
from modelway.providers.http import HTTPClient, Response, raise_for_status

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
DEFAULT_INTERVAL_S = 5.0
SLOWER_S = 5.0
SKEW_S = 300.0
_Answer = TypeVar("_Answer", bound=Struct)

_ERROR_NUMBER = re.compile(r"AADSTS\d+")
_ENDED = {"invalid_grant", "interaction_required", "consent_required", "login_required"}


class Prompt(Struct, frozen=True, kw_only=True):
    """What the person must do; `message` is the authority's own sentence. Times are in seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: float = 900.0
    interval: float = DEFAULT_INTERVAL_S
    message: str = ""

    @property
    def instruction(self) -> str:
        """One sentence for the person."""
        return self.message or f"Open {self.verification_uri} and enter the code {self.user_code}."


class _Granted(Struct, frozen=True):
    access_token: str
    expires_in: float = 3599.0
    refresh_token: str = ""
    id_token: str = ""


async def begin(http: HTTPClient, authority: Authority, profile: Profile) -> Prompt:
    """Ask for a code that the person enters in a browser."""
    _require_registration(authority)
    try:
        return await _ask(
            http,
            authority,
            "devicecode",
            {"client_id": authority.client_id, "scope": profile.scope},
            Prompt,
        )
    except Refused as refused:
        raise explained(refused) from None


async def wait(
    http: HTTPClient,
    authority: Authority,
    profile: Profile,
    prompt: Prompt,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = time.time,
) -> SignIn:
    """Ask again and again until the person has signed in; SignInRequired where they have not."""
    fields = {
        "grant_type": DEVICE_GRANT,
        "client_id": authority.client_id,
        "device_code": prompt.device_code,
    }
    interval, waited = prompt.interval, 0.0
    while waited <= prompt.expires_in:
        await sleep(interval)
        waited += interval
        try:
            granted = await _ask(http, authority, "token", fields, _Granted)
        except Refused as refused:
            if refused.code == "slow_down":
                interval += SLOWER_S
            elif refused.code != "authorization_pending":
                raise explained(refused) from None
        else:
            return _sign_in(authority, profile, granted, now())
    raise explained(Refused("expired_token"))


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
            if newest is None or newest.refresh_token == sign_in.refresh_token:
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
        self._keep_rotated(sign_in, granted.refresh_token)

    async def _refreshed(self, sign_in: SignIn) -> _Granted:
        fields = {
            "grant_type": "refresh_token",
            "client_id": self._authority.client_id,
            "refresh_token": sign_in.refresh_token,
            "scope": self._profile.scope,
        }
        return await _ask(self._http, self._authority, "token", fields, _Granted)

    def _keep_rotated(self, sign_in: SignIn, refresh_token: str) -> None:
        # Whoever signed out meanwhile stays signed out.
        standing = self._sign_ins.load(self._profile.transport)
        if refresh_token and standing == sign_in and refresh_token != sign_in.refresh_token:
            self._sign_ins.save(replace(sign_in, refresh_token=refresh_token))

    def _end(self, sign_in: SignIn, refused: Refused) -> None:
        if self._sign_ins.load(self._profile.transport) == sign_in:
            self._sign_ins.save(replace(sign_in, refresh_token="", ended=refused.named))
        self._token = ""


async def _ask(
    http: HTTPClient, authority: Authority, action: str, fields: Mapping[str, str], kind: type[_Answer]
) -> _Answer:
    """One form posted to the authority; Refused where it says no in OAuth's words."""
    response = await http.request(
        "POST",
        f"{authority.url}/{authority.tenant}/oauth2/v2.0/{action}",
        headers={"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
        body=urlencode(fields).encode(),
    )
    async with aclosing(response):
        if response.status in (400, 401):
            raise await _refusal(response)
        await raise_for_status(response, decode_error=openai_chat.decode_error, name="the sign-in")
        try:
            return msgspec.json.decode(await response.body(), type=kind)
        except msgspec.DecodeError:
            raise UpstreamProtocolError("the sign-in answered with something that is not a token") from None


async def _refusal(response: Response) -> Exception:
    try:
        told: Any = msgspec.json.decode(await response.error_body())
    except msgspec.DecodeError:
        told = None
    code = told.get("error") if isinstance(told, dict) else None
    if not isinstance(code, str):
        return UpstreamProtocolError(f"the sign-in answered {response.status} without a reason")
    number = _ERROR_NUMBER.search(str(told.get("error_description", "")))
    return Refused(code[:60], number[0] if number else "")


def _sign_in(authority: Authority, profile: Profile, granted: _Granted, now: float) -> SignIn:
    if not granted.refresh_token:
        raise UpstreamProtocolError(
            "the sign-in gave no refresh token", hint="allow offline_access to the application"
        )
    claims = _claims(granted.id_token)
    known = (str(claims.get("tid", "")), str(claims.get("oid") or claims.get("sub") or ""))
    return SignIn(
        transport=profile.transport,
        authority=authority,
        account=".".join(known),
        username=str(claims.get("preferred_username", "")),
        refresh_token=granted.refresh_token,
        at=now,
    )


def _claims(id_token: str) -> Mapping[str, Any]:
    """What the token says of the person. It came from the issuer over TLS: no signature is checked."""
    payload = id_token.partition(".")[2].partition(".")[0]
    try:
        value: Any = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, msgspec.DecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _require_registration(authority: Authority) -> None:
    if not authority.client_id or not authority.tenant:
        raise ProviderNotConfigured(
            "no application is configured to sign in to Copilot with",
            hint="set [copilot] client_id and tenant; docs/copilot.md says how to register one",
        )

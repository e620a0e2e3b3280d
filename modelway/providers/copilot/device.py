"""Signs in by the device flow of OAuth 2.0 (RFC 8628): a code that the person enters in any browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from msgspec import Struct

from modelway.errors import ProviderNotConfigured
from modelway.providers.copilot.oauth import Granted, endpoint, post, require_registration, sign_in_of
from modelway.providers.copilot.profiles import Authority, Profile
from modelway.providers.copilot.refusals import Refused, explained
from modelway.providers.copilot.sign_ins import SignIn
from modelway.providers.http import HTTPClient

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
DEFAULT_INTERVAL_S = 5.0
SLOWER_S = 5.0
GITHUB_SCOPE = "read:user"

Sleep = Callable[[float], Awaitable[None]]


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


async def begin(http: HTTPClient, authority: Authority, profile: Profile) -> Prompt:
    """Ask Microsoft for a code."""
    require_registration(authority)
    return await _begin(http, endpoint(authority, "devicecode"), authority, profile.scope)


async def wait(
    http: HTTPClient,
    authority: Authority,
    profile: Profile,
    prompt: Prompt,
    *,
    sleep: Sleep = asyncio.sleep,
    now: Callable[[], float] = time.time,
) -> SignIn:
    """Ask Microsoft until the person has signed in; SignInRequired where they have not."""
    granted = await _wait(http, endpoint(authority, "token"), authority, prompt, sleep)
    return sign_in_of(authority, profile, granted, now())


async def begin_at_github(http: HTTPClient, authority: Authority) -> Prompt:
    """Ask GitHub for a code, for an OAuth app of the user's own."""
    if not authority.client_id:
        raise ProviderNotConfigured(
            "no application is configured to sign in to GitHub with",
            hint="set [copilot.github] client_id, or pipe a token into "
            "`modelway login copilot --transport github --with-token`",
        )
    return await _begin(http, f"{authority.url}/login/device/code", authority, GITHUB_SCOPE)


async def token_of_github(
    http: HTTPClient, authority: Authority, prompt: Prompt, *, sleep: Sleep = asyncio.sleep
) -> str:
    """Ask GitHub until the person has signed in; the token, which lasts until it is revoked."""
    url = f"{authority.url}/login/oauth/access_token"
    return (await _wait(http, url, authority, prompt, sleep)).access_token


async def _begin(http: HTTPClient, url: str, authority: Authority, scope: str) -> Prompt:
    try:
        return await post(http, url, {"client_id": authority.client_id, "scope": scope}, Prompt)
    except Refused as refused:
        raise explained(refused) from None


async def _wait(http: HTTPClient, url: str, authority: Authority, prompt: Prompt, sleep: Sleep) -> Granted:
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
            return await post(http, url, fields, Granted)
        except Refused as refused:
            if refused.code == "slow_down":
                interval += SLOWER_S
            elif refused.code != "authorization_pending":
                raise explained(refused) from None
    raise explained(Refused("expired_token"))

"""Asks an authority in OAuth's words: forms posted, tokens granted, refusals read."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from modelway.errors import ProviderNotConfigured, UpstreamProtocolError
from modelway.providers.copilot.profiles import Authority, Profile
from modelway.providers.copilot.refusals import Refused
from modelway.providers.copilot.sign_ins import SignIn
from modelway.providers.http import HTTPClient, Response, Secret, errors_of, raise_for_status

_Answer = TypeVar("_Answer", bound=Struct)

_SECRETS = ("refresh_token", "code", "device_code")
_ERROR_NUMBER = re.compile(r"AADSTS\d+")


class Granted(Struct, frozen=True):
    """Tokens. GitHub's access tokens last; Microsoft's come with a refresh token."""

    access_token: str
    expires_in: float = 3599.0
    refresh_token: str = ""
    id_token: str = ""

    def __repr__(self) -> str:
        return "Granted(…)"


async def post(http: HTTPClient, url: str, fields: Mapping[str, str], kind: type[_Answer]) -> _Answer:
    """One form; Refused where the authority says no in OAuth's words, at GitHub with status 200."""
    response = await http.request(
        "POST",
        url,
        headers={"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
        body=urlencode(fields).encode(),
    )
    async with aclosing(response):
        if response.status in (400, 401):
            raise _refusal(response.status, await _told(response, error=True))
        secret = next((fields[name] for name in _SECRETS if name in fields), "")
        await raise_for_status(response, errors_of("the sign-in"), Secret(secret))
        told = await _told(response)
    if isinstance(told, dict) and "error" in told:
        raise _refusal(response.status, told)
    try:
        return msgspec.convert(told, kind)
    except msgspec.ValidationError:
        raise UpstreamProtocolError("the sign-in answered with something that is not a token") from None


def endpoint(authority: Authority, action: str) -> str:
    """Where Microsoft takes `authorize`, `devicecode` and `token`."""
    return f"{authority.url}/{authority.tenant}/oauth2/v2.0/{action}"


def require_registration(authority: Authority) -> None:
    """ProviderNotConfigured where there is no application to sign in with."""
    if not authority.client_id or not authority.tenant:
        raise ProviderNotConfigured(
            "no application is configured to sign in to Copilot with",
            hint="set [copilot] client_id and tenant; docs/copilot.md says how to register one",
        )


def sign_in_of(authority: Authority, profile: Profile, granted: Granted, now: float) -> SignIn:
    """Who has signed in, by what was granted."""
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


async def _told(response: Response, *, error: bool = False) -> Any:
    try:
        return msgspec.json.decode(await (response.error_body() if error else response.body()))
    except msgspec.DecodeError:
        return None


def _refusal(status: int, told: Any) -> Exception:
    code = told.get("error") if isinstance(told, dict) else None
    if not isinstance(code, str):
        return UpstreamProtocolError(f"the sign-in answered {status} without a reason")
    number = _ERROR_NUMBER.search(str(told.get("error_description", "")))
    return Refused(code[:60], number[0] if number else "")


def _claims(id_token: str) -> Mapping[str, Any]:
    """What the token says of the person. It came from the issuer over TLS: no signature is checked."""
    payload = id_token.partition(".")[2].partition(".")[0]
    try:
        value: Any = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, msgspec.DecodeError):
        return {}
    return value if isinstance(value, dict) else {}

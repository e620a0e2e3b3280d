"""Talks to Microsoft 365 Copilot: opens a conversation, sends a turn, reads the snapshots of its answer.

Work IQ's REST interface and Graph's Chat API have the same contract.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from modelway.dialects import openai_chat, sse
from modelway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NotEntitled,
    SignInRequired,
    UpstreamFailed,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
)
from modelway.providers.copilot.door import Lost
from modelway.providers.copilot.profiles import Profile
from modelway.providers.copilot.refusals import HINT, blocked_by_policy, not_consented
from modelway.providers.copilot.snapshots import Snapshot
from modelway.providers.http import HTTPClient, Response, Secret, errors_of, raise_for_status

NAME = "Copilot"
_GONE = (404, 410)
_POLICY = ("policy", "conditional access")

Token = Callable[[str], Awaitable[str]]


class _Opened(Struct):
    id: str


class _StreamItem(Snapshot, frozen=True):
    error: dict[str, Any] | None = None


class M365:
    """One account's door. `token` gives an access token other than the one it is told was refused."""

    def __init__(self, profile: Profile, base_url: str, token: Token, *, http: HTTPClient) -> None:
        self._profile = profile
        self._base_url = base_url
        self._token = token
        self._http = http

    async def open(self) -> str:
        """A new conversation; its id."""
        async with aclosing(await self._post("/conversations", {}, resend=True)) as answer:
            body = await answer.response.body()
        try:
            opened = msgspec.json.decode(body, type=_Opened).id
        except msgspec.DecodeError:
            opened = ""
        if not opened:
            raise UpstreamProtocolError(f"{NAME} opened no conversation")
        return opened

    async def say(self, conversation: str, turn: dict[str, Any]) -> Answer:
        """Send a turn, exactly once; Lost where the conversation is gone. The caller closes the answer."""
        return await self._post(
            f"/conversations/{quote(conversation, safe='')}/chatOverStream", turn, resend=False
        )

    async def _post(self, path: str, body: dict[str, Any], *, resend: bool) -> Answer:
        token = await self._token("")
        response = await self._send(path, body, token, resend=resend)
        if response.status == 401:
            # Refused is not taken: once more, with a fresh token, sends nothing twice.
            await response.aclose()
            token = await self._token(token)
            response = await self._send(path, body, token, resend=resend)
        try:
            await _check(response, token, self._profile, in_conversation=not resend)
        except BaseException:
            await response.aclose()
            raise
        return Answer(response, token, self._http.settings.max_event_bytes)

    async def _send(self, path: str, body: dict[str, Any], token: str, *, resend: bool) -> Response:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return await self._http.request(
            "POST", self._base_url + path, headers=headers, body=msgspec.json.encode(body), resend=resend
        )


class Answer:
    """The reply to a turn. It must be closed."""

    def __init__(self, response: Response, token: str, max_event_bytes: int) -> None:
        self.response = response
        self._token = token
        self._max_event_bytes = max_event_bytes

    async def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        """The snapshots of the answer."""
        decoder = sse.Decoder()
        while chunk := await self.response.read():
            for event in decoder.feed(chunk):
                yield _snapshot(event.data, self._token)
            if decoder.pending > self._max_event_bytes:
                raise UpstreamProtocolError(
                    f"{NAME} sent an event of more than {self._max_event_bytes} bytes",
                    code="upstream_too_large",
                )
        for event in decoder.close():
            yield _snapshot(event.data, self._token)

    async def aclose(self) -> None:
        """Give the connection back."""
        await self.response.aclose()


async def _check(response: Response, token: str, profile: Profile, *, in_conversation: bool) -> None:
    """Raise what the status stands for."""
    if response.status == 401:
        raise SignInRequired(f"{NAME} refuses the sign-in, fresh as it is", hint=HINT)
    if response.status in _GONE and in_conversation:
        raise Lost
    try:
        await raise_for_status(response, errors_of(NAME), Secret(token))
    except GatewayError as error:
        raise _explained(error, response.status, profile) from error


def _explained(error: GatewayError, status: int, profile: Profile) -> GatewayError:
    """The error with what Microsoft's documents say about its cause."""
    match error:
        case UpstreamRefusedCredential() if status in (402, 403):
            return _not_entitled(error.message, profile)
        case UpstreamRateLimited():
            # A turn that was turned away was not taken.
            return UpstreamRateLimited(error.message, retry_after=error.retry_after, sent=False)
        case InvalidRequest() if "authenticating with resource" in error.message.lower():
            hint = "set [copilot] tenant to the home tenant of the account, and sign in again"
            return UpstreamRefusedCredential(error.message, hint=hint)
        case ModelNotFound():
            return UpstreamProtocolError(error.message, hint="check [copilot] base_url")
    return error


def _not_entitled(message: str, profile: Profile) -> NotEntitled:
    said = message.lower()
    if "required scopes" in said:
        return not_consented(message)
    if any(word in said for word in _POLICY):
        return blocked_by_policy(message)
    cause, remedy = profile.entitlement
    return NotEntitled(f"{message} ({cause})", hint=remedy)


def _snapshot(data: bytes, token: str) -> Snapshot:
    try:
        item = msgspec.json.decode(data, type=_StreamItem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UpstreamProtocolError(f"{NAME} sent an event that cannot be read") from None
    if item.error is not None:
        message, code = openai_chat.decode_error(200, Secret(token).out_of(data))
        raise UpstreamFailed(f"{NAME} failed inside its answer: {message}" + (f" ({code})" if code else ""))
    return item

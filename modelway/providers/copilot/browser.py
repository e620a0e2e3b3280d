"""Signs in in a browser: authorization code with PKCE (RFC 7636), redirected to a port of loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs, urlencode, urlsplit

from modelway.errors import SignInRequired
from modelway.providers.copilot.oauth import Granted, endpoint, post, require_registration, sign_in_of
from modelway.providers.copilot.profiles import Authority, Profile
from modelway.providers.copilot.refusals import Refused, explained
from modelway.providers.copilot.sign_ins import SignIn
from modelway.providers.http import HTTPClient

WAIT_S = 600.0
MAX_REQUEST_BYTES = 16_384
READ_S = 10.0
_DONE = "You are signed in. This window can be closed."
_REFUSED = "The sign-in was refused. The terminal says why."
_STRANGE = "This is not the sign-in that was asked for."


async def sign_in(
    http: HTTPClient,
    authority: Authority,
    profile: Profile,
    *,
    show: Callable[[str], object],
    wait_s: float = WAIT_S,
    now: Callable[[], float] = time.time,
) -> SignIn:
    """`show` is given the page to open; SignInRequired where nobody has signed in there in time."""
    require_registration(authority)
    verifier = secrets.token_urlsafe(64)
    async with _Landing() as landing:
        show(_page(authority, profile, landing, verifier))
        try:
            code = await asyncio.wait_for(landing.code, wait_s)
        except TimeoutError:
            raise SignInRequired("nobody has signed in in the browser", hint="try again") from None
        except Refused as refused:
            raise explained(refused) from None
    fields = {
        "grant_type": "authorization_code",
        "client_id": authority.client_id,
        "code": code,
        "redirect_uri": landing.url,
        "code_verifier": verifier,
        "scope": profile.scope,
    }
    try:
        granted = await post(http, endpoint(authority, "token"), fields, Granted)
    except Refused as refused:
        raise explained(refused) from None
    return sign_in_of(authority, profile, granted, now())


def _page(authority: Authority, profile: Profile, landing: _Landing, verifier: str) -> str:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    query = {
        "client_id": authority.client_id,
        "response_type": "code",
        "response_mode": "query",
        "redirect_uri": landing.url,
        "scope": profile.scope,
        "state": landing.state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "prompt": "select_account",
    }
    return f"{endpoint(authority, 'authorize')}?{urlencode(query)}"


class _Landing:
    """The page that the browser is sent to. `code` is what it brings; a wrong `state` is turned away."""

    def __init__(self) -> None:
        self.state = secrets.token_urlsafe(32)
        self.url = ""
        self.code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> _Landing:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_REQUEST_BYTES)
        port = server.sockets[0].getsockname()[1]
        self._servers.append(server)
        # A browser may take `localhost` for either address.
        with suppress(OSError):
            self._servers.append(
                await asyncio.start_server(self._serve, "::1", port, limit=MAX_REQUEST_BYTES)
            )
        self.url = f"http://localhost:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.code.cancel()
        for server in self._servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        asked = urlsplit(rest.partition(" ")[0])
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        if method != "GET" or asked.path not in ("", "/"):
            return _reply("404 Not Found", _STRANGE)
        if not secrets.compare_digest(query.get("state", "").encode(), self.state.encode()):
            return _reply("400 Bad Request", _STRANGE)
        if self.code.done():
            return _reply("200 OK", _DONE)
        if code := query.get("code"):
            self.code.set_result(code)
            return _reply("200 OK", _DONE)
        self.code.set_exception(Refused(query.get("error", "access_denied")[:60]))
        return _reply("200 OK", _REFUSED)


def _reply(status: str, text: str) -> bytes:
    page = f'<!doctype html><meta charset="utf-8"><title>Modelway</title><p>{text}</p>'.encode()
    lines = [
        f"HTTP/1.1 {status}",
        "content-type: text/html; charset=utf-8",
        f"content-length: {len(page)}",
        "cache-control: no-store",
        "referrer-policy: no-referrer",
        "connection: close",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + page

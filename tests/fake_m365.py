"""Microsoft's side of Copilot on a loopback port: sign-in, conversations and streamed answers.

Built from Microsoft's documents alone; no live service was recorded. What they show: the device flow and
its refusals, the rotation of refresh tokens, `201` for a conversation, the sequence of an answer
(snapshots with turnCount 0, some of them empty, then one with the prompt before the answer; `id:` after
`data:`), and the texts of 400, 401 and 403. What is ours, to see that nothing breaks: 429, a conversation
that is gone (404, 410), `disengagedForRai`, rewritten snapshots, cuts, CRLF and odd chunks.

    async with FakeM365() as m365:
        m365.reply("Hello", " there")
        ...                                     # authority m365.root, base URL m365.base
        assert m365.turns[0].body["message"] == {"text": "Hi"}
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from msgspec import Struct

from modelway.config import CopilotSettings
from modelway.providers.copilot.profiles import Transport, authority_of
from modelway.providers.copilot.sign_ins import SignIn, SignIns
from modelway.testing.fake_upstream import End, FakeUpstream, Received, Step
from tests.canary import key

TENANT = "contoso.example"
CLIENT_ID = "0000-client"
ACCOUNT = {"tid": "tenant-1", "oid": "user-1", "preferred_username": "ada@contoso.example"}

GITHUB_TOKEN = key("gho_granted")

_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"request-id: r-1\r\n\r\n"
)
_END = b"0\r\n\r\n"


def refresh(number: int | str) -> str:
    """The refresh token of a grant."""
    return key(f"refresh-{number}")


def access(number: int | str) -> str:
    """The access token of a grant."""
    return key(f"access-{number}")


class Turned(Struct, frozen=True):
    """A turn as it came in."""

    conversation: str
    body: dict[str, Any]


class FakeM365(FakeUpstream):
    """See the module.

    `polls` are OAuth's words for the next polls, "" or none left: granted. `refusal` ends every refresh;
    `number` is Microsoft's for it. `refuses_tokens` lets no access token be good.
    `keeps_refresh_tokens` leaves them out of grants. `gone` is the status for a conversation that does not
    exist. `openings` are status and body of the next answers to who opens one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.polls: list[str] = []
        self.refusal = ""
        self.number = "70000"
        self.refuses_tokens = False
        self.gone = 404
        self.conversations: set[str] = set()
        self.turns: list[Turned] = []
        self.forms: list[dict[str, str]] = []
        self.opened = 0
        self.issued = 0
        self.refresh_token = refresh(0)
        self.access_token = access(0)
        self.keeps_refresh_tokens = False
        self.interval = 0
        self.hold_refresh: asyncio.Event | None = None
        self.entered: dict[str, str] = {}
        self.openings: list[tuple[int, object]] = []

    @property
    def root(self) -> str:
        """The authority."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        """The base URL of the chat."""
        return f"{self.root}/rest"

    def settings(self, **fields: Any) -> CopilotSettings:
        """Settings that lead here."""
        fields = {"time_zone": "Europe/Berlin", **fields}
        return CopilotSettings(
            client_id=CLIENT_ID, tenant=TENANT, base_url=self.base, authority=self.root, **fields
        )

    def signed_in(self, folder: Path, transport: Transport = "workiq") -> SignIns:
        """The sign-ins of a data directory, after Ada has made one."""
        sign_ins = SignIns(folder / "credentials")
        sign_ins.save(
            SignIn(
                transport=transport,
                authority=authority_of(self.settings()),
                account="ada",
                refresh_token=self.refresh_token,
                at=1.0,
            )
        )
        return sign_ins

    def forget(self) -> None:
        """Lose all conversations."""
        self.conversations.clear()

    def revoke_access(self) -> None:
        """Let the access token be good no longer; a refresh gives another."""
        self.access_token = "revoked"

    def reply(self, *pieces: str | asyncio.Event, **_: object) -> None:
        """Answer in the documented sequence: a snapshot for each piece, an empty one, the final one."""
        self._scripts.append(lambda request: _sequence(request, pieces))

    def show(self, *frames: bytes | asyncio.Event | End, terminated: bool = True) -> None:
        """Answer with exactly these events."""
        self.stream(*frames, terminated=terminated)

    def fail_with(self, status: int, body: object, **headers: str) -> None:
        """Answer the next turn with an error."""
        step = _json(status, body, **{name.replace("_", "-"): value for name, value in headers.items()})
        self.play(step)

    def _script_for(self, request: Received) -> Sequence[Step]:
        path = unquote(request.path)
        if path == f"/{TENANT}/oauth2/v2.0/devicecode":
            self.forms.append(_form(request))
            return [_json(200, self._device_code())]
        if path == "/login/device/code":
            self.forms.append(_form(request))
            device = self._device_code()
            del device["message"]
            return [_json(200, {**device, "verification_uri": "https://github.com/login/device"})]
        if path == "/login/oauth/access_token":
            self.forms.append(_form(request))
            return [_json(200, self._github_token())]
        if path == f"/{TENANT}/oauth2/v2.0/token":
            self.forms.append(_form(request))
            return self._token_script(self.forms[-1])
        is_good = request.headers.get("authorization") == f"Bearer {self.access_token}"
        if not is_good or self.refuses_tokens:
            return [_json(401, _error("InvalidAuthenticationToken", "Access token validation failure."))]
        if path == "/rest/conversations":
            return [self._open_one()]
        conversation, _, action = path.removeprefix("/rest/conversations/").partition("/")
        assert action == "chatOverStream", path
        self.turns.append(Turned(conversation, request.json))
        if conversation not in self.conversations:
            return [_json(self.gone, _error("NotFound", "Conversation not found."))]
        return super()._script_for(request)

    def _device_code(self) -> dict[str, object]:
        return {
            "device_code": "device-1",
            "user_code": "ABCD-EFGH",
            "verification_uri": "https://microsoft.com/devicelogin",
            "expires_in": 900,
            "interval": self.interval,
            "message": "To sign in, open https://microsoft.com/devicelogin and enter ABCD-EFGH.",
        }

    def _github_token(self) -> dict[str, object]:
        # GitHub says no with status 200.
        if self.polls and (refusal := self.polls.pop(0)):
            return {"error": refusal, "error_description": "no"}
        return {"access_token": GITHUB_TOKEN, "token_type": "bearer", "scope": "read:user"}

    def _token_script(self, form: dict[str, str]) -> Sequence[Step]:
        is_refresh = form["grant_type"] == "refresh_token"
        if form["grant_type"] == "authorization_code" and not self._is_proven(form):
            return [_json(400, {"error": "invalid_grant", "error_description": "AADSTS501481: no match"})]
        refusal = self.refusal if is_refresh else (self.polls.pop(0) if self.polls else "")
        if is_refresh and form["refresh_token"] != self.refresh_token:
            refusal = "invalid_grant"
        held: list[Step] = [self.hold_refresh] if is_refresh and self.hold_refresh else []
        if refusal:
            description = f"AADSTS{self.number}: said no to {ACCOUNT['preferred_username']}. Trace ID: 1"
            return [*held, _json(400, {"error": refusal, "error_description": description})]
        self.issued += 1
        self.refresh_token = refresh(self.issued)
        self.access_token = access(self.issued)
        return [*held, _json(200, self._granted())]

    def enter(self, page: str) -> str:
        """What a person does on the page of the sign-in; the address that the browser is sent to."""
        parts = urlsplit(page)
        asked = dict(parse_qsl(parts.query))
        assert f"{parts.scheme}://{parts.netloc}" == self.root
        assert parts.path == f"/{TENANT}/oauth2/v2.0/authorize"
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        self.entered = asked
        return f"{asked['redirect_uri']}/?" + urlencode({"code": "code-1", "state": asked["state"]})

    def _is_proven(self, form: dict[str, str]) -> bool:
        """Whether whoever brings the code is the one who asked for it (RFC 7636)."""
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        wanted = ("code-1", challenge, self.entered.get("redirect_uri"))
        return wanted == (form["code"], self.entered.get("code_challenge"), form["redirect_uri"])

    def _granted(self) -> dict[str, object]:
        claims = base64.urlsafe_b64encode(json.dumps(ACCOUNT).encode()).decode().rstrip("=")
        granted: dict[str, object] = {
            "token_type": "Bearer",
            "scope": "granted",
            "expires_in": 3599,
            "access_token": self.access_token,
            "id_token": f"e30.{claims}.c2ln",
        }
        return granted if self.keeps_refresh_tokens else {**granted, "refresh_token": self.refresh_token}

    def _open_one(self) -> bytes:
        if self.openings:
            return _json(*self.openings.pop(0))
        self.opened += 1
        id = f"conversation-{self.opened}"
        self.conversations.add(id)
        return _json(201, {"id": id, "displayName": "", "status": "active", "turnCount": 0})


def cited(title: str, url: str, kind: str = "citation") -> dict[str, object]:
    """An entry of `attributions`, as the documents have it."""
    return {
        "attributionType": kind,
        "providerDisplayName": title,
        "attributionSource": "model",
        "seeMoreWebUrl": url,
        "imageWebUrl": "",
        "imageFavIcon": "",
        "imageWidth": 0,
        "imageHeight": 0,
    }


def frame(
    *messages: tuple[str, str],
    turns: int = 0,
    state: str = "active",
    end: str = "\n",
    sources: Mapping[str, object] | None = None,
) -> bytes:
    """One event: (id, text) of its messages. It is pretty-printed, as the documents have it.

    `sources` are fields of the last message, in place of its empty `attributions`.
    """
    conversation = {
        "id": "conversation",
        "agentId": None,
        "displayName": "Intermediate Conversation Update" if not turns else "",
        "state": state,
        "turnCount": turns,
        "messages": [
            {
                "@odata.type": "#microsoft.graph.copilotConversationResponseMessage",
                "id": id,
                "text": text,
                "adaptiveCards": [],
                "attributions": [],
                **(sources or {} if number == len(messages) else {}),
            }
            for number, (id, text) in enumerate(messages, 1)
        ],
    }
    lines = json.dumps(conversation, indent=2, ensure_ascii=False).split("\n")
    return "".join([*(f"data: {line}{end}" for line in lines), f"id:{turns}{end}", end]).encode()


def _sequence(request: Received, pieces: Sequence[str | asyncio.Event]) -> list[Step]:
    steps: list[Step] = [_STREAM_HEAD]
    text = ""
    for piece in pieces:
        if isinstance(piece, asyncio.Event):
            steps.append(piece)
        else:
            text += piece
            steps.append(_chunk(frame(("answer", text))))
    prompt = request.json["message"]["text"]
    final = frame(("prompt", prompt), ("answer", text), turns=1)
    return [*steps, _chunk(frame()), _chunk(final), _END]


def _error(code: str, message: str) -> dict[str, object]:
    return {"error": {"code": code, "message": message, "innerError": {"request-id": "r-1"}}}


def _form(request: Received) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode()))


def _json(status: int, body: object, **headers: str) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Scripted", "content-type: application/json"]
    lines += [f"content-length: {len(content)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

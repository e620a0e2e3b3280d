"""Everything else under /v1 that upstreams offer (embeddings, images, audio, files), passed on as it is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import aclosing
from hashlib import blake2b

import msgspec
from msgspec import Struct
from starlette.routing import Route

from modelway.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotFound
from modelway.gateway import Gateway
from modelway.prices.estimate import tokens_of_fields
from modelway.provider import RelayReply, RelayRequest, Relays
from modelway.server.exchange import ClientGone, Exchange, addressed, until_client_is_gone
from modelway.server.forms import Form
from modelway.server.kept import RELAY, KeptReplies, ReplyHead, error_event
from modelway.server.keyed import KEY_HEADER
from modelway.server.metering import Meter
from modelway.server.relayed import Body, RelayedCall
from modelway.server.unambiguous import refuse_ambiguous
from modelway.telemetry import milliseconds_since

RELAYED_METHODS = ("GET", "POST", "DELETE")
# All others stay here: the caller's key, cookies, and what belongs to one connection.
TO_UPSTREAM = (b"accept", b"content-type", KEY_HEADER, b"openai-beta")
# These are of another format than the addresses that upstreams relay.
_NEVER = "/v1/messages/"
_BATCHES = "/v1/messages/batches"
_PATH = re.compile(r"/v1/[A-Za-z0-9._~:@!$&'()*+,;=-]+(?:/[A-Za-z0-9._~:@!$&'()*+,;=-]+)*").fullmatch


class RelayEndpoint:
    """Passes on a request to the provider that it names; `own` are the addresses that are not passed on."""

    def __init__(
        self, gateway: Gateway, own: Sequence[Route], *, max_body_bytes: int, max_reply_bytes: int
    ) -> None:
        self._gateway = gateway
        self._own = own
        self._max_body_bytes = max_body_bytes
        self.kept = KeptReplies(gateway, max_bytes=max_reply_bytes)

    def has(self, path: str) -> bool:
        """Whether a request for this address is passed on."""
        return path.startswith("/v1/") and not path.startswith(_NEVER) and not self._owners(path)

    def finds(self, exchange: Exchange, kind: str, provider: str, model: str) -> bool:
        """Whether whoever would take the request has what is asked: `kind` is what a provider `supports`."""
        named = addressed(exchange, "provider", b"x-modelway-provider", provider)
        found = self._gateway.choose(exchange.caller, named, model).provider
        return isinstance(found, Relays) and kind in found.info.supports

    async def __call__(self, exchange: Exchange) -> None:
        """Read the request, pass it on, and pass back what comes, as fast as the client reads."""
        path = self._checked_path(exchange)
        await self.pass_on(exchange, path, await exchange.body(self._max_body_bytes))

    async def pass_on(self, exchange: Exchange, path: str, content: bytes) -> None:
        """Pass on a request whose body has been read, for the address that follows /v1/."""
        record = exchange.record
        record.dialect, record.path = RELAY, path
        body: Body = _read(content, exchange)
        if isinstance(body, _Json):
            refuse_ambiguous(exchange, content)
        asked = addressed(exchange, "provider", b"x-modelway-provider", body.provider)
        candidate = self._gateway.choose(exchange.caller, asked, body.model)
        provider, model = candidate.provider, candidate.model
        record.provider, record.model, record.stream = provider.info.name, model, body.stream
        request = RelayRequest(
            method=exchange.method,
            path=path,
            query=_query(exchange),
            headers=_headers_to_upstream(exchange),
            body=body.addressed_to(model),
        )
        call = RelayedCall(self._gateway, exchange.caller, candidate, request, body)
        if exchange.method == "POST" and KEY_HEADER in exchange.headers:
            await self.kept.answer(exchange, call, path, request.query, asked, body.said())
            return
        await call.admit()
        try:
            with until_client_is_gone(exchange):
                reply = await call.begin(record.attempts)
                async with aclosing(reply):
                    record.first_ms = milliseconds_since(record.time)
                    await _pass_back(exchange, reply, call)
        except (ClientGone, asyncio.CancelledError):
            call.was_left()
            raise
        finally:
            used, record.cost = call.settle()
            record.input_tokens, record.output_tokens = used.input_tokens, used.output_tokens

    def _checked_path(self, exchange: Exchange) -> str:
        """What follows /v1/. Nothing is decoded or resolved in it, so that it cannot lead elsewhere."""
        owners = self._owners(exchange.path)
        if owners:
            allowed = ", ".join(sorted({method for route in owners for method in route.methods or ()}))
            exchange.reply_headers.append((b"allow", allowed.encode()))
            raise MethodNotAllowed(f"{exchange.method} is not possible here", hint=f"use {allowed}")
        if exchange.path.startswith(_NEVER):
            raise _not_of_anthropic_s(exchange.path)
        raw: str = exchange.scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1")
        if not _PATH(raw) or any(_climbs(segment) for segment in raw.split("/")):
            raise InvalidRequest(
                "the address must be plain words between single slashes",
                hint='leave out "..", "//" and percent signs',
                code="invalid_path",
            )
        return raw.removeprefix("/v1/")

    def _owners(self, path: str) -> list[Route]:
        return [route for route in self._own if route.path_regex.match(path)]


def _not_of_anthropic_s(path: str) -> NotFound:
    if path.startswith(_BATCHES):
        return NotFound(
            "Modelway has no batches of messages", hint="send the requests one by one to /v1/messages"
        )
    return NotFound("there is nothing at this address", hint="chats are answered at /v1/messages")


def _climbs(segment: str) -> bool:
    """Whether it might lead out of its folder; some servers leave out what follows a semicolon."""
    return segment.partition(";")[0] in (".", "..")


class _Fields(Struct):
    """What a JSON body says about its way."""

    provider: str | None = None
    model: str | None = None
    stream: object = False
    max_tokens: object = None
    max_output_tokens: object = None
    n: object = None


class _Json:
    """A JSON body. Only the two fields that name the way are ever changed."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        try:
            fields = msgspec.json.decode(body or b"{}", type=_Fields)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            code = "" if isinstance(error, msgspec.ValidationError) else "invalid_json"
            raise InvalidRequest(f"the body cannot be read: {error}", code=code) from None
        self.provider, self.model = fields.provider or "", fields.model or ""
        self.stream = fields.stream is True
        most = fields.max_output_tokens if fields.max_tokens is None else fields.max_tokens
        self.max_tokens = most if isinstance(most, int) else None
        self.choices = fields.n if isinstance(fields.n, int) else None

    def said(self) -> bytes:
        """All that it says."""
        return self._body

    def tokens(self) -> int:
        """About how many tokens it asks with."""
        fields = msgspec.json.decode(self._body or b"{}")
        return tokens_of_fields([fields[name] for name in fields if name not in ("model", "provider")])

    def addressed_to(self, model: str) -> bytes:
        """The body for the upstream, with its name of the model and without the provider's."""
        if model == self.model and not self.provider:
            return self._body
        fields = msgspec.json.decode(self._body, type=dict[str, msgspec.Raw])
        fields.pop("provider", None)
        if self.model:
            fields["model"] = msgspec.Raw(msgspec.json.encode(model))
        return msgspec.json.encode(fields)


def _read(body: bytes, exchange: Exchange) -> _Json | Form:
    declared = exchange.header(b"content-type")
    if declared.partition(";")[0].strip().lower() == "multipart/form-data":
        return Form(body, declared)
    return _Json(body)


def _query(exchange: Exchange) -> str:
    """The query without the provider's name."""
    text = exchange.scope["query_string"].decode("latin-1")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise InvalidRequest("the query has characters that must be percent-encoded", code="invalid_path")
    return "&".join(pair for pair in text.split("&") if pair.partition("=")[0] != "provider")


def _headers_to_upstream(exchange: Exchange) -> dict[str, str]:
    found = {name.decode(): exchange.header(name) for name in TO_UPSTREAM if name in exchange.headers}
    for name, value in found.items():
        if not (value.isascii() and value.isprintable()):
            raise InvalidRequest(f"the header {name} has characters that HTTP does not permit")
    if key := exchange.header(KEY_HEADER):
        found[KEY_HEADER.decode()] = _key_to_upstream(exchange.caller.name, key)
    return found


def _key_to_upstream(caller: str, key: str) -> str:
    """The upstream sees one account: equal keys of two callers must not meet there."""
    return blake2b(msgspec.json.encode((caller, key)), digest_size=16).hexdigest()


async def _pass_back(exchange: Exchange, reply: RelayReply, call: RelayedCall) -> None:
    meter, head = call.meter or Meter(), ReplyHead.of(reply)
    if meter.is_events:
        exchange.encode_error_event = error_event
    await exchange.start(reply.status, head.told(call.name, call.model))
    try:
        while piece := await reply.read():
            meter.read(piece)
            await exchange.write(piece)
    except GatewayError:
        # Inside half an event, another one would only be a part of it.
        if not (meter.is_events and meter.ends_event()):
            exchange.cut()
        raise
    await exchange.write(b"", last=True)

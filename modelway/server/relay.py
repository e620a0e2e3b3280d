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

from modelway.accounts import Size
from modelway.dialects import openai_chat
from modelway.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotFound
from modelway.gateway import Gateway
from modelway.prices.estimate import tokens_of_fields
from modelway.provider import RelayReply, RelayRequest
from modelway.server.exchange import (
    ClientGone,
    Exchange,
    Headers,
    addressed,
    header_value,
    until_client_is_gone,
)
from modelway.server.forms import Form
from modelway.server.metering import Meter
from modelway.server.unambiguous import refuse_ambiguous
from modelway.telemetry import milliseconds_since
from modelway.types import Usage

RELAYED_METHODS = ("GET", "POST", "DELETE")
_KEY = b"idempotency-key"
# All others stay here: the caller's key, cookies, and what belongs to one connection.
TO_UPSTREAM = (b"accept", b"content-type", _KEY, b"openai-beta")
# These are of another format than the addresses that upstreams relay.
_NEVER = "/v1/messages/"
_BATCHES = "/v1/messages/batches"
_TO_CALLER = (
    "content-type",
    "content-disposition",
    "content-length",
    "cache-control",
    "etag",
    "last-modified",
)
# A file that an upstream keeps may be a web page, which must not act as one of ours.
_HARMLESS: Headers = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox")]
# Of the addresses that are passed on, this one's replies are texts whose length the request may not say.
_WRITES = "completions"
_PATH = re.compile(r"/v1/[A-Za-z0-9._~:@!$&'()*+,;=-]+(?:/[A-Za-z0-9._~:@!$&'()*+,;=-]+)*").fullmatch


class RelayEndpoint:
    """Passes on a request to the provider that it names; `own` are the addresses that are not passed on."""

    def __init__(self, gateway: Gateway, own: Sequence[Route], *, max_body_bytes: int) -> None:
        self._gateway = gateway
        self._own = own
        self._max_body_bytes = max_body_bytes

    def has(self, path: str) -> bool:
        """Whether a request for this address is passed on."""
        return path.startswith("/v1/") and not path.startswith(_NEVER) and not self._owners(path)

    async def __call__(self, exchange: Exchange) -> None:
        """Read the request, pass it on, and pass back what comes, as fast as the client reads."""
        path = self._checked_path(exchange)
        await self.pass_on(exchange, path, await exchange.body(self._max_body_bytes))

    async def pass_on(self, exchange: Exchange, path: str, content: bytes) -> None:
        """Pass on a request whose body has been read, for the address that follows /v1/."""
        record = exchange.record
        record.dialect, record.path = "relay", path
        body = _read(content, exchange)
        if isinstance(body, _Json):
            refuse_ambiguous(exchange, content)
        asked = addressed(exchange, "provider", b"x-modelway-provider", body.provider)
        candidate = self._gateway.router.choose(asked, body.model)
        provider, model = candidate.provider, candidate.model
        record.provider, record.model, record.stream = provider.info.name, model, body.stream
        request = RelayRequest(
            method=exchange.method,
            path=path,
            query=_query(exchange),
            headers=_headers_to_upstream(exchange),
            body=body.addressed_to(model),
        )
        size = Size() if exchange.caller.rules is None else _size(exchange.method, path, body)
        permit = self._gateway.admit(exchange.caller, candidate, size)
        meter: Meter | None = None
        try:
            with until_client_is_gone(exchange):
                reply = await self._gateway.relay(provider, model, request, record.attempts)
                async with aclosing(reply):
                    record.first_ms = milliseconds_since(record.time)
                    named: Headers = [(b"x-modelway-provider", header_value(provider.info.name))]
                    if model:
                        named.append((b"x-modelway-model", header_value(model)))
                    meter = Meter(reply.headers.get("content-type", ""), reply.status)
                    await _pass_back(exchange, reply, named, meter)
        except (ClientGone, asyncio.CancelledError):
            # Whoever does not wait for the reply has asked all the same.
            meter = meter or Meter()
            raise
        finally:
            used, estimated = _usage(exchange, body, meter)
            record.input_tokens, record.output_tokens = used.input_tokens, used.output_tokens
            record.cost = self._gateway.charge(
                exchange.caller, permit, provider, model, used, estimated=estimated
            )

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
        self.max_tokens = fields.max_tokens if isinstance(fields.max_tokens, int) else None
        self.choices = fields.n if isinstance(fields.n, int) else None

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


def _size(method: str, path: str, body: _Json | Form) -> Size:
    """About how large a request and its reply are."""
    if method != "POST":
        return Size()
    if path == _WRITES or body.max_tokens is not None:
        return Size.of(body.tokens(), body.max_tokens, body.choices)
    return Size(body.tokens())


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
    if key := exchange.header(_KEY):
        found[_KEY.decode()] = _key_to_upstream(exchange.caller.name, key)
    return found


def _key_to_upstream(caller: str, key: str) -> str:
    """The upstream sees one account: equal keys of two callers must not meet there."""
    return blake2b(msgspec.json.encode((caller, key)), digest_size=16).hexdigest()


async def _pass_back(exchange: Exchange, reply: RelayReply, named: Headers, meter: Meter) -> None:
    headers = [
        (name.encode(), reply.headers[name].encode("latin-1")) for name in _TO_CALLER if name in reply.headers
    ]
    if reply.headers.get("content-encoding", "identity") != "identity":
        # What is read has been decoded, and its length is another one.
        headers = [header for header in headers if header[0] != b"content-length"]
    if meter.is_events:
        exchange.encode_error_event = _error_event
    await exchange.start(reply.status, [*headers, *_HARMLESS, *named])
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


def _error_event(error: GatewayError) -> bytes:
    return b"data: " + openai_chat.encode_error(error) + b"\n\n"


def _usage(exchange: Exchange, body: _Json | Form, meter: Meter | None) -> tuple[Usage, bool]:
    """What was taken, as far as the reply came, and whether that is a guess; nothing where it failed."""
    if meter is None:
        return Usage(), False
    if told := meter.told():
        return told, False
    if meter.is_error or exchange.method != "POST" or not body.model:
        return Usage(), False
    return Usage(body.tokens(), meter.written()), True

"""Anthropic, in its own format: thinking that survives a tool loop, documents, schemas, its cache."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from functools import partial

from modelway.config import ProviderSettings
from modelway.dialects import anthropic_messages
from modelway.dialects.replay import replayed
from modelway.errors import GatewayError, InvalidRequest, UpstreamRefusedCredential
from modelway.provider import ProviderInfo
from modelway.providers._call import Call
from modelway.providers._calling import Decoder, WholeBody
from modelway.providers._settings import KeyLookup, address_of, as_set, headers_of, key_of
from modelway.providers.http import (
    HTTPClient,
    Response,
    Secret,
    errors_of,
    good_response,
)
from modelway.types import ChatRequest, Model

NAME = "Anthropic"
URL = "https://platform.claude.com/docs"
BASE_URL = "https://api.anthropic.com"
KEY_VARIABLE = "ANTHROPIC_API_KEY"
DEFAULT_MODEL = "claude-sonnet-5-5"
MODELS = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-1")
SUPPORTS = ("system", "tools", "images", "files", "json_schema", "reasoning")

# An account without money, or at a limit of its own, is told of as a request that is wrong.
_MONEY_WORDS = ("credit balance is too low", "usage limits", "spend limit")


class Anthropic:
    """The provider. The address may end in /v1."""

    def __init__(self, settings: ProviderSettings, *, http: HTTPClient, key_lookup: KeyLookup) -> None:
        needed = settings.needs_auth is not False
        info = ProviderInfo(
            name=NAME,
            label=NAME,
            url=URL,
            default_model=DEFAULT_MODEL,
            models=MODELS,
            needs_auth=needed,
            supports=SUPPORTS,
            params=anthropic_messages.PARAMS,
            dialect=anthropic_messages.NAME,
        )
        self._info = as_set(info, settings)
        self._http = http
        self._key = key_of(NAME, settings, (KEY_VARIABLE,), key_lookup, needed=needed)
        self._headers = headers_of(settings.headers)
        self._base_url = address_of(NAME, settings, BASE_URL).removesuffix("/v1")

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; not ready as long as it needs a key and has none."""
        return self._key.told_in(self._info)

    def stream(self, request: ChatRequest) -> Call:
        """Answer the request with one call of the upstream."""
        return self.telling(request)

    def telling(self, request: ChatRequest) -> Call:
        """As stream()."""
        key = self._key.required()
        body = anthropic_messages.encode_request(request)
        headers = self._headers_with(key, anthropic_messages.headers_for(request))
        return Call(
            self._http,
            self._http.prepare("POST", self._base_url + "/v1/messages", headers),
            body,
            partial(self._decoder, request),
            name=NAME,
            secret=Secret(key),
            to_error=self._to_error,
            address_hint="check base_url",
        )

    async def count_tokens(self, request: ChatRequest) -> int:
        """How many input tokens the upstream counts; see CountsTokens."""
        key = self._key.required()
        with Secret(key).kept_out_of_errors():
            body = anthropic_messages.encode_count_request(request)
            own = anthropic_messages.headers_for(request)
            call = self._call("POST", "/v1/messages/count_tokens", key, body, own)
            async with aclosing(await call) as response:
                return anthropic_messages.decode_count(await response.body())

    async def models(self) -> list[Model]:
        """What the upstream lists now, the newest first."""
        key = self._key.required()
        with Secret(key).kept_out_of_errors():
            async with aclosing(await self._call("GET", "/v1/models?limit=1000", key)) as response:
                return anthropic_messages.decode_models(await response.body())

    async def aclose(self) -> None:
        """Nothing is held here: the connections belong to the shared HTTP client."""

    def _decoder(self, request: ChatRequest, content_type: str) -> Decoder:
        speaks_it = request.dialect == anthropic_messages.NAME
        turns = replayed(request)
        if not request.stream or content_type == "application/json":
            raw = speaks_it and not request.stream
            return WholeBody(partial(anthropic_messages.decode_completion, raw=raw, turns=turns))
        limit = self._http.settings.max_event_bytes
        return anthropic_messages.EventDecoder(raw=speaks_it, turns=turns, max_event_bytes=limit)

    async def _call(
        self, method: str, path: str, key: str, body: bytes = b"", own: Mapping[str, str] = {}
    ) -> Response:
        return await good_response(
            self._http,
            method,
            self._base_url + path,
            name=NAME,
            headers=self._headers_with(key, own),
            body=body,
            secret=Secret(key),
            to_error=self._to_error,
        )

    def _headers_with(self, key: str, own: Mapping[str, str]) -> Mapping[str, str]:
        return {
            "anthropic-version": anthropic_messages.VERSION,
            **own,
            **self._headers,
            **self._features(own),
            **({"x-api-key": key} if key else {}),
        }

    def _features(self, own: Mapping[str, str]) -> dict[str, str]:
        """What the caller has turned on, and what the user's settings do."""
        name = "anthropic-beta"
        features = [headers[name] for headers in (own, self._headers) if name in headers]
        return {name: ",".join(features)} if features else {}

    def _to_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        to_error = errors_of(
            NAME,
            decode_error=anthropic_messages.decode_error,
            credential_hint=f"check the key: {self._key.hint}",
        )
        error = to_error(status, headers, body)
        if isinstance(error, InvalidRequest) and any(
            words in error.message.lower() for words in _MONEY_WORDS
        ):
            return UpstreamRefusedCredential(error.message, hint="see the account's billing")
        return error

"""Anthropic, in its own format: thinking that survives a tool loop, documents, schemas, its cache."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from modelway.config import ProviderSettings
from modelway.dialects import anthropic_messages
from modelway.dialects.replay import replayed
from modelway.errors import InvalidRequest, UpstreamProtocolError, UpstreamRefusedCredential
from modelway.provider import ProviderInfo
from modelway.providers._own import KeyLookup, address_of, headers_of, key_of
from modelway.providers._secret import Secret
from modelway.providers.http import HTTPClient, Response, raise_for_status
from modelway.types import ChatRequest, Event, Model

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
        self._settings = settings
        self._http = http
        self._key = key_of(NAME, settings, (KEY_VARIABLE,), key_lookup)
        self._headers = headers_of(settings)
        self._base_url = address_of(NAME, settings, BASE_URL).removesuffix("/v1")

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; not ready as long as it needs a key and has none."""
        settings = self._settings
        missing = self._key.missing() if self._needs_key else ""
        return ProviderInfo(
            name=NAME,
            label=settings.label or NAME,
            url=URL,
            default_model=settings.default_model or DEFAULT_MODEL,
            models=MODELS if settings.models is None else settings.models,
            needs_auth=self._needs_key,
            credential_source=self._key.source(),
            supports=SUPPORTS if settings.supports is None else settings.supports,
            params=anthropic_messages.PARAMS,
            ready=not missing,
            missing=missing,
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request with one call of the upstream."""
        key = self._require_key()
        with Secret(key).kept_out_of_errors():
            body = anthropic_messages.encode_request(request)
            version = anthropic_messages.version_for(request)
            async with (
                aclosing(await self._call("POST", "/v1/messages", key, body, version)) as response,
                aclosing(self._read(request, response)) as events,
            ):
                async for event in events:
                    yield event

    async def models(self) -> list[Model]:
        """What the upstream lists now, the newest first."""
        key = self._require_key()
        with Secret(key).kept_out_of_errors():
            async with aclosing(await self._call("GET", "/v1/models?limit=1000", key)) as response:
                return anthropic_messages.decode_models(await response.body())

    async def aclose(self) -> None:
        """Nothing is held here: the connections belong to the shared HTTP client."""

    async def _read(self, request: ChatRequest, response: Response) -> AsyncGenerator[Event, None]:
        speaks_it = request.dialect == anthropic_messages.NAME
        turns = replayed(request)
        if not request.stream or response.content_type == "application/json":
            answer = await response.body()
            raw = speaks_it and not request.stream
            for event in anthropic_messages.decode_completion(answer, raw=raw, turns=turns):
                yield event
            return
        decoder = anthropic_messages.EventDecoder(
            raw=speaks_it, turns=turns, max_event_bytes=self._http.settings.max_event_bytes
        )
        while chunk := await response.read():
            events: Iterable[Event] = decoder.feed(chunk)
            if decoder.finished:
                # Before the last event is given: whoever has seen it may close this generator.
                response.finish()
            for event in events:
                yield event
            if decoder.finished:
                return
        for event in decoder.close():
            yield event

    async def _call(
        self, method: str, path: str, key: str, body: bytes = b"", version: str = anthropic_messages.VERSION
    ) -> Response:
        """The response, when its status is a good one and it can be an answer."""
        headers = {"anthropic-version": version, **self._headers}
        if key:
            headers["x-api-key"] = key
        response = await self._http.request(method, self._base_url + path, headers=headers, body=body)
        try:
            await raise_for_status(
                response,
                decode_error=anthropic_messages.decode_error,
                name=NAME,
                credential=key,
                credential_hint=f"check the key: {self._key.hint}",
            )
            if response.content_type == "text/html":
                raise UpstreamProtocolError(f"{NAME} answered with a web page", hint="check base_url")
        except InvalidRequest as error:
            await response.aclose()
            if any(words in error.message.lower() for words in _MONEY_WORDS):
                raise UpstreamRefusedCredential(error.message, hint="see the account's billing") from error
            raise
        except BaseException:
            await response.aclose()
            raise
        return response

    @property
    def _needs_key(self) -> bool:
        return self._settings.needs_auth is not False

    def _require_key(self) -> str:
        return self._key.required() if self._needs_key else self._key()

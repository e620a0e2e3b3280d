"""Ollama, in its own format: it thinks aloud, takes schemas and images, and says which models it has."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from msgspec.structs import replace

from modelway.config import ProviderSettings
from modelway.dialects import ollama_chat
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    ModelNotFound,
    SignInRequired,
    UpstreamProtocolError,
    UpstreamUnreachable,
)
from modelway.provider import ProviderInfo, RelayReply, RelayRequest
from modelway.providers._own import KeyLookup, address_of, headers_of, kept_out_of_errors, key_of
from modelway.providers.http import HTTPClient, Response, raise_for_status
from modelway.types import ChatRequest, Event, Model

NAME = "Ollama"
URL = "https://docs.ollama.com/api"
BASE_URL = "http://localhost:11434"
KEY_VARIABLE = "OLLAMA_API_KEY"
SUPPORTS = ("system", "tools", "images", "json_object", "json_schema", "reasoning")
MAX_LISTED = 10
MORE_CONTEXT = "give the model more with OLLAMA_CONTEXT_LENGTH or `num_ctx`, or shorten the conversation"

_IS_NAME = re.compile(r"[\w.:/-]{1,200}").fullmatch


class Ollama:
    """The provider. The address may end in /v1 or /api; both are taken off.

    Where no default model is configured it is the first that the server lists, which is known from the
    first request or list on.
    """

    def __init__(self, settings: ProviderSettings, *, http: HTTPClient, key_lookup: KeyLookup) -> None:
        self._settings = settings
        self._http = http
        self._key = key_of(NAME, settings, (KEY_VARIABLE,), key_lookup)
        self._headers = headers_of(settings)
        address = address_of(NAME, settings, BASE_URL)
        self._base_url = address.removesuffix("/v1").removesuffix("/api")
        self._first = ""

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; whether Ollama runs shows only when it is asked."""
        settings = self._settings
        missing = self._key.missing() if settings.needs_auth else ""
        return ProviderInfo(
            name=NAME,
            label=settings.label or NAME,
            url=URL,
            default_model=settings.default_model or self._first,
            models=settings.models or (),
            finds_model=True,
            needs_auth=bool(settings.needs_auth),
            credential_source=self._key.source(),
            supports=SUPPORTS if settings.supports is None else settings.supports,
            params=ollama_chat.PARAMS,
            ready=not missing,
            missing=missing,
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request with one call of the upstream."""
        key = self._require_key()
        with kept_out_of_errors(key):
            model = request.model or await self._first_model()
            body = ollama_chat.encode_request(replace(request, model=model))
            try:
                response = await self._call("POST", "/api/chat", key, body)
            except ModelNotFound as error:
                raise await self._not_there(model, error) from error
            except ContextTooLong as error:
                error.hint = MORE_CONTEXT
                raise
            async with aclosing(response), aclosing(self._read(request, response)) as events:
                async for event in events:
                    yield event

    async def models(self) -> list[Model]:
        """The models that have been pulled, the newest first."""
        key = self._require_key()
        with kept_out_of_errors(key):
            listed = await self._list("/api/tags", key)
        self._first = listed[0].id if listed else ""
        return listed

    async def relay(self, request: RelayRequest) -> RelayReply:
        """Pass on a request for any other address, embeddings for example, as OpenAI has it."""
        key = self._require_key()
        path = f"/v1/{request.path}" + (f"?{request.query}" if request.query else "")
        with kept_out_of_errors(key):
            return await self._call(request.method, path, key, request.body, request.headers)

    async def aclose(self) -> None:
        """Nothing is held here: the connections belong to the shared HTTP client."""

    async def _read(self, request: ChatRequest, response: Response) -> AsyncGenerator[Event, None]:
        raw = request.dialect == ollama_chat.NAME
        if not request.stream:
            for event in ollama_chat.decode_completion(await response.body(), raw=raw):
                yield event
            return
        decoder = ollama_chat.EventDecoder(raw=raw, max_event_bytes=self._http.settings.max_event_bytes)
        while chunk := await response.read():
            for event in decoder.feed(chunk):
                if decoder.finished:
                    # Before the last event is given: whoever has seen it may close this generator.
                    response.finish()
                yield event
            if decoder.finished:
                return
        for event in decoder.close():
            yield event

    async def _first_model(self) -> str:
        """The first model that the server has."""
        listed = await self.models()
        if not listed:
            raise ModelNotFound(
                f"{NAME} has no model yet",
                hint="pull one: `ollama pull qwen3`, for example",
                param="model",
                failover=True,
            )
        return listed[0].id

    async def _not_there(self, model: str, error: ModelNotFound) -> ModelNotFound:
        """The error, with what could be used instead."""
        if model == self._first:
            self._first = ""
        try:
            key = self._require_key()
            has = [one.id for one in await self._list("/api/tags", key)]
            loaded = [one.id for one in await self._list("/api/ps", key)]
        except GatewayError:
            # Nobody there who knows of models: the address is wrong rather than the name.
            return error
        hint = f"`ollama pull {model}`" if _IS_NAME(model) else "check the model's name"
        hint += f"; it has {', '.join(has[:MAX_LISTED])}" if has else "; it has no model yet"
        hint += f" (loaded: {', '.join(loaded[:MAX_LISTED])})" if loaded else ""
        return ModelNotFound(f"{NAME} does not have this model", hint=hint, param="model", failover=True)

    async def _list(self, path: str, key: str) -> list[Model]:
        async with aclosing(await self._call("GET", path, key)) as response:
            return ollama_chat.decode_models(await response.body())

    async def _call(
        self, method: str, path: str, key: str, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> Response:
        """The response, when its status is a good one and it can be an answer."""
        headers = {**({"authorization": f"Bearer {key}"} if key else {}), **self._headers, **headers}
        try:
            response = await self._http.request(method, self._base_url + path, headers=headers, body=body)
        except UpstreamUnreachable as error:
            if error.code == UpstreamUnreachable.code:
                error.hint = f"start it with `ollama serve`, or set [providers.{NAME}] base_url"
            raise
        try:
            await raise_for_status(
                response,
                decode_error=ollama_chat.decode_error,
                name=NAME,
                credential=key,
                credential_hint=f"check the key: {self._key.hint}",
            )
            if response.content_type == "text/html":
                raise UpstreamProtocolError(f"{NAME} answered with a web page", hint="check base_url")
        except BaseException:
            await response.aclose()
            raise
        return response

    def _require_key(self) -> str:
        key = self._key()
        if self._settings.needs_auth and not key:
            raise SignInRequired(f"{NAME} has no API key here", hint=self._key.hint)
        return key

"""Ollama, in its own format: it thinks aloud, takes schemas and images, and says which models it has."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial

from msgspec.structs import replace

from modelway.config import ProviderSettings
from modelway.dialects import ollama_chat
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    ModelNotFound,
    UpstreamUnreachable,
)
from modelway.provider import ProviderInfo, RelayReply, RelayRequest
from modelway.providers._settings import KeyLookup, address_of, as_set, headers_of, key_of
from modelway.providers.http import (
    HTTPClient,
    Response,
    Secret,
    errors_of,
    events_of,
    events_of_body,
    good_response,
)
from modelway.types import ChatRequest, Event, Model

NAME = "Ollama"
URL = "https://docs.ollama.com/api"
BASE_URL = "http://localhost:11434"
KEY_VARIABLE = "OLLAMA_API_KEY"
SUPPORTS = ("system", "tools", "images", "json_object", "json_schema", "reasoning", "completions")
MORE_CONTEXT = "give the model more with OLLAMA_CONTEXT_LENGTH or `num_ctx`, or shorten the conversation"

_IS_NAME = re.compile(r"[\w.:/-]{1,200}").fullmatch


class Ollama:
    """The provider. The address may end in /v1 or /api; both are taken off.

    Where no default model is configured it is the first that the server lists, which is known from the
    first request or list on.
    """

    def __init__(self, settings: ProviderSettings, *, http: HTTPClient, key_lookup: KeyLookup) -> None:
        needed = bool(settings.needs_auth)
        info = ProviderInfo(
            name=NAME,
            label=NAME,
            url=URL,
            finds_model=True,
            needs_auth=needed,
            supports=SUPPORTS,
            params=ollama_chat.PARAMS,
            dialect=ollama_chat.NAME,
            untried=not needed,
        )
        self._info = as_set(info, settings)
        self._http = http
        self._key = key_of(NAME, settings, (KEY_VARIABLE,), key_lookup, needed=needed)
        self._headers = headers_of(settings.headers)
        address = address_of(NAME, settings, BASE_URL)
        self._base_url = address.removesuffix("/v1").removesuffix("/api")
        self._first = ""
        self._to_error = errors_of(
            NAME, decode_error=ollama_chat.decode_error, credential_hint=f"check the key: {self._key.hint}"
        )

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; whether Ollama runs shows only when it is asked."""
        info = self._info
        return self._key.told_in(replace(info, default_model=info.default_model or self._first))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request with one call of the upstream."""
        key = self._key.required()
        with Secret(key).kept_out_of_errors():
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
        key = self._key.required()
        with Secret(key).kept_out_of_errors():
            listed = await self._list("/api/tags", key)
        self._first = listed[0].id if listed else ""
        return listed

    async def relay(self, request: RelayRequest) -> RelayReply:
        """Pass on a request for any other address, embeddings for example, as OpenAI has it."""
        key = self._key.required()
        path = f"/v1/{request.path}" + (f"?{request.query}" if request.query else "")
        with Secret(key).kept_out_of_errors():
            return await self._call(request.method, path, key, request.body, request.headers)

    async def aclose(self) -> None:
        """Nothing is held here: the connections belong to the shared HTTP client."""

    def _read(self, request: ChatRequest, response: Response) -> AsyncGenerator[Event, None]:
        raw = request.dialect == ollama_chat.NAME
        if not request.stream:
            return events_of_body(response, partial(ollama_chat.decode_completion, raw=raw))
        limit = self._http.settings.max_event_bytes
        return events_of(response, ollama_chat.EventDecoder(raw=raw, max_event_bytes=limit))

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
        """The error, with what could be used instead: first what is loaded already."""
        if model == self._first:
            self._first = ""
        try:
            key = self._key.required()
            has = [one.id for one in await self._list("/api/tags", key)]
            loaded = [one.id for one in await self._list("/api/ps", key)]
        except GatewayError:
            # Nobody there who knows of models: the address is wrong rather than the name.
            return error
        hint = f"`ollama pull {model}`" if _IS_NAME(model) else "check the model's name"
        hint += "" if has else "; it has no model yet"
        missing = ModelNotFound(f"{NAME} does not have this model", hint=hint, param="model", failover=True)
        missing.others = list(dict.fromkeys((*loaded, *has)))
        return missing

    async def _list(self, path: str, key: str) -> list[Model]:
        async with aclosing(await self._call("GET", path, key)) as response:
            return ollama_chat.decode_models(await response.body())

    async def _call(
        self, method: str, path: str, key: str, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> Response:
        headers = {**({"authorization": f"Bearer {key}"} if key else {}), **self._headers, **headers}
        try:
            return await good_response(
                self._http,
                method,
                self._base_url + path,
                name=NAME,
                headers=headers,
                body=body,
                secret=Secret(key),
                to_error=self._to_error,
            )
        except UpstreamUnreachable as error:
            if error.code == UpstreamUnreachable.code:
                error.hint = f"start it with `ollama serve`, or set [providers.{NAME}] base_url"
            raise

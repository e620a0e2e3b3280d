"""Google Gemini, in its own format, with an API key."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

from modelway.config import ProviderSettings
from modelway.dialects import gemini
from modelway.provider import ProviderInfo, RelayReply, RelayRequest
from modelway.providers._gemini import DEFAULT_MODEL, MODELS, SUPPORTS, Access, Calls
from modelway.providers._settings import KeyLookup, address_of, as_set, headers_of, key_of
from modelway.providers.http import HTTPClient, Secret
from modelway.types import ChatRequest, Event, Model

NAME = "Gemini"
URL = "https://ai.google.dev/gemini-api/docs"
BASE_URL = "https://generativelanguage.googleapis.com/v1beta"
KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
MAX_PAGES = 10


class Gemini:
    """The provider. An address that ends in /openai, as older settings have it, is taken without that."""

    def __init__(self, settings: ProviderSettings, *, http: HTTPClient, key_lookup: KeyLookup) -> None:
        info = ProviderInfo(
            name=NAME,
            label="Google Gemini",
            url=URL,
            default_model=DEFAULT_MODEL,
            models=MODELS,
            needs_auth=True,
            supports=SUPPORTS,
            params=gemini.PARAMS,
        )
        self._info = as_set(info, settings)
        self._key = key_of(NAME, settings, KEY_VARIABLES, key_lookup)
        self._headers = headers_of(settings.headers)
        self._base_url = address_of(NAME, settings, BASE_URL).removesuffix("/openai")
        self._calls = Calls(NAME, http=http, credential_hint=f"check the key: {self._key.hint}")

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; not ready as long as it has no key."""
        return self._key.told_in(self._info)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request with one call of the upstream."""
        url = f"{self._base_url}/{_path(request.model)}"
        async with aclosing(self._calls.answer(request, url, self._access())) as events:
            async for event in events:
                yield event

    async def models(self) -> list[Model]:
        """The models that answer chats."""
        access = self._access()
        found: list[Model] = []
        page = ""
        with access.secret.kept_out_of_errors():
            for _ in range(MAX_PAGES):
                url = f"{self._base_url}/models?pageSize=1000" + (f"&pageToken={quote(page)}" if page else "")
                async with aclosing(await self._calls.call("GET", url, access)) as response:
                    models, page = gemini.decode_models(await response.body())
                found += models
                if not page:
                    break
        return found

    async def relay(self, request: RelayRequest) -> RelayReply:
        """Pass on a request for any other address, embeddings for example, as OpenAI has it."""
        key = self._key.required()
        url = f"{self._base_url}/openai/{request.path}" + (f"?{request.query}" if request.query else "")
        headers = {"authorization": f"Bearer {key}", **self._headers, **request.headers}
        access = Access(headers, Secret(key))
        with access.secret.kept_out_of_errors():
            return await self._calls.call(request.method, url, access, request.body)

    async def aclose(self) -> None:
        """Nothing is held here: the connections belong to the shared HTTP client."""

    def _access(self) -> Access:
        key = self._key.required()
        return Access({"x-goog-api-key": key, **self._headers}, Secret(key))


def _path(model: str) -> str:
    """The resource of a model, which is one of Google's unless it says that it is tuned."""
    folder = "tunedModels" if model.startswith("tunedModels/") else "models"
    return f"{folder}/{quote(model.removeprefix(folder + '/'), safe='')}"

"""Gemini on Google Cloud's Vertex AI, with a token of Google Cloud's in place of a key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import cached_property
from urllib.parse import quote

from msgspec.structs import replace

from modelway.config import ProviderSettings, VertexSettings
from modelway.dialects import gemini
from modelway.errors import ProviderNotConfigured
from modelway.provider import ProviderInfo
from modelway.providers._gemini import DEFAULT_MODEL, MODELS, SUPPORTS, Access, Calls
from modelway.providers._google_tokens import INSTALL, NO_EXTRA, SIGN_IN, GoogleTokens, has_extra
from modelway.providers._settings import KeyLookup, address_of, as_set, headers_of
from modelway.providers.http import HTTPClient, Secret
from modelway.types import ChatRequest, Event, Model

NAME = "Vertex"
URL = "https://cloud.google.com/vertex-ai/generative-ai/docs"
PROJECT_VARIABLE = "GOOGLE_CLOUD_PROJECT"
NO_PROJECT = "Vertex AI has no project here"
SET_PROJECT = f"set [vertex] project, or the environment variable {PROJECT_VARIABLE}"


class Vertex:
    """The provider. `base_url` of its settings replaces the address before /projects."""

    def __init__(
        self,
        settings: ProviderSettings,
        place: VertexSettings,
        *,
        http: HTTPClient,
        key_lookup: KeyLookup,
        has_extra: Callable[[], bool] = has_extra,
    ) -> None:
        info = ProviderInfo(
            name=NAME,
            label="Google Vertex AI",
            url=URL,
            default_model=DEFAULT_MODEL,
            # Gemini has the same names: they lead here only where the user says so.
            models=(),
            needs_auth=True,
            credential_source="file" if settings.api_key_file else "",
            supports=SUPPORTS,
            params=gemini.PARAMS,
        )
        self._info = as_set(info, settings)
        self._location = place.location
        self._project = place.project or key_lookup(PROJECT_VARIABLE, "")
        self._headers = headers_of(settings.headers)
        self._base_url = address_of(NAME, settings, _address(place.location))
        self._look_for_extra = has_extra
        file = settings.api_key_file or ""
        self._tokens = GoogleTokens(lambda: key_lookup("", file) if file else "", self._project)
        self._calls = Calls(NAME, http=http, credential_hint=SIGN_IN)

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; whether there are credentials shows only when a token is fetched."""
        reason, remedy = self._missing
        return replace(
            self._info,
            ready=not reason,
            missing=f"{reason}: {remedy}" if reason else "",
            untried=not (reason or self._info.credential_source),
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request with one call of the upstream."""
        reason, remedy = self._missing
        if reason:
            raise ProviderNotConfigured(reason, hint=remedy)
        token = await self._tokens.token()
        access = Access({"authorization": f"Bearer {token}", **self._headers}, Secret(token))
        async with aclosing(self._calls.answer(request, self._url(request.model), access)) as events:
            async for event in events:
                yield event

    async def models(self) -> list[Model]:
        """The known ones: Vertex AI lists all that it could serve, not what the project may use."""
        return [Model(id=name, owned_by="google") for name in self._info.models or MODELS]

    async def aclose(self) -> None:
        """Wait for no token any more; the connections belong to the shared HTTP client."""
        await self._tokens.aclose()

    @cached_property
    def _missing(self) -> tuple[str, str]:
        """What is missing, and the remedy; "" where nothing is."""
        if not self._look_for_extra():
            return NO_EXTRA, INSTALL
        return ("", "") if self._project else (NO_PROJECT, SET_PROJECT)

    def _url(self, model: str) -> str:
        name = quote(model.removeprefix("publishers/google/models/"), safe="")
        place = f"projects/{quote(self._project, safe=':')}/locations/{quote(self._location, safe='')}"
        return f"{self._base_url}/{place}/publishers/google/models/{name}"


def _address(location: str) -> str:
    """Where a location is served: the global one, an area of several regions, or one region."""
    if location == "global":
        return "https://aiplatform.googleapis.com/v1beta1"
    if location in ("us", "eu"):
        return f"https://aiplatform.{location}.rep.googleapis.com/v1beta1"
    return f"https://{location}-aiplatform.googleapis.com/v1beta1"

"""Every upstream that speaks OpenAI's chat completions: the presets, and any base URL that the user sets."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.config import ProviderSettings
from modelway.dialects import openai_chat
from modelway.errors import GatewayError, ProviderNotConfigured, SignInRequired, UpstreamProtocolError
from modelway.provider import ProviderInfo, RelayReply, RelayRequest
from modelway.providers.http import HTTPClient, Response, parse_url, raise_for_status, redact
from modelway.types import ChatRequest, Event, Model, Params

_IS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*").fullmatch


class Quirks(Struct, frozen=True, kw_only=True):
    """In what an upstream departs from the format.

    `auth` is "bearer" or the name of the header that takes the key. `include_usage` is False where
    `stream_options` is refused. `drop` names further request fields that are refused.
    """

    auth: str = "bearer"
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    include_usage: bool = True
    drop: tuple[str, ...] = ()


STANDARD = Quirks()


class Preset(Quirks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of presets.toml: an upstream given as data.

    `key_env` names the environment variable of the key. A `base_url` with a {placeholder} must be
    replaced by the user's own.
    """

    label: str
    url: str
    base_url: str
    key_env: str = ""
    needs_auth: bool = True
    default_model: str = ""
    models: tuple[str, ...] = ()
    supports: tuple[str, ...] = ("system", "tools", "json_object", "json_schema")


class OpenAICompatible:
    """A provider for one base URL. `key` gives the credential, "" where there is none (yet).

    `key_hint` tells a person where the key is set, `key_source` a program where it comes from. What
    `info` lacks of `params` is filled in. Headers that callers send never reach the upstream.
    """

    def __init__(
        self,
        info: ProviderInfo,
        base_url: str,
        *,
        http: HTTPClient,
        key: Callable[[], str],
        headers: Mapping[str, str] = {},
        quirks: Quirks = STANDARD,
        key_hint: str = "",
        key_source: str = "",
    ) -> None:
        self._info = info if info.params else replace(info, params=_params_without(quirks.drop))
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._key = key
        self._key_hint = key_hint or f"set [providers.{info.name}] api_key_env or api_key_file"
        self._with_key = replace(self._info, credential_source=key_source)
        self._has_key = False
        self._quirks = quirks
        self._drop = quirks.drop if quirks.include_usage else (*quirks.drop, "stream_options")
        own = {name.lower(): value for name, value in headers.items()}
        self._headers = {"content-type": "application/json", **own}

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; not ready as long as it needs a key and has none."""
        if self._has_key:
            return self._with_key
        missing = f"no API key: {self._key_hint}"
        try:
            self._has_key = bool(self._key())
        except GatewayError as error:
            missing = error.explanation
        if self._has_key:
            return self._with_key
        if not self._info.needs_auth or not self._info.ready:
            return self._info
        return replace(self._info, ready=False, missing=missing)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request with one call of the upstream."""
        key = self._require_key()
        body = openai_chat.encode_request(
            request,
            include_usage=self._quirks.include_usage,
            max_tokens_field=self._quirks.max_tokens_field,
            drop=self._drop,
        )
        try:
            response = await self._call("POST", "/chat/completions", key, body)
            async with aclosing(response):
                if request.stream and response.content_type != "application/json":
                    async with aclosing(self._read_stream(request, response)) as events:
                        async for event in events:
                            yield event
                    return
                answer = await response.body()
            raw = request.dialect == openai_chat.NAME and not request.stream
            for event in openai_chat.decode_completion(answer, raw=raw):
                yield event
        except GatewayError as error:
            _hide(error, key)
            raise

    async def models(self) -> list[Model]:
        """What the upstream lists now; an upstream without a list raises its error."""
        key = self._require_key()
        try:
            async with aclosing(await self._call("GET", "/models", key)) as response:
                return openai_chat.decode_models(await response.body())
        except GatewayError as error:
            _hide(error, key)
            raise

    async def relay(self, request: RelayRequest) -> RelayReply:
        """Pass on a request for any other address under the base URL."""
        key = self._require_key()
        path = f"/{request.path}?{request.query}" if request.query else f"/{request.path}"
        try:
            return await self._call(request.method, path, key, request.body, request.headers)
        except GatewayError as error:
            _hide(error, key)
            raise

    async def aclose(self) -> None:
        """Nothing is held here: the connections belong to the shared HTTP client."""

    async def _read_stream(self, request: ChatRequest, response: Response) -> AsyncGenerator[Event, None]:
        decoder = openai_chat.EventDecoder(
            raw=request.dialect == openai_chat.NAME,
            include_usage=request.include_usage,
            choices=request.params.n or 1,
            max_event_bytes=self._http.settings.max_event_bytes,
        )
        while chunk := await response.read():
            events = decoder.feed(chunk)
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
        self, method: str, path: str, key: str, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> Response:
        """The response, when its status is a good one and it can be an answer."""
        response = await self._http.request(
            method, self._base_url + path, headers={**self._headers_with(key), **headers}, body=body
        )
        try:
            await raise_for_status(
                response,
                decode_error=openai_chat.decode_error,
                name=self._info.name,
                credential=key,
                credential_hint=f"check the key: {self._key_hint}",
            )
            if response.content_type == "text/html":
                raise UpstreamProtocolError(
                    f"{self._info.name} answered with a web page",
                    hint="check base_url: it usually ends in /v1",
                )
        except BaseException:
            await response.aclose()
            raise
        return response

    def _headers_with(self, key: str) -> Mapping[str, str]:
        if not key:
            return self._headers
        if self._quirks.auth == "bearer":
            return {"authorization": f"Bearer {key}", **self._headers}
        return {self._quirks.auth: key, **self._headers}

    def _require_key(self) -> str:
        if not self._base_url:
            raise ProviderNotConfigured(self._info.missing or f"{self._info.name} has no base_url")
        key = self._key()
        self._has_key = bool(key)
        if self._info.needs_auth and not key:
            raise SignInRequired(f"{self._info.name} has no API key here", hint=self._key_hint)
        return key


def load_presets() -> dict[str, Preset]:
    """All presets by name."""
    text = Path(__file__).with_name("presets.toml").read_bytes()
    return msgspec.toml.decode(text, type=dict[str, Preset])


def build_provider(
    name: str,
    preset: Preset | None,
    settings: ProviderSettings | None,
    http: HTTPClient,
    key_lookup: Callable[[str, str], str],
) -> OpenAICompatible:
    """A provider out of a preset and the user's changes to it, or out of the user's settings alone.

    `key_lookup` takes the name of an environment variable and the path of a file, "" for none, and
    gives the key or "". Raises ProviderNotConfigured for settings that can never work.
    """
    if not _IS_NAME(name):
        raise ProviderNotConfigured(
            f"{name!r} cannot be the name of a provider", hint="use letters, digits, '.', '_' and '-'"
        )
    settings = settings or ProviderSettings()
    merged = _merge(name, preset, settings)
    missing = ""
    if "{" in merged.base_url:
        missing = f"{name} needs an address: set [providers.{name}] base_url to {merged.base_url}"
    env = merged.key_env if settings.api_key_env is None else settings.api_key_env
    file = settings.api_key_file or ""
    info = ProviderInfo(
        name=name,
        label=merged.label,
        url=merged.url,
        default_model=merged.default_model,
        models=merged.models,
        needs_auth=merged.needs_auth,
        supports=merged.supports,
        ready=not missing,
        missing=missing,
    )
    return OpenAICompatible(
        info,
        "" if missing else _checked(name, merged.base_url),
        http=http,
        key=lambda: key_lookup(env, file),
        headers=settings.headers or {},
        quirks=merged,
        key_hint=_key_hint(name, env, file),
        key_source="file" if file else "environment",
    )


def _merge(name: str, preset: Preset | None, settings: ProviderSettings) -> Preset:
    if preset is None:
        if not settings.base_url:
            near = [known for known in load_presets() if known.casefold() == name.casefold()]
            hint = f'did you mean the preset "{near[0]}"?' if near else f"set [providers.{name}] base_url"
            raise ProviderNotConfigured(f"{name} is not a preset and has no base_url", hint=hint)
        has_key = bool(settings.api_key_env or settings.api_key_file)
        preset = Preset(label=name, url="", base_url=settings.base_url, needs_auth=has_key)
    names = ("label", "base_url", "needs_auth", "default_model", "models", "supports")
    changes = {field: getattr(settings, field) for field in names}
    return replace(preset, **{field: value for field, value in changes.items() if value is not None})


def _checked(name: str, base_url: str) -> str:
    """The user's base URL, if it can be one; any http(s) host is the user's own choice."""
    try:
        parse_url(base_url)
    except ProviderNotConfigured as error:
        raise ProviderNotConfigured(f"[providers.{name}] base_url: {error.explanation}") from error
    if "?" in base_url or "#" in base_url:
        raise ProviderNotConfigured(f"[providers.{name}] base_url must not have a query or a fragment")
    return base_url


def _key_hint(name: str, env: str, file: str) -> str:
    if file:
        return f"put the key into the file named by [providers.{name}] api_key_file"
    if env:
        return f"set the environment variable {env}, or [providers.{name}] api_key_file"
    return f"set [providers.{name}] api_key_env or api_key_file"


def _params_without(drop: Collection[str]) -> tuple[str, ...]:
    return tuple(field for field in Params.__struct_fields__ if field not in drop)


def _hide(error: GatewayError, key: str) -> None:
    """Take the key out of an error that an upstream has put it into."""
    if key and key in error.message:
        error.message = redact(error.message, key)
        error.args = (error.message,)

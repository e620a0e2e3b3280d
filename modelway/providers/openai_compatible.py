"""Every upstream that speaks OpenAI's chat completions: the presets, and any base URL that the user sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.config import ProviderSettings
from modelway.dialects import openai_chat
from modelway.errors import ProviderNotConfigured
from modelway.provider import ProviderInfo, RelayReply, RelayRequest
from modelway.providers._call import Call
from modelway.providers._calling import Decoder, WholeBody
from modelway.providers._settings import Key, KeyLookup, address_of, as_set, headers_of, key_of
from modelway.providers.http import (
    HTTPClient,
    Prepared,
    Response,
    Secret,
    errors_of,
    good_response,
)
from modelway.types import ChatRequest, Model, Params

_ADDRESS_HINT = "check base_url: it usually ends in /v1"
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
    replaced by the user's own. `completions` and `responses`: it has these addresses, too.
    """

    label: str
    url: str
    base_url: str
    key_env: str = ""
    needs_auth: bool = True
    default_model: str = ""
    models: tuple[str, ...] = ()
    supports: tuple[str, ...] = ("system", "tools", "json_object", "json_schema")
    completions: bool = False
    responses: bool = False


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
        self._info = _described(info, quirks)
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._key = Key(info.name, key, needed=info.needs_auth, hint=key_hint, origin=key_source)
        self._quirks = quirks
        self._drop = quirks.drop if quirks.include_usage else (*quirks.drop, "stream_options")
        self._headers = headers_of(headers)
        self._chats: tuple[str, Prepared | None] = ("", None)
        self._to_error = errors_of(info.name, credential_hint=f"check the key: {self._key.hint}")

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; not ready as long as it needs a key and has none."""
        return self._key.told_in(self._info)

    def stream(self, request: ChatRequest) -> Call:
        """Answer the request with one call of the upstream."""
        return self.telling(request)

    def telling(self, request: ChatRequest) -> Call:
        """As stream()."""
        key = self._require_key()
        body = openai_chat.encode_request(
            request,
            include_usage=self._quirks.include_usage,
            max_tokens_field=self._quirks.max_tokens_field,
            drop=self._drop,
        )
        return Call(
            self._http,
            self._prepared(key),
            body,
            partial(self._decoder, request),
            name=self._info.name,
            secret=Secret(key),
            to_error=self._to_error,
            address_hint=_ADDRESS_HINT,
        )

    async def models(self) -> list[Model]:
        """What the upstream lists now; an upstream without a list raises its error."""
        key = self._require_key()
        with Secret(key).kept_out_of_errors():
            async with aclosing(await self._call("GET", "/models", key)) as response:
                return openai_chat.decode_models(await response.body())

    async def relay(self, request: RelayRequest) -> RelayReply:
        """Pass on a request for any other address under the base URL."""
        key = self._require_key()
        path = f"/{request.path}?{request.query}" if request.query else f"/{request.path}"
        with Secret(key).kept_out_of_errors():
            return await self._call(request.method, path, key, request.body, request.headers)

    async def aclose(self) -> None:
        """Nothing is held here: the connections belong to the shared HTTP client."""

    def _prepared(self, key: str) -> Prepared:
        """The heads of all chats with this key."""
        known, prepared = self._chats
        if prepared is None or known != key:
            url = self._base_url + "/chat/completions"
            prepared = self._http.prepare("POST", url, self._headers_with(key))
            self._chats = (key, prepared)
        return prepared

    def _decoder(self, request: ChatRequest, content_type: str) -> Decoder:
        speaks_it = request.dialect == openai_chat.NAME
        if not request.stream or content_type == "application/json":
            raw = speaks_it and not request.stream
            return WholeBody(partial(openai_chat.decode_completion, raw=raw))
        return openai_chat.EventDecoder(
            raw=speaks_it,
            include_usage=request.include_usage,
            choices=request.params.n or 1,
            max_event_bytes=self._http.settings.max_event_bytes,
        )

    async def _call(
        self, method: str, path: str, key: str, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> Response:
        return await good_response(
            self._http,
            method,
            self._base_url + path,
            name=self._info.name,
            headers={**self._headers_with(key), **headers},
            body=body,
            secret=Secret(key),
            to_error=self._to_error,
            address_hint=_ADDRESS_HINT,
            is_file=method == "GET" and path.partition("?")[0].endswith("/content"),
        )

    def _headers_with(self, key: str) -> Mapping[str, str]:
        if not key:
            return self._headers
        if self._quirks.auth == "bearer":
            return {"authorization": f"Bearer {key}", **self._headers}
        return {self._quirks.auth: key, **self._headers}

    def _require_key(self) -> str:
        if not self._base_url:
            raise ProviderNotConfigured(self._info.missing or f"{self._info.name} has no base_url")
        return self._key.required()


def load_presets() -> dict[str, Preset]:
    """All presets by name."""
    text = Path(__file__).with_name("presets.toml").read_bytes()
    return msgspec.toml.decode(text, type=dict[str, Preset])


def build_provider(
    name: str,
    preset: Preset | None,
    settings: ProviderSettings | None,
    http: HTTPClient,
    key_lookup: KeyLookup,
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
    preset = preset or _preset_of(name, settings)
    base_url = settings.base_url or preset.base_url
    missing = ""
    if "{" in base_url:
        missing = f"{name} needs an address: set [providers.{name}] base_url to {base_url}"
    needs_auth = preset.needs_auth if settings.needs_auth is None else settings.needs_auth
    key = key_of(name, settings, (preset.key_env,), key_lookup)
    info = ProviderInfo(
        name=name,
        label=preset.label,
        url=preset.url,
        default_model=preset.default_model,
        models=preset.models,
        needs_auth=needs_auth,
        supports=(
            *preset.supports,
            *(["completions"] if preset.completions else []),
            *(["responses"] if preset.responses else []),
        ),
        ready=not missing,
        missing=missing,
        untried=not (needs_auth or missing),
    )
    return OpenAICompatible(
        as_set(info, settings),
        "" if missing else address_of(name, settings, base_url),
        http=http,
        key=key,
        headers=settings.headers or {},
        quirks=preset,
        key_hint=key.hint,
        key_source=key.origin,
    )


def _preset_of(name: str, settings: ProviderSettings) -> Preset:
    """What the user's settings alone say of an upstream."""
    if not settings.base_url:
        near = [known for known in load_presets() if known.casefold() == name.casefold()]
        hint = f'did you mean the preset "{near[0]}"?' if near else f"set [providers.{name}] base_url"
        raise ProviderNotConfigured(f"{name} is not a preset and has no base_url", hint=hint)
    has_key = bool(settings.api_key_env or settings.api_key_file)
    return Preset(
        label=name,
        url="",
        base_url=settings.base_url,
        needs_auth=has_key,
        supports=("system", "tools", "json_object", "json_schema", "n"),
        completions=True,
    )


def _described(info: ProviderInfo, quirks: Quirks) -> ProviderInfo:
    """The description with what the upstream departs from."""
    known = Params.__struct_fields__
    params = info.params or tuple(field for field in known if field not in quirks.drop)
    lacks = tuple(field for field in quirks.drop if field not in known)
    return replace(info, params=params, dialect=openai_chat.NAME, lacks=lacks)

"""Amazon Bedrock: every model there that converses, by its Converse API. Needs the extra `bedrock`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from msgspec.structs import replace

from modelway.config import ProviderSettings
from modelway.dialects.replay import replayed
from modelway.errors import (
    GatewayError,
    InvalidRequest,
    ProviderNotConfigured,
    UpstreamFailed,
)
from modelway.provider import ProviderInfo
from modelway.providers._settings import KeyLookup, address_of, as_set, headers_of, key_of
from modelway.providers.bedrock import answering, listing
from modelway.providers.bedrock.asking import PARAMS, encode_request
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

if TYPE_CHECKING:
    from modelway.providers.bedrock.aws import Account

NAME = "Bedrock"
URL = "https://docs.aws.amazon.com/bedrock/"
KEY_VARIABLE = "AWS_BEARER_TOKEN_BEDROCK"
SUPPORTS = ("system", "tools", "images", "files", "json_schema", "reasoning")
INSTALL = 'install it with `pip install "modelway[bedrock]"`'
NO_REGION = "set AWS_REGION, or [providers.Bedrock] base_url to https://bedrock-runtime.REGION.amazonaws.com"
MAX_PAGES = 10

# Where credentials may come from besides the files; whether they are good shows only in a call.
_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}
_REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
_sets_region = re.compile(r"^\s*region\s*=\s*\S", re.MULTILINE).search
_region_in = re.compile(r"//bedrock(?:-runtime)?(?:-fips)?\.([a-z0-9-]+)\.").search


class Bedrock:
    """The provider. Calls are signed with the credentials that AWS's own tools use, unless there is a key.

    `home` is where the folder .aws is looked for, `is_installed` whether the extra is there, and
    `find_account` what finds whose calls they are.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        http: HTTPClient,
        key_lookup: KeyLookup,
        home: Path | None = None,
        find_account: Callable[[], Account] | None = None,
        is_installed: bool | None = None,
    ) -> None:
        info = ProviderInfo(
            name=NAME, label="Amazon Bedrock", url=URL, needs_auth=True, supports=SUPPORTS, params=PARAMS
        )
        self._info = as_set(info, settings)
        self._settings = settings
        self._http = http
        self._key = key_of(NAME, settings, (KEY_VARIABLE,), key_lookup)
        self._lookup = key_lookup
        self._home = Path.home() if home is None else home
        self._headers = headers_of(settings.headers)
        self._address = address_of(NAME, settings, "https://bedrock-runtime.REGION.amazonaws.com")
        self._is_installed = find_spec("botocore") is not None if is_installed is None else is_installed
        self._find_account = find_account or _find_account
        self._account: Account | None = None

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; not ready without the extra, or where nothing hints at credentials."""
        missing = self._missing()
        source = "" if missing else self._source()
        return replace(self._info, credential_source=source, ready=not missing, missing=missing)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request with one call of the upstream."""
        account, key = await self._open(), self._key()
        action = "converse-stream" if request.stream else "converse"
        url = f"{self._base_url(account)}/model/{quote(request.model, safe='')}/{action}"
        with Secret(key).kept_out_of_errors():
            body = encode_request(request)
            async with (
                aclosing(await self._call("POST", url, account, key, body)) as response,
                aclosing(self._read(request, response, account)) as events,
            ):
                async for event in events:
                    yield event

    async def models(self) -> list[Model]:
        """The models that can be named here: those on demand, and profiles of inference across regions."""
        account, key = await self._open(), self._key()
        base = self._base_url(account).replace("//bedrock-runtime", "//bedrock")
        with Secret(key).kept_out_of_errors():
            url = f"{base}/foundation-models?byOutputModality=TEXT"
            found = listing.decode_models(await self._get(url, account, key))
            query = {"maxResults": "1000"}
            for _ in range(MAX_PAGES):
                page = await self._get(f"{base}/inference-profiles?{urlencode(query)}", account, key)
                profiles, token = listing.decode_profiles(page)
                found += profiles
                if not token:
                    break
                query["nextToken"] = token
        return found

    async def aclose(self) -> None:
        """Nothing is held here: the connections belong to the shared HTTP client."""

    async def _open(self) -> Account:
        """Whose calls they are: found with the first one, for botocore is slow to load and reads files."""
        if not self._is_installed:
            raise ProviderNotConfigured(f"{NAME} needs the package botocore", hint=INSTALL)
        if self._account is None:
            self._account = await asyncio.to_thread(self._find_account)
        return self._account

    async def _get(self, url: str, account: Account, key: str) -> bytes:
        async with aclosing(await self._call("GET", url, account, key)) as response:
            return await response.body()

    def _read(
        self, request: ChatRequest, response: Response, account: Account
    ) -> AsyncGenerator[Event, None]:
        turns = replayed(request)
        if not request.stream:
            decode = partial(answering.decode_completion, turns=turns, model=request.model)
            return events_of_body(response, decode)
        frames = account.frames(self._http.settings.max_event_bytes)
        return events_of(response, answering.EventDecoder(frames, turns=turns, model=request.model))

    async def _call(self, method: str, url: str, account: Account, key: str, body: bytes = b"") -> Response:
        headers: Mapping[str, str] = self._headers
        if key:
            headers = {**headers, "authorization": f"Bearer {key}"}
        else:
            headers = await asyncio.to_thread(account.sign, method, url, headers, body, self._region(account))
        hint = f"check the key: {self._key.hint}" if key else "check the AWS credentials"
        return await good_response(
            self._http,
            method,
            url,
            name=NAME,
            headers=headers,
            body=body,
            secret=Secret(key),
            to_error=partial(_to_error, credential_hint=hint),
        )

    def _base_url(self, account: Account) -> str:
        if self._settings.base_url:
            return self._address
        return self._address.replace("REGION", self._region(account))

    def _region(self, account: Account) -> str:
        named = _region_in(self._settings.base_url or "")
        # botocore itself reads AWS_DEFAULT_REGION alone; the other SDKs of AWS know both.
        region = named[1] if named else self._lookup("AWS_REGION", "") or account.region
        if not region:
            raise ProviderNotConfigured(f"{NAME} has no region", hint=NO_REGION)
        return region

    def _missing(self) -> str:
        if not self._is_installed:
            return f"{NAME} needs the package botocore: {INSTALL}"
        if not self._source():
            return f"no AWS credentials: sign in with AWS's own tools, or set {KEY_VARIABLE}"
        return "" if self._has_region() else f"{NAME} has no region: {NO_REGION}"

    def _has_region(self) -> bool:
        """Whether there is a region, as far as it shows without a call."""
        address = self._settings.base_url or ""
        # A key is not signed with, so that an address is enough.
        if _region_in(address) or (address and self._key.source()):
            return True
        if self._account is not None:
            return bool(self._account.region)
        if any(self._lookup(variable, "") for variable in _REGION_VARIABLES):
            return True
        with suppress(OSError, UnicodeDecodeError):
            return _sets_region(self._file("AWS_CONFIG_FILE").read_text("utf-8")) is not None
        return False

    def _file(self, variable: str) -> Path:
        """One of the files of AWS's own tools."""
        named = self._lookup(variable, "")
        return Path(named).expanduser() if named else self._home / ".aws" / _FILES[variable]

    def _source(self) -> str:
        """Where credentials come from, as far as it shows without a call."""
        if source := self._key.source():
            return source
        if any(self._lookup(variable, "") for variable in _VARIABLES):
            return "environment"
        if any(self._file(variable).is_file() for variable in _FILES):
            return "file"
        return "machine" if self._account is not None and self._account.has_credentials else ""


def _to_error(status: int, headers: Mapping[str, str], body: bytes, *, credential_hint: str) -> GatewayError:
    if status == 424:
        message, _ = answering.decode_error(424, body)
        return UpstreamFailed(f"{NAME} says that the model failed: {message}")
    to_error = errors_of(NAME, decode_error=answering.decode_error, credential_hint=credential_hint)
    error = to_error(status, headers, body)
    if isinstance(error, InvalidRequest) and "on-demand throughput" in error.message:
        error.hint = "name an inference profile, such as eu.anthropic.claude-… (`modelway models`)"
    return error


def _find_account() -> Account:
    from modelway.providers.bedrock.aws import Account

    return Account.of_this_machine()

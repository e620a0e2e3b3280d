"""Lockchat: a service that speaks OpenAI's stream, takes its key in the URL and loses models for moments.

Its public address has been gone since 2023; the user sets one that speaks the same protocol.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from modelway.config import ProviderSettings, UpstreamSettings, settings_of
from modelway.dialects import openai_chat
from modelway.dialects.openai_chat.wire import error_in_stream
from modelway.errors import (
    GatewayError,
    ModelNotFound,
    ProviderNotConfigured,
    UpstreamProtocolError,
)
from modelway.provider import ProviderInfo
from modelway.providers._opening import ModelMissing, Opening
from modelway.providers._settings import Key, address_of, as_set, headers_of
from modelway.providers.http import HTTPClient, Response, Secret, errors_of, events_of, good_response
from modelway.settings import credential, load
from modelway.types import ChatRequest, Event, Model, Params, TextDelta

NAME = "Lockchat"
URL = "http://super.lockchat.app"
MODELS = ("gpt-4", "gpt-3.5-turbo")
NO_ADDRESS = "Lockchat has no address here: its public service is gone since 2023"
SET_ADDRESS = "set [providers.Lockchat] base_url to one that speaks its protocol"
DEFAULT_MODEL = "gpt-3.5-turbo"
TEMPERATURE = 0.7
MAX_ATTEMPTS = 3
FIRST_PAUSE_S = 0.25

_BLANK = b" \t\r\n\xef\xbb\xbf"


def create_completion(
    model: str,
    messages: list[dict[str, Any]],
    stream: bool = True,
    temperature: float = TEMPERATURE,
    *,
    base_url: str = "",
    auth: str = "",
    max_attempts: int = MAX_ATTEMPTS,
    **kwargs: Any,
) -> Generator[str, None, None]:
    """The answer's tokens as they come, or with `stream` False all text as one.

    Without `base_url` the address and the key are those of the user's settings; the key of the settings
    never goes to another address. Further keyword arguments are sent on. Raises a GatewayError: at once
    where an argument or a setting is wrong, while it is iterated where the call fails. It blocks, so it
    must not be used inside an event loop: `modelway.AsyncClient` is for that.
    """
    _refuse_inside_event_loop()
    limits, settings, found = UpstreamSettings(), ProviderSettings(base_url=base_url), ""
    if not base_url:
        loaded = load().settings
        limits, settings = loaded.upstream, settings_of(NAME, loaded.providers)
        found = credential(settings.api_key_env or "", settings.api_key_file or "")
    _endpoint(settings)
    key = auth or found
    fields = {**kwargs, "model": model, "messages": messages, "stream": stream, "temperature": temperature}
    request = openai_chat.decode_request(msgspec.json.encode(fields))
    return _iterate(
        lambda http: Lockchat(settings, http=http, key=lambda: key, max_attempts=max_attempts),
        request,
        limits,
    )


_create_completion = create_completion


def _parameters() -> dict[str, str]:
    """Names and types of what the function takes, but for what is the connection's."""
    signature = inspect.signature(create_completion)
    return {
        name: str(parameter.annotation).partition("[")[0]
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }


params = f"{NAME} supports: ({', '.join(f'{name}: {kind}' for name, kind in _parameters().items())})"


class Lockchat:
    """The provider. `key` gives the credential, "" where there is none.

    Unlike others it sends a request again by itself: at most `max_attempts` times in all, with a pause
    that doubles, and only where the upstream says instead of an answer that the model does not exist.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        http: HTTPClient,
        key: Callable[[], str],
        max_attempts: int = MAX_ATTEMPTS,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._info = _info(settings)
        self._settings = settings
        self._http = http
        origin = "file" if settings.api_key_file else "environment"
        self._key = Key(NAME, key, needed=self._info.needs_auth, origin=origin)
        self._max_attempts = max(1, max_attempts)
        self._first_pause_s = first_pause_s
        self._headers = headers_of(settings.headers)

    @property
    def info(self) -> ProviderInfo:
        """What this provider is, and where its key comes from."""
        return self._key.told_in(self._info)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request; see the class."""
        url, key = _endpoint(self._settings), self._key.required()
        secret = Secret(key)
        url += f"?auth={quote(key, safe='')}" if key else ""
        begun = False
        with secret.kept_out_of_errors():
            for attempt in range(1, self._max_attempts + 1):
                try:
                    async with (
                        aclosing(await self._call(request, url, secret)) as response,
                        aclosing(self._answer(request, response)) as events,
                    ):
                        async for event in events:
                            begun = True
                            yield event
                    return
                except ModelMissing as missing:
                    if begun or attempt == self._max_attempts:
                        raise ModelNotFound(
                            f"{NAME} says: {missing.words}",
                            hint="name another model",
                            param="model",
                            failover=True,
                        ) from None
                await asyncio.sleep(self._first_pause_s * 2.0 ** (attempt - 1))

    async def models(self) -> list[Model]:
        """The known ones: the upstream has no list."""
        return [Model(id=name) for name in self.info.models]

    async def aclose(self) -> None:
        """Nothing is held here: the connections belong to the shared HTTP client."""

    async def _call(self, request: ChatRequest, url: str, secret: Secret) -> Response:
        if request.params.temperature is None:
            request = replace(request, params=replace(request.params, temperature=TEMPERATURE))
        body = openai_chat.encode_request(
            replace(request, stream=True), include_usage=False, drop=("stream_options",)
        )
        return await good_response(
            self._http,
            "POST",
            url,
            name=NAME,
            headers=self._headers,
            body=body,
            secret=secret,
            to_error=errors_of(NAME, credential_hint=f"check the key: {self._key.hint}"),
        )

    async def _answer(self, request: ChatRequest, response: Response) -> AsyncGenerator[Event, None]:
        """The events of one call; the first is given when this certainly is an answer."""
        opening = Opening(request.model)
        try:
            async with aclosing(self._read(request, response, opening)) as events:
                async for event in events:
                    for given in opening.add(event):
                        yield given
        except GatewayError as error:
            if opening.says_missing(error):
                raise ModelMissing(opening.words) from None
            raise

    async def _read(
        self, request: ChatRequest, response: Response, opening: Opening
    ) -> AsyncGenerator[Event, None]:
        """What comes, whether as a stream or as a JSON object in one piece."""
        speaks_it = request.dialect == openai_chat.NAME
        chunk = await _beginning(response)
        if chunk.lstrip(_BLANK).startswith(b"{"):
            body = chunk + await response.body()
            for event in _whole(body, raw=speaks_it and not request.stream):
                yield event
            return
        decoder = _Remembering(
            opening,
            raw=speaks_it and request.stream,
            include_usage=request.include_usage,
            choices=request.params.n or 1,
            max_event_bytes=self._http.settings.max_event_bytes,
        )
        async with aclosing(events_of(response, decoder, chunk)) as events:
            async for event in events:
                yield event


class _Remembering(openai_chat.EventDecoder):
    """Reads one streamed answer, whose bytes `opening` sees too."""

    def __init__(self, opening: Opening, **options: Any) -> None:
        super().__init__(**options)
        self._opening = opening

    def feed(self, chunk: bytes) -> Iterable[Event]:
        self._opening.remember(chunk)
        return super().feed(chunk)


def _info(settings: ProviderSettings) -> ProviderInfo:
    info = ProviderInfo(
        name=NAME,
        label=NAME,
        url=URL,
        default_model=DEFAULT_MODEL,
        models=MODELS,
        needs_auth=bool(settings.needs_auth),
        supports=("system",),
        params=tuple(name for name in _parameters() if name in Params.__struct_fields__),
        dialect=openai_chat.NAME,
        ready=bool(settings.base_url),
        missing="" if settings.base_url else f"{NO_ADDRESS}: {SET_ADDRESS}",
    )
    return as_set(info, settings)


def _endpoint(settings: ProviderSettings) -> str:
    """The address of chat completions, if there can be one; any http(s) host is the user's own choice."""
    if not settings.base_url:
        raise ProviderNotConfigured(NO_ADDRESS, hint=SET_ADDRESS)
    return address_of(NAME, settings, "").removesuffix("/v1") + "/v1/chat/completions"


async def _beginning(response: Response) -> bytes:
    """The body up to its first byte that is not blank, and what came with it."""
    start = b""
    while not start.strip(_BLANK) and (piece := await response.read()):
        start += piece
    return start


def _whole(body: bytes, *, raw: bool) -> Iterable[Event]:
    """The events of an answer in one piece; an error object has many shapes."""
    try:
        value = msgspec.json.decode(body.lstrip(_BLANK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError(f"{NAME} answered with what is neither a stream nor JSON") from error
    if not value.get("choices"):
        raise error_in_stream(value.get("error") or value)
    return openai_chat.decode_completion(body, raw=raw)


async def _tokens(provider: Lockchat, request: ChatRequest) -> AsyncGenerator[str, None]:
    async with aclosing(provider.stream(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                yield event.text


def _iterate(
    make: Callable[[HTTPClient], Lockchat], request: ChatRequest, limits: UpstreamSettings
) -> Generator[str, None, None]:
    """Drive the provider on an event loop that runs only while the next token is waited for."""
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    http = HTTPClient(limits)
    tokens = _tokens(make(http), request)

    async def next_token() -> str | None:
        return await anext(tokens, None)

    async def close() -> None:
        await tokens.aclose()
        await http.aclose()

    try:
        if not request.stream:
            yield runner.run(_joined(tokens))
            return
        while (token := runner.run(next_token())) is not None:
            yield token
    finally:
        # When the interpreter exits, closing would wait for a thread that cannot be started any more.
        if not sys.is_finalizing():
            with runner:
                runner.run(close())


async def _joined(tokens: AsyncGenerator[str, None]) -> str:
    return "".join([token async for token in tokens])


def _refuse_inside_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("create_completion() blocks; inside an event loop use modelway.AsyncClient")

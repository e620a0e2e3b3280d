"""Upstreams that Mozilla's any-llm has a way to: one provider for them all, in OpenAI's format."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from modelway.config import ProviderSettings
from modelway.dialects import openai_chat
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ProviderNotConfigured,
    SignInRequired,
    UpstreamUnreachable,
)
from modelway.provider import ProviderInfo
from modelway.providers._redaction import Secret
from modelway.providers._settings import KeyLookup, as_set, key_of
from modelway.providers._status import error_for_status
from modelway.types import ChatRequest, Event, Model, Params

URL = "https://mozilla-ai.github.io/any-llm/"
SUPPORTS = ("system", "tools", "images", "json_object", "json_schema", "reasoning", "n")
INSTALL = "pip install 'modelway[any-llm]'"
# The SDK raises classes of its own; what lacks a status has one by its class.
_STATUS = {
    "AuthenticationError": 401,
    "ContentFilterError": 400,
    "GatewayTimeoutError": 504,
    "InsufficientFundsError": 402,
    "InvalidRequestError": 400,
    "ModelNotFoundError": 404,
    "RateLimitError": 429,
    "UnsupportedParameterError": 400,
    "UpstreamProviderError": 502,
}


class Sdk(Protocol):
    """What is used of the SDK: one of its providers."""

    async def acompletion(self, **fields: Any) -> Any:
        """A completion or, with `stream`, its chunks; pydantic models in OpenAI's shape."""
        ...


# Makes the SDK's provider out of its id, the key and the base URL; gives also the class of its errors.
Connect = Callable[[str, str, str], tuple[Sdk, type[Exception]]]


def connect(kind: str, key: str, base_url: str) -> tuple[Sdk, type[Exception]]:
    """Load the SDK, which takes seconds, and its provider; ProviderNotConfigured where one is not there."""
    try:
        sdk = importlib.import_module("any_llm")
        errors = importlib.import_module("any_llm.exceptions")
    except ImportError as error:
        raise ProviderNotConfigured("any-llm is not installed", hint=f"run `{INSTALL}`") from error
    options = {"api_key": key or None, "api_base": base_url or None, "unified_exceptions": True}
    try:
        try:
            made = sdk.AnyLLM.create(kind, **options, max_retries=0)
        except errors.UnsupportedParameterError:
            made = sdk.AnyLLM.create(kind, **options)
    except errors.MissingApiKeyError as error:
        raise SignInRequired(f"any-llm has no API key for {kind}", hint=str(error)) from error
    except errors.AnyLLMError as error:
        raise ProviderNotConfigured(f"any-llm cannot make {kind}: {error}") from error
    except ImportError as error:
        raise ProviderNotConfigured(
            f"any-llm lacks what it needs for {kind}", hint=f"run `pip install 'any-llm-sdk[{kind}]'`"
        ) from error
    return made, errors.AnyLLMError


class AnyLLM:
    """The provider. `settings.any_llm` is the id that any-llm has for the upstream.

    The SDK finds its own address and, without `key`, its own variable for the key. It is loaded with the
    first request, in a thread. It repeats nothing where it can be told so.
    """

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        *,
        key_lookup: KeyLookup,
        timeout_s: float,
        connect: Connect = connect,
    ) -> None:
        self._kind = settings.any_llm or ""
        self._base_url = settings.base_url or ""
        needed = bool(settings.needs_auth)
        self._key = key_of(name, settings, (), key_lookup, needed=needed)
        self._timeout_s = timeout_s
        self._connect = connect
        self._sdk: tuple[str, Sdk, type[Exception]] | None = None
        info = ProviderInfo(
            name=name,
            label=f"{self._kind} through any-llm",
            url=URL,
            needs_auth=needed,
            supports=SUPPORTS,
            params=Params.__struct_fields__,
            dialect=openai_chat.NAME,
        )
        self._info = as_set(info, settings)

    @property
    def info(self) -> ProviderInfo:
        """What this provider is; whether the SDK has all that it needs shows with the first request."""
        return self._key.told_in(self._info)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request with one call."""
        key = self._key.required()
        sdk, failure = await self._loaded(key)
        fields = msgspec.json.decode(openai_chat.encode_request(request, drop=("stream_options",)))
        try:
            answer = await sdk.acompletion(**fields, timeout=self._timeout_s)
            if not request.stream:
                for event in openai_chat.decode_completion(
                    answer.model_dump_json(exclude_none=True).encode()
                ):
                    yield event
                return
            try:
                async for event in _events(answer, request):
                    yield event
            finally:
                await _close(answer)
        except failure as error:
            raise _ours(error, self._info.name, key) from error

    async def models(self) -> list[Model]:
        """The configured ones: few of the SDK's upstreams have a list."""
        names = dict.fromkeys((self._info.default_model, *self._info.models))
        return [Model(id=name) for name in names if name]

    async def aclose(self) -> None:
        """Close what the SDK holds open, as far as it lets one."""
        loaded, self._sdk = self._sdk, None
        if loaded is not None:
            await _close(getattr(loaded[1], "client", None))

    async def _loaded(self, key: str) -> tuple[Sdk, type[Exception]]:
        if self._sdk is None or self._sdk[0] != key:
            await self.aclose()
            self._sdk = (key, *await asyncio.to_thread(self._connect, self._kind, key, self._base_url))
        return self._sdk[1:]


async def _events(chunks: Any, request: ChatRequest) -> AsyncGenerator[Event, None]:
    """The chunks, read by the dialect that knows their shape."""
    decoder = openai_chat.EventDecoder(include_usage=True, choices=request.params.n or 1)
    async for chunk in chunks:
        for event in decoder.feed(b"data: " + chunk.model_dump_json(exclude_none=True).encode() + b"\n\n"):
            yield event
    for event in [*decoder.feed(b"data: [DONE]\n\n"), *decoder.close()]:
        yield event


async def _close(held: Any) -> None:
    """Close a stream or a client of the SDK, whatever it calls that."""
    close = getattr(held, "aclose", None) or getattr(held, "close", None)
    if close is None:
        return
    # A client of another event loop, which has ended, has nothing left to close.
    with suppress(RuntimeError):
        closing = close()
        if inspect.isawaitable(closing):
            await closing


def _ours(error: Exception, name: str, key: str) -> GatewayError:
    """The SDK's error as ours: by the upstream's status, else by its class."""
    said = Secret(key).out_of_text(str(getattr(error, "message", "") or error))
    kind = type(error).__name__
    if kind == "ContextLengthExceededError":
        return ContextTooLong(f"{name}: {said}")
    if kind == "UnsupportedParameterError":
        return InvalidRequest(f"{name}: {said}")
    status = getattr(error, "status_code", None) or _STATUS.get(kind)
    if not isinstance(status, int) or status < 300:
        return UpstreamUnreachable(f"{name}: {said}")
    retry_after = getattr(error, "retry_after", None)
    return error_for_status(
        status,
        {"retry-after": str(retry_after)} if retry_after is not None else {},
        said.encode(),
        decode_error=lambda _status, body: (body.decode(), str(getattr(error, "code", None) or "")),
        name=name,
        credential_hint=f"check the key of [providers.{name}]",
    )

"""The client's way to a gateway over HTTP, in OpenAI's chat format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from modelway.config import UpstreamSettings
from modelway.dialects import openai_chat
from modelway.dialects.openai_chat.wire import read_error
from modelway.errors import GatewayError, InternalError, UpstreamProtocolError, error_class
from modelway.provider import ProviderInfo
from modelway.providers.http import HTTPClient, Response
from modelway.types import ChatRequest, Collector, Completion, Event, Finish, Model


class OverHTTP:
    """A gateway at an address."""

    def __init__(self, base_url: str, api_key: str) -> None:
        root = base_url.rstrip("/")
        self._root = root if root.endswith("/v1") else root + "/v1"
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = HTTPClient(UpstreamSettings())

    async def answer(self, request: ChatRequest) -> RemoteAnswer:
        """Begin to answer a request."""
        body = msgspec.json.decode(openai_chat.encode_request(replace(request, dialect=openai_chat.NAME)))
        body["provider"], body["conversation_id"] = request.provider, request.conversation_id
        headers = {"content-type": "application/json", **self._headers}
        response = await self._http.request(
            "POST", f"{self._root}/chat/completions", headers=headers, body=msgspec.json.encode(body)
        )
        if response.status != 200:
            raise await _error(response)
        return RemoteAnswer(response, stream=request.stream)

    async def providers(self) -> list[ProviderInfo]:
        """The providers that the gateway has."""
        try:
            listed = msgspec.json.decode(await self._get("/providers"), type=_Providers)
            return [_info(described) for described in listed.data]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamProtocolError("the server's list of providers cannot be read") from error

    async def models(self) -> list[Model]:
        """The models that the gateway lists."""
        return openai_chat.decode_models(await self._get("/models"))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _get(self, path: str) -> bytes:
        response = await self._http.request("GET", self._root + path, headers=self._headers)
        if response.status != 200:
            raise await _error(response)
        return await response.body()


class RemoteAnswer:
    """An answer that comes over HTTP."""

    def __init__(self, response: Response, *, stream: bool) -> None:
        self.provider = unquote(response.headers.get("x-modelway-provider", ""))
        self.model = unquote(response.headers.get("x-modelway-model", ""))
        self.conversation_id = response.headers.get("x-modelway-conversation-id", "")
        ignored = unquote(response.headers.get("x-modelway-ignored", ""))
        self.ignored = tuple(ignored.split(", ")) if ignored else ()
        self.trail = response.headers.get("x-modelway-attempts", "")
        self._response = response
        self._stream = stream
        self._collector = Collector()
        self._told: GatewayError | None = None

    @property
    def completion(self) -> Completion:
        """The whole answer, after its end."""
        if self._collector.finish is None:
            raise InternalError("the answer has not ended")
        return replace(
            self._collector.completion(), provider=self.provider, conversation_id=self.conversation_id
        )

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Its events."""
        try:
            async for event in self._events():
                self._collector.add(event)
                yield event
        except UpstreamProtocolError as error:
            if error is self._told:
                raise
            raise UpstreamProtocolError("the gateway's answer was cut off", code=error.code) from error

    async def aclose(self) -> None:
        """Stop it: the gateway notices and ends its upstream call."""
        await self._response.aclose()

    async def _events(self) -> AsyncIterator[Event]:
        if not self._stream:
            for event in openai_chat.decode_completion(await self._response.body()):
                yield event
            return
        decoder = openai_chat.EventDecoder(include_usage=True, to_error=self._error_told)
        while chunk := await self._response.read():
            for event in decoder.feed(chunk):
                yield event
                if isinstance(event, Finish):
                    return
        for event in decoder.close():
            yield event

    def _error_told(self, error: Any) -> GatewayError:
        """The error that the gateway tells of inside its stream."""
        message, code = read_error(error)
        self._told = error_class(code)(message, code=code)
        return self._told


async def _error(response: Response) -> GatewayError:
    """The error that the gateway raised, of the same class as it has there."""
    try:
        body = await response.body()
    finally:
        await response.aclose()
    message, code = openai_chat.decode_error(response.status, body)
    retry_after = response.headers.get("retry-after", "")
    return error_class(code, response.status)(
        message,
        code=code,
        param=_param(body),
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )


def _param(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Reported).error.param
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class _Fault(Struct):
    param: str | None = None


class _Reported(Struct):
    error: _Fault


class _Providers(Struct):
    data: list[dict[str, Any]]


def _info(described: dict[str, Any]) -> ProviderInfo:
    params = described.get("params")
    names = list(params) if isinstance(params, dict) else params
    return msgspec.convert({**described, "params": names}, ProviderInfo)

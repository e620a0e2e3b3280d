"""The asynchronous Python client: over HTTP, or with a gateway in this process."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec

from modelway.auth import LOCAL_CALLER
from modelway.config import Settings
from modelway.dialects import openai_chat
from modelway.errors import InvalidRequest
from modelway.gateway import Gateway
from modelway.provider import ProviderInfo
from modelway.types import ChatRequest, Completion, Event, Message, Model, TextDelta

Question = str | Message | Sequence[Message | Mapping[str, Any]]


class Source(Protocol):
    """An answer under way, wherever it comes from."""

    provider: str
    model: str
    conversation_id: str
    ignored: tuple[str, ...]

    @property
    def trail(self) -> str:
        """Who was asked for it."""
        ...

    @property
    def completion(self) -> Completion:
        """The whole answer, after its end."""
        ...

    def __aiter__(self) -> AsyncIterator[Event]:
        """Its events."""
        ...

    async def aclose(self) -> None:
        """Stop it."""
        ...


class Transport(Protocol):
    """The way to a gateway."""

    async def answer(self, request: ChatRequest) -> Source:
        """Begin to answer a request."""
        ...

    async def providers(self) -> list[ProviderInfo]:
        """The providers that the gateway has."""
        ...

    async def models(self) -> list[Model]:
        """The models that the gateway lists."""
        ...

    async def aclose(self) -> None:
        """Give everything back."""
        ...


class InProcess:
    """A gateway in this process, on the same store as the server's."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def answer(self, request: ChatRequest) -> Source:
        """Begin to answer a request."""
        return await self._gateway.answer(request, LOCAL_CALLER)

    async def providers(self) -> list[ProviderInfo]:
        """The providers that the gateway has."""
        return await self._gateway.offering.infos()

    async def models(self) -> list[Model]:
        """The models that the gateway lists."""
        return await self._gateway.models()

    async def aclose(self) -> None:
        """Close the gateway."""
        await self._gateway.aclose()


class Told(ABC):
    """What an answer tells of itself: known from the first piece on, `completion` after the last."""

    @property
    def provider(self) -> str:
        """Who answers."""
        return self.begun.provider

    @property
    def model(self) -> str:
        """The model that answers."""
        return self.begun.model

    @property
    def trail(self) -> str:
        """Who was asked, how it ended and the milliseconds: "Groq;upstream_error;12, Local;ok;340"."""
        return self.begun.trail

    @property
    def conversation_id(self) -> str:
        """The conversation that the answer belongs to, "" for none."""
        return self.begun.conversation_id

    @property
    def ignored(self) -> tuple[str, ...]:
        """The fields of the request that the provider could not be told."""
        return self.begun.ignored

    @property
    def completion(self) -> Completion:
        """The whole answer, once its end has been read."""
        return self.begun.completion

    @property
    @abstractmethod
    def begun(self) -> Source:
        """The answer under way; raises InvalidRequest before its first piece."""


class AsyncReply(Told):
    """An answer. Iterate it for pieces of text, or await it for the completion.

    Leaving early: close it (`async with reply:`), which stops the upstream too.
    """

    def __init__(self, transport: Transport, request: ChatRequest) -> None:
        self._transport = transport
        self._request = request
        self._source: Source | None = None

    async def events(self) -> AsyncIterator[Event]:
        """The answer as typed events: text, reasoning, tool calls, the end."""
        if self._source is not None:
            raise InvalidRequest("a reply can be read only once", hint="send the message again")
        self._source = await self._transport.answer(self._request)
        try:
            async for event in self._source:
                yield event
        finally:
            await self._source.aclose()

    async def __aiter__(self) -> AsyncIterator[str]:
        """The answer's text in pieces, as they come."""
        async for event in self.events():
            if isinstance(event, TextDelta) and not event.choice:
                yield event.text

    def __await__(self) -> Generator[Any, None, Completion]:
        """Wait for the end."""
        return self._collected().__await__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def begun(self) -> Source:
        """The answer under way."""
        if self._source is None:
            raise InvalidRequest("the reply has not begun", hint="iterate it first")
        return self._source

    async def aclose(self) -> None:
        """Stop the answer, if it has begun."""
        if self._source is not None:
            await self._source.aclose()

    async def _collected(self) -> Completion:
        async for _ in self.events():
            pass
        return self.completion


class AsyncConversation:
    """A conversation: what was sent to it before is remembered by the gateway."""

    def __init__(self, client: AsyncClient, id: str, **defaults: Any) -> None:
        self.id = id
        self._client = client
        self._defaults = defaults

    def send(self, message: Question, **options: Any) -> AsyncReply:
        """Say something; `options` as for `chat`."""
        return self._client.chat(message, **{**self._defaults, **options, "conversation_id": self.id})


class AsyncClient:
    """Talks to a gateway: the one at `base_url`, or with "" one in this process, without a server.

    In the process, `settings` and `data_dir` default to the user's configuration; or give it a
    `gateway`, which is closed with the client. `on_progress` is told what the embedded model is doing
    while it starts.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        api_key: str = "",
        settings: Settings | None = None,
        data_dir: Path | None = None,
        gateway: Gateway | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self._transport: Transport
        if gateway is not None:
            self._transport = InProcess(gateway)
        elif base_url:
            from modelway.remote import OverHTTP

            self._transport = OverHTTP(base_url, api_key)
        else:
            self._transport = InProcess(_build(settings, data_dir, on_progress))

    def chat(
        self,
        message: Question,
        *,
        provider: str = "",
        model: str = "",
        conversation_id: str = "",
        system: str = "",
        stream: bool = True,
        **params: Any,
    ) -> AsyncReply:
        """Ask something. `message` is a text, a Message, or a list of messages as OpenAI writes them.

        `params` are the other fields of an OpenAI request: temperature, max_tokens, tools, ...
        """
        request = _request(message, system, {"stream": stream, **params})
        request = msgspec.structs.replace(
            request, provider=provider, model=model, conversation_id=conversation_id
        )
        return AsyncReply(self._transport, request)

    def conversation(
        self, id: str = "", *, provider: str = "", model: str = "", system: str = ""
    ) -> AsyncConversation:
        """A conversation under this id, or under a new one."""
        chosen = id or "conv_" + secrets.token_hex(12)
        return AsyncConversation(self, chosen, provider=provider, model=model, system=system)

    async def providers(self) -> list[ProviderInfo]:
        """The providers that the gateway has."""
        return await self._transport.providers()

    async def models(self) -> list[Model]:
        """The models that the gateway lists."""
        return await self._transport.models()

    async def aclose(self) -> None:
        """Close the client; in the process, the gateway with it."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _build(
    settings: Settings | None, data_dir: Path | None, on_progress: Callable[[str], None] | None
) -> Gateway:
    from modelway.settings import Directories, load
    from modelway.wiring import build

    return build(
        load().settings if settings is None else settings,
        data_dir=data_dir or Directories.default().data,
        on_progress=on_progress,
    )


def _request(question: Question, system: str, fields: dict[str, Any]) -> ChatRequest:
    """A request out of Python values, checked exactly as a client's body is."""
    messages = [question] if isinstance(question, str | Message) else list(question)
    typed = [message for message in messages if isinstance(message, Message)]
    if typed and len(typed) != len(messages):
        raise InvalidRequest("`messages` must be all Message or all mappings", param="messages")
    wire = [
        {"role": "user", "content": message} if isinstance(message, str) else message
        for message in messages
        if not isinstance(message, Message)
    ]
    # Typed messages need no reading; a stand-in lets the rest of the request be checked.
    stand_in = [{"role": "user", "content": ""}]
    body = {**fields, "messages": wire or (stand_in if typed else [])}
    request = openai_chat.decode_request(msgspec.json.encode(body))
    chosen = tuple(typed) or request.messages
    if system:
        chosen = (Message(role="system", content=system), *chosen)
    return msgspec.structs.replace(request, messages=chosen)

"""The synchronous Python client: AsyncClient on an event loop of its own, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from modelway.client import AsyncClient, AsyncConversation, AsyncReply, Question, Source, Told
from modelway.config import Settings
from modelway.errors import GatewayError, InvalidRequest, ShuttingDown
from modelway.provider import ProviderInfo
from modelway.types import Completion, Event, Model, TextDelta

T = TypeVar("T")
CLOSE_TIMEOUT_S = 5


class _Loop:
    """The thread in which the asynchronous client runs. Once it is closed it takes no more work."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        self.closed = False

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run a function there and wait for it."""
        return self.start(function).result()

    def start(self, function: Callable[[], Awaitable[T]]) -> Future[T]:
        """Begin to run a function there."""
        try:
            return self._portal.start_task_soon(function)
        except RuntimeError:
            if self.closed:
                raise ShuttingDown("the client is closed", hint="open another one") from None
            raise

    def close(self) -> None:
        """End the thread; what it still runs is cancelled."""
        self.closed = True
        self._stack.close()


class Reply(Told):
    """An answer. Iterate it for pieces of text; `completion` is there after the last one."""

    def __init__(self, loop: _Loop, reply: AsyncReply) -> None:
        self._loop = loop
        self._reply = reply
        self._events = reply.events()
        self._reading: Future[Event | None] | None = None
        self._closed = threading.Event()
        self._idle = threading.Event()
        self._idle.set()

    def events(self) -> Iterator[Event]:
        """The answer as typed events."""
        if self._reading is not None:
            raise InvalidRequest("a reply can be read only once", hint="send the message again")
        try:
            while (event := self._next()) is not None:
                yield event
        finally:
            self.close()

    def __iter__(self) -> Iterator[str]:
        """The answer's text in pieces, as they come."""
        for event in self.events():
            if isinstance(event, TextDelta) and not event.choice:
                yield event.text

    def collect(self) -> Completion:
        """Wait for the end."""
        for _ in self.events():
            pass
        return self.completion

    @property
    def begun(self) -> Source:
        """The answer under way."""
        return self._reply.begun

    def close(self) -> None:
        """Stop the answer, if it has begun; a thread that waits for its next piece sees the end."""
        self._closed.set()
        if self._reading is not None:
            self._reading.cancel()
            self._idle.wait(CLOSE_TIMEOUT_S)
        # Closing the client has ended the answer already.
        if not self._loop.closed:
            self._loop.call(self._reply.aclose)

    def _next(self) -> Event | None:
        """The next event, None at the end. Ctrl-C while waiting stops the answer before it goes on."""

        async def read() -> Event | None:
            try:
                return await anext(self._events, None)
            finally:
                self._idle.set()

        if self._closed.is_set():
            return None
        self._idle.clear()
        self._reading = self._loop.start(read)
        try:
            return self._reading.result()
        except (CancelledError, GatewayError):
            if self._closed.is_set():
                return None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Conversation:
    """A conversation: what was sent to it before is remembered by the gateway."""

    def __init__(self, loop: _Loop, conversation: AsyncConversation) -> None:
        self.id = conversation.id
        self._loop = loop
        self._conversation = conversation

    def send(self, message: Question, **options: Any) -> Reply:
        """Say something; `options` as for `Client.chat`."""
        return Reply(self._loop, self._conversation.send(message, **options))


class Client:
    """AsyncClient for programs that are not asynchronous; the same arguments and methods."""

    def __init__(
        self,
        base_url: str = "",
        *,
        api_key: str = "",
        settings: Settings | None = None,
        data_dir: Path | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        async def connect() -> AsyncClient:
            return AsyncClient(
                base_url,
                api_key=api_key,
                settings=settings,
                data_dir=data_dir,
                on_progress=on_progress,
            )

        self._loop = _Loop()
        try:
            self._client = self._loop.call(connect)
        except BaseException:
            self._loop.close()
            raise

    def chat(self, message: Question, **options: Any) -> Reply:
        """Ask something; see AsyncClient.chat."""
        return Reply(self._loop, self._client.chat(message, **options))

    def conversation(self, id: str = "", **defaults: Any) -> Conversation:
        """A conversation under this id, or under a new one; see AsyncClient.conversation."""
        return Conversation(self._loop, self._client.conversation(id, **defaults))

    def providers(self) -> list[ProviderInfo]:
        """The providers that the gateway has."""
        return self._loop.call(self._client.providers)

    def models(self) -> list[Model]:
        """The models that the gateway lists."""
        return self._loop.call(self._client.models)

    def close(self) -> None:
        """Close the client; in the process, the gateway with it."""
        if not self._loop.closed:
            try:
                self._loop.call(self._client.aclose)
            finally:
                self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

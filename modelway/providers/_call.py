"""One HTTP exchange that is an answer: waited for, or looked at whenever something has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from modelway.errors import GatewayError
from modelway.providers._calling import Decoder, ToError, check_response
from modelway.providers._redaction import Secret
from modelway.providers._response import Prepared, Response
from modelway.providers.http import HTTPClient
from modelway.types import Event

# Makes the reader of an answer out of the media type of its body.
ToDecoder = Callable[[str], Decoder]


class Call:
    """The events of one answer. Nothing is sent before `send_now`, or before the first event is waited for.

    Who does not want to wait calls `send_now`, is told of news (`listen`) and takes what has come (`take`).
    From there one can go over to waiting (`async for`) at any time, and must where `take` gives None: for
    replies that are no good ones, encoded bodies, cut and silent ones.
    """

    __slots__ = (
        "_body",
        "_decoder",
        "_error",
        "_has_ended",
        "_held",
        "_hint",
        "_http",
        "_name",
        "_prepared",
        "_response",
        "_secret",
        "_sending",
        "_to_decoder",
        "_to_error",
        "is_broken",
    )

    def __init__(
        self,
        http: HTTPClient,
        prepared: Prepared,
        body: bytes,
        to_decoder: ToDecoder,
        *,
        name: str,
        secret: Secret,
        to_error: ToError,
        address_hint: str,
    ) -> None:
        self._http = http
        self._prepared = prepared
        self._body = body
        self._to_decoder = to_decoder
        self._name = name
        self._secret = secret
        self._to_error = to_error
        self._hint = address_hint
        self._sending = http.sending(prepared, body)
        self._response: Response | None = None
        self._decoder: Decoder | None = None
        self._held: deque[Event] = deque()
        self._error: GatewayError | None = None
        # Whether an error follows what has been taken.
        self.is_broken = False
        self._has_ended = False

    def send_now(self) -> bool:
        """Send the request over a kept connection; False where there is none."""
        return self._sending.at_once()

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Tell of everything that comes, and where nothing comes in time; None: no longer."""
        if self._response is not None:
            self._response.listen(listener)
        else:
            self._sending.listen(listener)

    def take(self) -> list[Event] | None:
        """The events that have come; None where one has to wait for what follows."""
        response = self._response
        if response is None:
            if not self._sending.has_head:
                return None if self._sending.is_stuck else []
            if not self._sending.is_plain:
                return None
            response = self._accept(self._sending.answered())
        events: list[Event] = []
        try:
            if data := response.take():
                self._read(data, events)
            elif response.is_whole:
                self._end(events)
            elif response.is_stuck:
                return None
        except GatewayError as error:
            self._fail(error)
        return events

    def __aiter__(self) -> Call:
        return self

    async def __anext__(self) -> Event:
        """The next event; raises a GatewayError where there is none."""
        while not self._held:
            if self._error is not None:
                raise self._error
            if self._has_ended:
                raise StopAsyncIteration
            try:
                await self._wait()
            except GatewayError as error:
                self._fail(error)
        return self._held.popleft()

    async def aclose(self) -> None:
        """End the call, also the upstream's work where it goes on."""
        self.cut()

    def cut(self) -> None:
        """As aclose(): nothing of it takes time."""
        self._has_ended = True
        if self._response is not None:
            self._response.close()
        else:
            self._sending.abort()

    def _fail(self, error: GatewayError) -> None:
        self._error = self._secret.out_of_error(error)
        self.is_broken = True

    async def _wait(self) -> None:
        response = self._response
        if response is None:
            response = self._accept(await self._sending.response())
            await check_response(
                response, self._to_error, self._secret, name=self._name, address_hint=self._hint
            )
        if data := await response.read():
            self._read(data, self._held)
        else:
            self._end(self._held)

    def _accept(self, response: Response) -> Response:
        self._response = response
        self._decoder = self._to_decoder(response.content_type)
        return response

    def _read(self, data: bytes, events: list[Event] | deque[Event]) -> None:
        decoder, response = self._decoder, self._response
        assert decoder is not None  # noqa: S101 - both are there together
        assert response is not None  # noqa: S101
        found: Iterable[Event] = decoder.feed(data)
        if decoder.finished:
            # Before the last event is given: whoever has seen it may end the call.
            self._has_ended = True
            response.finish()
        events.extend(found)
        if not decoder.finished and response.is_whole:
            self._end(events)

    def _end(self, events: list[Event] | deque[Event]) -> None:
        """The body has ended: give the events that are left, or raise the error that it ended too early."""
        self._has_ended = True
        assert self._decoder is not None  # noqa: S101
        events.extend(self._decoder.close())
        if self._response is not None:
            self._response.finish()

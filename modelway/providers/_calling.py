"""A call as every provider makes it: its status checked, its stream read to the end and not beyond."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

from modelway.dialects import openai_chat
from modelway.errors import GatewayError, UpstreamProtocolError
from modelway.providers._redaction import NO_SECRET, Secret
from modelway.providers._status import error_for_status
from modelway.types import Event

if TYPE_CHECKING:
    from modelway.providers.http import HTTPClient, Response

# Makes the error out of status, headers and the beginning of the body, from which the secret is taken.
ToError = Callable[[int, Mapping[str, str], bytes], GatewayError]


class Decoder(Protocol):
    """Reads one streamed answer. `finished` tells that all of it has come."""

    finished: bool

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Take bytes, cut anywhere; the events that they complete."""
        ...

    def close(self) -> Iterable[Event]:
        """The body has ended; the events that are left, or the error that it ended too early."""
        ...


class WholeBody:
    """Reads an answer in one piece."""

    def __init__(self, decode: Callable[[bytes], Iterable[Event]]) -> None:
        self.finished = False
        self._decode = decode
        self._pieces: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Take a piece of it."""
        self._pieces.append(chunk)
        return ()

    def close(self) -> Iterable[Event]:
        """It is there: give its events."""
        self.finished = True
        return self._decode(b"".join(self._pieces))


def errors_of(
    name: str,
    *,
    decode_error: Callable[[int, bytes], tuple[str, str]] = openai_chat.decode_error,
    credential_hint: str = "",
) -> ToError:
    """What the replies of a provider's upstream stand for; see `error_for_status`."""
    return partial(error_for_status, decode_error=decode_error, name=name, credential_hint=credential_hint)


async def good_response(
    http: HTTPClient,
    method: str,
    url: str,
    *,
    name: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    secret: Secret = NO_SECRET,
    to_error: ToError | None = None,
    address_hint: str = "check base_url",
    is_file: bool = False,
) -> Response:
    """The response to a call, when its status is a good one and it can be an answer. Close it.

    `name` is the provider's. `secret`, which some upstreams repeat, is kept out of what `to_error` makes
    of another status; without it errors are read as OpenAI writes them, which most upstreams do. A web page
    is what a wrong address answers, unless the call is for a file: `is_file`.
    """
    response = await http.request(method, url, headers=headers, body=body)
    try:
        await check_response(
            response,
            to_error or errors_of(name),
            secret,
            name=name,
            address_hint=address_hint,
            is_file=is_file,
        )
    except BaseException:
        await response.aclose()
        raise
    return response


async def check_response(
    response: Response,
    to_error: ToError,
    secret: Secret,
    *,
    name: str,
    address_hint: str,
    is_file: bool = False,
) -> None:
    """Raise what is wrong with the head of a response."""
    await raise_for_status(response, to_error, secret)
    if response.content_type == "text/html" and not is_file:
        raise UpstreamProtocolError(f"{name} answered with a web page", hint=address_hint)


async def raise_for_status(response: Response, to_error: ToError, secret: Secret = NO_SECRET) -> None:
    """Raise what a status outside 200 to 299 stands for."""
    if not 200 <= response.status < 300:
        said = secret.out_of(await response.error_body())
        raise to_error(response.status, response.headers, said)


async def events_of(response: Response, decoder: Decoder, begun: bytes = b"") -> AsyncGenerator[Event, None]:
    """The events of a streamed answer, of which `begun` has been read already."""
    while chunk := begun or await response.read():
        begun = b""
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


async def events_of_body(
    response: Response, decode: Callable[[bytes], Iterable[Event]]
) -> AsyncGenerator[Event, None]:
    """The events of an answer in one piece."""
    for event in decode(await response.body()):
        yield event

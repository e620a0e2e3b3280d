"""What the server asks of a dialect: the half that answers callers."""

from __future__ import annotations

from typing import Protocol

from modelway.dialects.envelope import Envelope
from modelway.errors import GatewayError
from modelway.types import ChatRequest, Completion, Event


class Encoder(Protocol):
    """Writes one streamed answer."""

    def begin(self) -> bytes:
        """The bytes that may come before the first event, once: of a request that is to wait."""
        ...

    def encode(self, event: Event) -> bytes:
        """The bytes for one event."""
        ...

    def end(self) -> bytes:
        """The bytes after the last event."""
        ...

    def error(self, error: GatewayError) -> bytes:
        """The bytes that tell of an error in the middle."""
        ...


class Dialect(Protocol):
    """A dialect as its module offers it."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """What requests in it are marked with."""
        ...

    @property
    def ID_PREFIX(self) -> str:  # noqa: N802
        """What the ids of answers begin with."""
        ...

    @property
    def STREAM_TYPE(self) -> bytes:  # noqa: N802
        """The media type of a streamed answer."""
        ...

    @property
    def KEEP_ALIVE(self) -> bytes:  # noqa: N802
        """What says nothing in a stream and shows that it lives; b"" where there is no such thing."""
        ...

    def EventEncoder(self, envelope: Envelope) -> Encoder:  # noqa: N802
        """A writer for one streamed answer."""
        ...

    def decode_request(self, body: bytes) -> ChatRequest:
        """A request out of a body."""
        ...

    def encode_completion(self, completion: Completion, envelope: Envelope) -> bytes:
        """The body of a whole answer."""
        ...

    def encode_error(self, error: GatewayError) -> bytes:
        """The body of an error reply."""
        ...

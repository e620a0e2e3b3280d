"""Ollama's POST /api/generate: a prompt instead of messages, and the answer in `response`."""

from __future__ import annotations

from modelway.dialects.envelope import Envelope
from modelway.dialects.ollama_chat import body, stream
from modelway.dialects.ollama_chat.body import encode_error
from modelway.dialects.ollama_chat.read_request import decode_generate_request as decode_request
from modelway.dialects.ollama_chat.wire import GENERATE as NAME
from modelway.dialects.ollama_chat.wire import ID_PREFIX, KEEP_ALIVE, STREAM_TYPE
from modelway.types import ChatRequest, Completion

__all__ = [
    "ID_PREFIX",
    "KEEP_ALIVE",
    "NAME",
    "STREAM_TYPE",
    "EventEncoder",
    "decode_request",
    "encode_completion",
    "encode_error",
    "encode_loaded",
]


class EventEncoder(stream.EventEncoder):
    """Writes one streamed answer."""

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(envelope, "generate")


def encode_completion(completion: Completion, envelope: Envelope) -> bytes:
    """The body of a `stream: false` answer."""
    return body.encode_completion(completion, envelope, "generate")


def encode_loaded(request: ChatRequest) -> bytes:
    """The body of the answer to a request without a prompt."""
    return body.encode_loaded(request, "generate")

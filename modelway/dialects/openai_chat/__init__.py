"""OpenAI's chat completions (POST /v1/chat/completions), in both directions.

The server half reads what callers send and writes what they get; the client half drives upstreams
that speak the same format. Source: OpenAI's API reference, "Chat completions", as of 2026-11.
"""

from modelway.dialects.openai_chat.body import (
    decode_completion,
    decode_error,
    decode_models,
    encode_completion,
    encode_error,
    encode_models,
    model_object,
)
from modelway.dialects.openai_chat.read_request import decode_request
from modelway.dialects.openai_chat.stream import EventDecoder, EventEncoder
from modelway.dialects.openai_chat.wire import ID_PREFIX, KEEP_ALIVE, NAME, STREAM_TYPE
from modelway.dialects.openai_chat.write_request import encode_request

__all__ = [
    "ID_PREFIX",
    "KEEP_ALIVE",
    "NAME",
    "STREAM_TYPE",
    "EventDecoder",
    "EventEncoder",
    "decode_completion",
    "decode_error",
    "decode_models",
    "decode_request",
    "encode_completion",
    "encode_error",
    "encode_models",
    "encode_request",
    "model_object",
]

"""Ollama's own format (POST /api/chat, /api/generate), in both directions.

The server half reads what callers send and writes what they get; the client half drives Ollama. Source:
Ollama's API reference (docs.ollama.com/api) and its published types, as of 2026-11.
"""

from modelway.dialects.ollama_chat.body import (
    decode_completion,
    decode_error,
    decode_models,
    encode_completion,
    encode_error,
    encode_loaded,
    encode_loaded_models,
    encode_models,
)
from modelway.dialects.ollama_chat.read_request import decode_generate_request, decode_request
from modelway.dialects.ollama_chat.stream import EventDecoder, EventEncoder
from modelway.dialects.ollama_chat.wire import ID_PREFIX, KEEP_ALIVE, NAME, STREAM_TYPE
from modelway.dialects.ollama_chat.write_request import PARAMS, encode_request

__all__ = [
    "ID_PREFIX",
    "KEEP_ALIVE",
    "NAME",
    "PARAMS",
    "STREAM_TYPE",
    "EventDecoder",
    "EventEncoder",
    "decode_completion",
    "decode_error",
    "decode_generate_request",
    "decode_models",
    "decode_request",
    "encode_completion",
    "encode_error",
    "encode_loaded",
    "encode_loaded_models",
    "encode_models",
    "encode_request",
]

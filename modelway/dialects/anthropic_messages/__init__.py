"""Anthropic's Messages API (POST /v1/messages), in both directions.

The server half reads what callers send and writes what they get; the client half drives Anthropic and
whoever speaks its format. Source: Anthropic's API reference of version 2026-10-21 and its published SDK.
"""

from modelway.dialects.anthropic_messages.body import (
    decode_completion,
    decode_count,
    decode_error,
    decode_models,
    encode_completion,
    encode_count,
    encode_error,
    encode_model,
    encode_models,
)
from modelway.dialects.anthropic_messages.read_request import decode_request
from modelway.dialects.anthropic_messages.read_stream import EventDecoder
from modelway.dialects.anthropic_messages.wire import (
    BETA,
    ID_PREFIX,
    KEEP_ALIVE,
    NAME,
    STREAM_TYPE,
    VERSION_SPOKEN,
    error_in_stream,
)
from modelway.dialects.anthropic_messages.write_request import (
    PARAMS,
    VERSION,
    encode_count_request,
    encode_request,
    headers_for,
    is_version,
)
from modelway.dialects.anthropic_messages.write_stream import EventEncoder

__all__ = [
    "BETA",
    "ID_PREFIX",
    "KEEP_ALIVE",
    "NAME",
    "PARAMS",
    "STREAM_TYPE",
    "VERSION",
    "VERSION_SPOKEN",
    "EventDecoder",
    "EventEncoder",
    "decode_completion",
    "decode_count",
    "decode_error",
    "decode_models",
    "decode_request",
    "encode_completion",
    "encode_count",
    "encode_count_request",
    "encode_error",
    "encode_model",
    "encode_models",
    "encode_request",
    "error_in_stream",
    "headers_for",
    "is_version",
]

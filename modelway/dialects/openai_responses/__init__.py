"""OpenAI's Responses API (POST /v1/responses): the half that answers callers.

Sources: the types of OpenAI's published SDK 3.52, and the Open Responses specification for the fields that
a response always has.
"""

from modelway.dialects.openai_responses.body import (
    encode_completion,
    encode_count,
    encode_deleted,
    encode_error,
    encode_items,
    encode_response,
)
from modelway.dialects.openai_responses.chain import Chain, encode_failure, read_create, warmed
from modelway.dialects.openai_responses.compaction import decode_compaction, encode_compaction
from modelway.dialects.openai_responses.items import answer_items, conversation_items, input_items
from modelway.dialects.openai_responses.read_request import Noted, decode_conversation, decode_request
from modelway.dialects.openai_responses.references import (
    conversation_named,
    pick,
    put_in,
    references,
    turn_of_item,
)
from modelway.dialects.openai_responses.stream import EventEncoder
from modelway.dialects.openai_responses.wire import (
    ID_PREFIX,
    KEEP_ALIVE,
    NAME,
    STREAM_TYPE,
    Fields,
    Status,
    response_error,
    response_id,
    status_of,
    turn_id,
)

__all__ = [
    "ID_PREFIX",
    "KEEP_ALIVE",
    "NAME",
    "STREAM_TYPE",
    "Chain",
    "EventEncoder",
    "Fields",
    "Noted",
    "Status",
    "answer_items",
    "conversation_items",
    "conversation_named",
    "decode_compaction",
    "decode_conversation",
    "decode_request",
    "encode_compaction",
    "encode_completion",
    "encode_count",
    "encode_deleted",
    "encode_error",
    "encode_failure",
    "encode_items",
    "encode_response",
    "input_items",
    "pick",
    "put_in",
    "read_create",
    "references",
    "response_error",
    "response_id",
    "status_of",
    "turn_id",
    "turn_of_item",
    "warmed",
]

"""What surrounds an answer in every dialect."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct


class Envelope(Struct, frozen=True, kw_only=True):
    """Who gave an answer, under which id, for which conversation.

    `id` has the dialect's prefix already. `created` and `completed` are in seconds, 0: not yet.
    `include_usage`: the caller wants a stream to tell its usage, where the dialect leaves the choice. `echo`:
    see ChatRequest. `ignored` names the fields of the request that the provider could not be told. `now`
    tells the time in seconds; after the end of an answer that is kept, always that of its end.
    """

    id: str
    created: int
    model: str
    provider: str
    conversation_id: str = ""
    include_usage: bool = False
    completed: int = 0
    echo: dict[str, Any] = {}
    ignored: tuple[str, ...] = ()
    now: Callable[[], float] = time.time

    def fields(self) -> bytes:
        """Our own fields as members of a JSON object, without the braces."""
        members = b'"provider":' + msgspec.json.encode(self.provider)
        if self.conversation_id:
            members += b',"conversation_id":' + msgspec.json.encode(self.conversation_id)
        if self.ignored:
            members += b',"ignored":' + msgspec.json.encode(self.ignored)
        return members

    def add_to(self, value: bytes) -> bytes:
        """Put our own fields into a JSON object that an upstream wrote."""
        # `in` of bytes first tries its left side as a number, and catches an exception: find() is faster.
        if (
            value.find(b'"provider"') >= 0
            or value.find(b'"conversation_id"') >= 0
            or (self.ignored and value.find(b'"ignored"') >= 0)
        ):
            # Some upstreams use these names themselves; a JSON object must not have them twice.
            members: dict[str, Any] = msgspec.json.decode(value)
            members["provider"] = self.provider
            if self.conversation_id:
                members["conversation_id"] = self.conversation_id
            if self.ignored:
                members["ignored"] = self.ignored
            return msgspec.json.encode(members)
        return value.rstrip()[:-1] + b"," + self.fields() + b"}"

"""Responses that are not kept, one after the other on a connection: the last one is remembered there.

Source: the Open Responses specification, 2026-04-24.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_responses.read_input import read_input
from modelway.dialects.openai_responses.read_request import decode_request
from modelway.dialects.openai_responses.wire import Fields, response_object
from modelway.dialects.reading import check, read_object, wrong
from modelway.errors import InvalidRequest
from modelway.types import Usage

CREATE = "response.create"
_ENDS = {"response.completed", "response.incomplete", "response.failed"}
_encode = msgspec.json.Encoder().encode


def read_create(body: bytes) -> Fields:
    """The request out of a message of the client; every answer is a stream."""
    fields = read_object(body)
    if fields.pop("type", None) != CREATE:
        raise InvalidRequest(f"a message must be of the type {CREATE!r}", param="type")
    if fields.get("background"):
        raise InvalidRequest(
            "`background` is not for connections that stay open",
            param="background",
            hint="POST the request to /v1/responses",
        )
    fields.pop("background", None)
    if not isinstance(fields.get("generate", True), bool):
        raise wrong("generate", "true or false")
    return {**fields, "stream": True}


def warmed(body: bytes, id: str, now: float) -> tuple[bytes, bytes]:
    """The events of a response that says nothing and waits to be followed; InvalidRequest as for others."""
    request = decode_request(body)
    envelope = Envelope(
        id=id, created=int(now), model=request.model, provider=request.provider, echo=request.echo or {}
    )
    begun = response_object(envelope, "in_progress", [])
    done = response_object(envelope, "completed", [], usage=Usage(), completed_at=int(now))
    return (
        _encode({"type": "response.created", "sequence_number": 0, "response": begun}),
        _encode({"type": "response.completed", "sequence_number": 1, "response": done}),
    )


def encode_failure(status: int, body: bytes) -> bytes:
    """The body of an error reply as a message."""
    return _encode({"type": "error", "status": status, **msgspec.json.decode(body, type=dict[str, Any])})


class Chain:
    """What a response that was not kept has followed and said, as items, so that the next can follow it."""

    def __init__(self) -> None:
        self._id = ""
        self._items: list[Any] = []
        self._asked: Fields = {}
        self._previous = ""
        self._said: list[Any] = []
        self.has_ended = False

    def continued(self, asked: Fields) -> bytes:
        """The body of a request, with what it follows where that is here."""
        self._previous, self.has_ended = "", False
        previous = asked.get("previous_response_id")
        if asked.get("generate") is False:
            # Nothing was asked of anybody, so nobody else keeps it.
            asked = {**asked, "store": False}
        self._asked, self._said = asked, _as_items(asked.get("input"))
        own = {name: value for name, value in asked.items() if name != "generate"}
        if not previous or previous != self._id:
            return _encode(own)
        self._previous = check(previous, str, "previous_response_id")
        self._said = [*self._items, *self._said]
        try:
            read_input(self._said)
            _refuse_strangers(self._said)
        except InvalidRequest:
            self.broken()
            raise
        return _encode({**own, "previous_response_id": None, "input": self._said})

    def told(self, event: bytes) -> bytes:
        """An event as it is told here; b"" for what repeats how the response ended."""
        if self.has_ended:
            return b""
        fields = msgspec.json.decode(event, type=dict[str, Any])
        response = fields.get("response")
        if response is None:
            if fields["type"] != "error":
                return event
            self.has_ended = True
            self.broken()
            return _encode({"status": 500, **fields})
        if self._previous:
            response["previous_response_id"] = self._previous
        if fields["type"] in _ENDS:
            self.has_ended = True
            self._keep(fields["type"], response)
        return _encode(fields)

    def broken(self) -> None:
        """A request has failed: what it followed cannot be followed again."""
        if self._asked.get("previous_response_id") == self._id:
            self._id, self._items = "", []

    def _keep(self, ended: str, response: Fields) -> None:
        if ended == "response.failed":
            self.broken()
        elif self._asked.get("store") is False:
            self._id, self._items = response["id"], [*self._said, *response["output"]]


def _as_items(input: Any) -> list[Any]:
    if isinstance(input, str):
        return [{"type": "message", "role": "user", "content": input}]
    return input if isinstance(input, list) else []


def _refuse_strangers(items: list[Any]) -> None:
    """InvalidRequest for the result of a call that nobody has made."""
    made = ("function_call", "custom_tool_call")
    calls = {item.get("call_id") for item in items if item.get("type") in made}
    for item in items:
        if str(item.get("type")).endswith("_call_output") and item.get("call_id") not in calls:
            raise InvalidRequest(
                f"no call {str(item.get('call_id'))[:80]!r} was made that this could be the result of",
                param="input",
            )

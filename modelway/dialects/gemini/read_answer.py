"""Reads answers of generateContent and streamGenerateContent, and the list of models."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from modelway.dialects import sse
from modelway.dialects.gemini.problems import problem_error, problem_of
from modelway.errors import GatewayError, UpstreamFailed, UpstreamProtocolError
from modelway.types import (
    Event,
    Finish,
    FinishReason,
    Model,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

MAX_EVENT_BYTES = 8 * 1024 * 1024
MAX_CHOICES = 128

_FINISH_REASONS: dict[str, FinishReason] = {
    "MAX_TOKENS": "length",
    # There would be more for another request; for this one the limit is reached.
    "CONTINUATION": "length",
    "ESCALATION": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "LANGUAGE": "content_filter",
    "OTHER": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
_BROKEN = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    }
)


class _Call(Struct):
    name: str = ""
    args: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None
    inline_data: Any = None
    file_data: Any = None


class _Content(Struct):
    parts: list[_Part] | None = None


class _Candidate(Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int = 0


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None


class _Usage(Struct, rename="camel"):
    prompt_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    cached_content_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0

    def usage(self) -> Usage:
        return Usage(
            input_tokens=self.prompt_token_count + self.tool_use_prompt_token_count,
            output_tokens=self.candidates_token_count + self.thoughts_token_count,
            cached_tokens=self.cached_content_token_count,
            reasoning_tokens=self.thoughts_token_count,
        )


class _Chunk(Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None
    error: Any = None


class _Model(Struct, rename="camel"):
    name: str
    input_token_limit: int = 0
    supported_generation_methods: list[str] | None = None


class _Models(Struct, rename="camel"):
    models: list[_Model] | None = None
    next_page_token: str = ""


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


def new_call_id() -> str:
    """An id for a call that the upstream gave none."""
    return "call_" + secrets.token_hex(12)


class EventDecoder:
    """Reads one answer: `feed` and `close` a stream of server-sent events, `read_whole` a single body.

    The stream has no end marker: its Finish comes with the end of the body. `signatures` maps the ids of
    calls to the thought signatures that must go back with them.
    """

    def __init__(
        self,
        name: str = "the upstream",
        *,
        max_event_bytes: int = MAX_EVENT_BYTES,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        # Only the end of the body tells that nothing more comes.
        self.finished = False
        self.signatures: dict[str, str] = {}
        self._name = name
        self._max_event_bytes = max_event_bytes
        self._new_id = new_id
        self._events = sse.Decoder()
        self._tail = b""
        self._calls: dict[int, int] = {}
        self._reasons: dict[int, FinishReason] = {}
        self._usage: _Usage | None = None
        self._model = ""

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Take bytes, cut anywhere; give the events that they complete, and only then raise."""
        # An error in the middle comes as plain JSON after the last event: see close().
        self._tail = (
            (self._tail + chunk).replace(b"\r\n", b"\n").rpartition(b"\n\n")[2][-self._max_event_bytes :]
        )
        for event in self._events.feed(chunk):
            yield from self._read(event.data)
        if self._events.pending > self._max_event_bytes:
            raise UpstreamProtocolError(
                f"{self._name} sent an event of more than {self._max_event_bytes} bytes",
                code="upstream_too_large",
            )

    def close(self) -> Iterable[Event]:
        """The body has ended: give the Finish, or raise what stands in its place."""
        for event in self._events.close():
            yield from self._read(event.data)
        if self._reasons:
            yield self._finish()
            return
        left = self._tail.strip().lstrip(b",[").removesuffix(b"]")
        if left.startswith(b"{"):
            yield from self._read(left)
        raise UpstreamProtocolError(
            f"the stream of {self._name} ended without a finish reason", code="upstream_truncated"
        )

    def read_whole(self, body: bytes) -> Iterable[Event]:
        """The events of an answer in one piece; the last is Finish."""
        yield from self._read(body)
        if not self._reasons:
            raise UpstreamProtocolError(f"the answer of {self._name} has no finish reason")
        yield self._finish()

    def _read(self, data: bytes) -> Iterable[Event]:
        if not data.strip():
            return
        try:
            chunk = _decode_chunk(data.decode("utf-8", "replace"))
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamProtocolError(f"{self._name} sent what is no part of an answer") from error
        if chunk.error is not None:
            raise self._error(chunk.error)
        self._usage = chunk.usage_metadata or self._usage
        self._model = chunk.model_version or self._model
        for candidate in chunk.candidates or ():
            yield from self._read_candidate(candidate)
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason:
            self._reasons.setdefault(0, "content_filter")

    def _read_candidate(self, candidate: _Candidate) -> Iterable[Event]:
        choice = candidate.index
        if not 0 <= choice < MAX_CHOICES:
            raise UpstreamProtocolError(f"the answer of {self._name} has a candidate with the index {choice}")
        for part in (candidate.content and candidate.content.parts) or ():
            yield from self._read_part(choice, part)
        if candidate.finish_reason:
            self._reasons[choice] = self._reason(choice, candidate)

    def _read_part(self, choice: int, part: _Part) -> Iterable[Event]:
        if part.inline_data is not None or part.file_data is not None:
            raise UpstreamProtocolError(
                f"{self._name} answered with an image or a file, which no caller could be given",
                hint="choose a model that answers with text",
            )
        if part.text:
            kind = ReasoningDelta if part.thought else TextDelta
            yield kind(text=part.text, choice=choice)
        call = part.function_call
        if call is None:
            return
        index = self._calls.get(choice, 0)
        self._calls[choice] = index + 1
        id = call.id or self._new_id()
        if part.thought_signature:
            self.signatures[id] = part.thought_signature
        # Whole bodies are indented; as text the arguments are the same on one line.
        arguments = msgspec.json.format(bytes(call.args), indent=-1).decode()
        yield ToolCallDelta(
            choice=choice,
            index=index,
            id=id,
            name=call.name,
            arguments="{}" if arguments == "null" else arguments,
        )

    def _reason(self, choice: int, candidate: _Candidate) -> FinishReason:
        word = candidate.finish_reason or ""
        if word in _BROKEN:
            said = f": {candidate.finish_message[:200]}" if candidate.finish_message else ""
            raise UpstreamProtocolError(
                f"{self._name} ended its answer with {word}{said}", hint="send the request again"
            )
        return _FINISH_REASONS.get(word) or ("tool_calls" if self._calls.get(choice) else "stop")

    def _finish(self) -> Finish:
        return Finish(
            reasons=tuple(reason for _, reason in sorted(self._reasons.items())),
            usage=self._usage.usage() if self._usage else None,
            model=self._model,
        )

    def _error(self, error: Any) -> GatewayError:
        problem = problem_of(error)
        found = problem_error(problem, self._name)
        return found or UpstreamFailed(
            f"{self._name} reported an error: {problem.message or 'no reason given'}"
        )


def decode_models(body: bytes) -> tuple[list[Model], str]:
    """The models that answer chats, and the token of the next page, "" for none."""
    try:
        listed = msgspec.json.decode(body, type=_Models)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream's list of models cannot be read") from error
    models = [
        Model(
            id=model.name.removeprefix("models/"), owned_by="google", context_length=model.input_token_limit
        )
        for model in listed.models or ()
        if "generateContent" in (model.supported_generation_methods or ["generateContent"])
    ]
    return models, listed.next_page_token

"""OpenAI's older POST /v1/completions: a prompt instead of messages, and the answer as plain text.

The prompt is what the user says. What only a model that goes on with raw text can do is refused: a `suffix`,
a prompt of tokens, the probabilities of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from modelway.dialects.continuing import continued_comment
from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_chat.body import encode_error, error_object
from modelway.dialects.openai_chat.read_request import MAX_NAME, MAX_STOPS, MAX_TOKENS
from modelway.dialects.openai_chat.stream import DONE
from modelway.dialects.openai_chat.wire import KEEP_ALIVE, MAX_CHOICES, STREAM_TYPE, write_usage
from modelway.dialects.reading import (
    Fields,
    check,
    items,
    read_object,
    take,
    take_integer,
    take_number,
    take_strings,
    wrong,
)
from modelway.dialects.writing import AnyDelta, EventWriter
from modelway.errors import GatewayError, InvalidRequest
from modelway.types import (
    ChatRequest,
    Choice,
    Completion,
    Continued,
    Finish,
    FinishReason,
    Message,
    Params,
    RefusalDelta,
    TextDelta,
    Usage,
)

__all__ = [
    "ID_PREFIX",
    "KEEP_ALIVE",
    "NAME",
    "STREAM_TYPE",
    "EventEncoder",
    "decode_request",
    "decode_requests",
    "encode_completion",
    "encode_completions",
    "encode_error",
    "total",
]

NAME = "openai_completions"
ID_PREFIX = "cmpl-"
MAX_PROMPTS = 64

_encode = msgspec.json.Encoder().encode


def decode_request(body: bytes) -> ChatRequest:
    """A request with one prompt."""
    requests = decode_requests(body)
    if len(requests) > 1:
        raise wrong("prompt", "one text")
    return requests[0]


def decode_requests(body: bytes) -> tuple[ChatRequest, ...]:
    """A request for each prompt of a body. `echo` of those whose answer begins with the prompt holds it."""
    fields = read_object(body)
    prompts = _prompts(fields)
    _refuse(fields)
    model = take(fields, "model", str, "")
    if len(model) > MAX_NAME:
        raise wrong("model", f"a string of at most {MAX_NAME} characters")
    is_echoed = take(fields, "echo", bool, False)
    options = take(fields, "stream_options", dict, {})
    include_usage = take(options, "include_usage", bool, False, "stream_options.")
    request = ChatRequest(
        messages=(),
        model=model,
        provider=take(fields, "provider", str, ""),
        conversation_id=take(fields, "conversation_id", str, ""),
        stream=take(fields, "stream", bool, False),
        include_usage=include_usage,
        params=_params(fields),
        dialect=NAME,
        extra=fields | ({"stream_options": options} if options else {}),
    )
    return tuple(
        msgspec.structs.replace(
            request,
            messages=(Message(role="user", content=prompt),),
            echo={"prompt": prompt} if is_echoed else None,
        )
        for prompt in prompts
    )


def _prompts(fields: Fields) -> tuple[str, ...]:
    value = fields.pop("prompt", None)
    if value is None or value in ("", []):
        raise InvalidRequest("`prompt` is missing", param="prompt", hint="send a text")
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or len(value) > MAX_PROMPTS:
        raise wrong("prompt", f"a string or an array of at most {MAX_PROMPTS} strings")
    if not isinstance(value[0], str):
        raise _cannot("prompt", "a prompt of tokens", "send it as text")
    return items(value, "prompt", lambda item, path: check(item, str, path))


def _refuse(fields: Fields) -> None:
    if fields.pop("suffix", None):
        raise _cannot("suffix", "text that follows", "choose a provider whose upstream has /v1/completions")
    if fields.pop("logprobs", None) is not None:
        raise _cannot("logprobs", "the probabilities of tokens", "leave it out")
    asked = take_integer(dict(fields), "n", 1, MAX_CHOICES) or 1
    if (best_of := take_integer(fields, "best_of", 1, MAX_CHOICES)) and best_of > asked:
        raise _cannot("best_of", "a choice of the best", "leave it out")


def _cannot(param: str, what: str, hint: str) -> InvalidRequest:
    return InvalidRequest(
        f"`{param}`: a provider of chats cannot be told {what}",
        param=param,
        hint=hint,
        code="unsupported_parameter",
    )


def _params(fields: Fields) -> Params:
    return Params(
        temperature=take_number(fields, "temperature", 0, 2),
        top_p=take_number(fields, "top_p", 0, 1),
        max_tokens=take_integer(fields, "max_tokens", 1, MAX_TOKENS),
        stop=take_strings(fields, "stop", MAX_STOPS),
        seed=take_integer(fields, "seed", -(2**63), 2**63 - 1),
        n=take_integer(fields, "n", 1, MAX_CHOICES),
        presence_penalty=take_number(fields, "presence_penalty", -2, 2),
        frequency_penalty=take_number(fields, "frequency_penalty", -2, 2),
    )


def encode_completion(completion: Completion, envelope: Envelope) -> bytes:
    """The body of a `stream: false` answer to one prompt."""
    return encode_completions([(completion, envelope)])


def encode_completions(answers: Sequence[tuple[Completion, Envelope]]) -> bytes:
    """The body of a `stream: false` answer to several prompts, in their order."""
    envelope = answers[0][1]
    chosen = [(choice, _echoed(own)) for completion, own in answers for choice in completion.choices]
    body: dict[str, Any] = {
        **_head(envelope),
        "choices": [
            _choice(index, before + choice.message.text + choice.refusal, _reason(choice))
            for index, (choice, before) in enumerate(chosen)
        ],
    }
    counted = total(completion.usage for completion, _ in answers)
    if counted is not None:
        body["usage"] = write_usage(counted)
    return _encode(body)[:-1] + b"," + envelope.fields() + b"}"


def total(usages: Iterable[Usage | None]) -> Usage | None:
    """The tokens of several answers; None where nobody counted any."""
    counted = [usage for usage in usages if usage is not None]
    if not counted:
        return None
    names = Usage.__struct_fields__
    return Usage(**{name: sum(getattr(usage, name) for usage in counted) for name in names})


class EventEncoder(EventWriter):
    """Writes the streamed answer to one prompt; `first` is the index of its first choice."""

    def __init__(self, envelope: Envelope, first: int = 0) -> None:
        self._envelope = envelope
        self._first = first
        self._begun: set[int] = set()
        self._started = first > 0

    def end(self) -> bytes:
        """The stream's end marker."""
        return DONE

    def error(self, error: GatewayError) -> bytes:
        """An error in the middle of the stream; nothing but the end may follow."""
        return b"data: " + _encode({"error": error_object(error)}) + b"\n\n"

    def usage(self, usage: Usage) -> bytes:
        """What tells the tokens of all prompts, where the caller wants it."""
        if not self._envelope.include_usage:
            return b""
        return _event({**_head(self._envelope), "choices": [], "usage": write_usage(usage)})

    def _delta(self, event: AnyDelta) -> bytes:
        if not isinstance(event, TextDelta | RefusalDelta):
            return b""  # thoughts, calls and sources have no place in this format
        before = ""
        if event.choice not in self._begun:
            self._begun.add(event.choice)
            before = _echoed(self._envelope)
        return self._chunk(event.choice, before + event.text, None)

    def _continued(self, event: Continued) -> bytes:
        return continued_comment(event)

    def _finish(self, finish: Finish) -> bytes:
        written = b""
        for choice, reason in enumerate(finish.reasons):
            before = "" if choice in self._begun else _echoed(self._envelope)
            written += self._chunk(choice, before, _word(reason))
        return written + (self.usage(finish.usage) if finish.usage is not None else b"")

    def _chunk(self, choice: int, text: str, reason: str | None) -> bytes:
        fields = {**_head(self._envelope), "choices": [_choice(self._first + choice, text, reason)]}
        if self._envelope.include_usage:
            fields["usage"] = None
        if self._started:
            return _event(fields)
        self._started = True
        return b"data: " + _encode(fields)[:-1] + b"," + self._envelope.fields() + b"}\n\n"


def _head(envelope: Envelope) -> dict[str, Any]:
    return {
        "id": envelope.id,
        "object": "text_completion",
        "created": envelope.created,
        "model": envelope.model,
    }


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}


def _echoed(envelope: Envelope) -> str:
    prompt = envelope.echo.get("prompt", "")
    return prompt if isinstance(prompt, str) else ""


def _reason(choice: Choice) -> str | None:
    return choice.finish_reason and _word(choice.finish_reason)


def _word(reason: FinishReason) -> str:
    """The format knows no calls."""
    return "stop" if reason == "tool_calls" else reason


def _event(fields: dict[str, Any]) -> bytes:
    return b"data: " + _encode(fields) + b"\n\n"

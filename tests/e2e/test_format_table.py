"""Every format, streamed and whole, in every situation: a table of formats, and one of situations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import replace

from modelway.dialects import anthropic_messages, ollama_chat, openai_chat
from modelway.errors import GatewayError, UpstreamOverloaded
from modelway.types import (
    Completion,
    Event,
    FilePart,
    Finish,
    FinishReason,
    ImagePart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Tool,
    ToolCallDelta,
    Usage,
    collect,
)
from tests.scripted import Scripted, Step
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

PNG = "iVBORw0KGgoAAAANSUhEUgAA"
SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}}
USAGE = Usage(7, 3)


class Seen(Struct, frozen=True, kw_only=True):
    """What a client has seen, whatever the format. `code` is that of an error at the end."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    reason: FinishReason | None = None
    tokens: int = 0
    code: str = ""


class Format(Struct, frozen=True, kw_only=True):
    """How something is asked in a format, and how its answers are read. What is missing it cannot say.

    `fields` hold for every request. `reasons` are the ends that it has no word of its own for.
    """

    path: str
    says: Callable[[str], dict[str, Any]]
    fields: dict[str, Any] = {}
    tool: dict[str, Any] | None = None
    result: list[Any] | None = None
    image: dict[str, Any] | None = None
    schema: dict[str, Any] | None = None
    whole: Callable[[Any], Seen]
    stream: Callable[[bytes], Seen]
    thinks: bool = True
    calls: bool = True
    reasons: dict[str, FinishReason] = {}

    @property
    def answered(self) -> dict[str, Any] | None:
        """What goes on after a tool's result."""
        name = "input" if self.path == "/v1/responses" else "messages"
        return {name: self.result} if self.result else None

    def ask(self, *parts: dict[str, Any] | None) -> dict[str, Any]:
        """A request of these parts."""
        asked = {"model": "", **self.fields}
        for part in parts:
            asked |= part or {}
        return asked


def messages(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def seen(completion: Completion) -> Seen:
    choice = completion.choices[0]
    return Seen(
        text=choice.message.text + choice.refusal,
        reasoning=choice.message.reasoning,
        calls=tuple((call.name, call.arguments) for call in choice.message.tool_calls),
        reason=choice.finish_reason,
        tokens=completion.usage.output_tokens if completion.usage else 0,
    )


def by(decode: Callable[[bytes], Iterable[Event]]) -> Callable[[Any], Seen]:
    """Read with the half of a dialect that reads upstreams."""
    return lambda body: seen(collect(decode(msgspec.json.encode(body))))


def by_decoder(make: Callable[[], Any]) -> Callable[[bytes], Seen]:
    """Read a stream so, as far as it goes; it raises what the stream reports."""

    def read(body: bytes) -> Seen:
        decoder, events = make(), list[Event]()
        try:
            for event in chain(decoder.feed(body), decoder.close()):
                events.append(event)
        except GatewayError as error:
            return replace(seen(collect(events)), code=type(error).__name__)
        return seen(collect(events))

    return read


def data_of(body: bytes) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def response(body: Any) -> Seen:
    items = body["output"]
    parts = [part for item in items if item["type"] == "message" for part in item["content"]]
    thoughts = [part for item in items if item["type"] == "reasoning" for part in item["content"]]
    calls = tuple((item["name"], item["arguments"]) for item in items if item["type"] == "function_call")
    ends: dict[Any, str] = {"max_output_tokens": "length", "content_filter": "content_filter"}
    ended = ends.get((body["incomplete_details"] or {}).get("reason"), "tool_calls" if calls else "stop")
    return Seen(
        text="".join(part.get("text") or part.get("refusal", "") for part in parts),
        reasoning="".join(part["text"] for part in thoughts),
        calls=calls,
        reason=None if body["status"] == "failed" else ended,  # type: ignore[arg-type]
        tokens=body["usage"]["output_tokens"] if body["usage"] else 0,
    )


def response_stream(body: bytes) -> Seen:
    events = data_of(body)
    ended = response(next(event["response"] for event in reversed(events) if "response" in event))
    pieces = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    pieces += "".join(event["delta"] for event in events if event["type"] == "response.refusal.delta")
    assert pieces == ended.text
    failed = [event for event in events if event["type"] == "error"]
    return replace(ended, code=failed[-1]["code"] if failed else "")


def completion(body: Any) -> Seen:
    [choice] = body["choices"]
    usage = body.get("usage") or {}
    return Seen(text=choice["text"], reason=choice["finish_reason"], tokens=usage.get("completion_tokens", 0))


def completion_stream(body: bytes) -> Seen:
    chunks = data_of(body)
    choices = [chunk["choices"][0] for chunk in chunks if chunk.get("choices")]
    usage: dict[str, int] = next((chunk["usage"] for chunk in chunks if chunk.get("usage")), {})
    error: dict[str, str] = next((chunk["error"] for chunk in chunks if "error" in chunk), {})
    return Seen(
        text="".join(choice["text"] for choice in choices),
        reason=next((choice["finish_reason"] for choice in choices if choice["finish_reason"]), None),
        tokens=usage.get("completion_tokens", 0),
        code=error.get("code", ""),
    )


def generated(body: Any) -> Seen:
    """The shape of /api/generate, as the one of /api/chat."""
    said = {"role": "assistant", "content": body.pop("response", ""), "thinking": body.pop("thinking", "")}
    return by(ollama_chat.decode_completion)({**body, "message": said})


def generated_stream(body: bytes) -> Seen:
    lines = [json.loads(line) for line in body.splitlines()]
    for line in lines:
        if "response" in line:
            said = {"content": line.pop("response"), "thinking": line.pop("thinking", "")}
            line["message"] = {"role": "assistant", **said}
    return by_decoder(ollama_chat.EventDecoder)(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


LOOK = {"name": "look", "description": "Looks", "parameters": {"type": "object"}}
CALLED = {"name": "look", "arguments": '{"at":"sky"}'}
USAGE_TOLD = {"stream_options": {"include_usage": True}}

FORMATS = {
    "openai_chat": Format(
        path="/v1/chat/completions",
        says=messages,
        fields=USAGE_TOLD,
        tool={"tools": [{"type": "function", "function": LOOK}]},
        result=[
            {"role": "user", "content": "Look"},
            {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": CALLED}]},
            {"role": "tool", "tool_call_id": "c1", "content": "blue"},
        ],
        image={
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What?"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    ],
                }
            ]
        },
        schema={"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
        whole=by(openai_chat.decode_completion),
        stream=by_decoder(openai_chat.EventDecoder),
    ),
    "openai_responses": Format(
        path="/v1/responses",
        says=lambda text: {"input": text},
        tool={"tools": [{"type": "function", **LOOK}]},
        result=[
            {"role": "user", "content": "Look"},
            {"type": "function_call", "call_id": "c1", **CALLED},
            {"type": "function_call_output", "call_id": "c1", "output": "blue"},
        ],
        image={
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "What?"},
                        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
                    ],
                }
            ]
        },
        schema={"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
        whole=response,
        stream=response_stream,
    ),
    "anthropic_messages": Format(
        path="/v1/messages",
        says=messages,
        fields={"max_tokens": 99},
        tool={"tools": [{"name": "look", "description": "Looks", "input_schema": {"type": "object"}}]},
        result=[
            {"role": "user", "content": "Look"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "sky"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "blue"}]},
        ],
        image={
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What?"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                        },
                    ],
                }
            ]
        },
        schema={"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        whole=by(anthropic_messages.decode_completion),
        stream=by_decoder(anthropic_messages.EventDecoder),
    ),
    "ollama_chat": Format(
        path="/api/chat",
        says=messages,
        fields={"stream": False},
        tool={"tools": [{"type": "function", "function": LOOK}]},
        result=[
            {"role": "user", "content": "Look"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {"at": "sky"}}}]},
            {"role": "tool", "tool_name": "look", "content": "blue"},
        ],
        image={"messages": [{"role": "user", "content": "What?", "images": [PNG]}]},
        schema={"format": SCHEMA},
        whole=by(ollama_chat.decode_completion),
        stream=by_decoder(ollama_chat.EventDecoder),
    ),
    "ollama_generate": Format(
        path="/api/generate",
        says=lambda text: {"prompt": text},
        fields={"stream": False},
        image={"prompt": "What?", "images": [PNG]},
        schema={"format": SCHEMA},
        whole=generated,
        stream=generated_stream,
        calls=False,
        reasons={"tool_calls": "stop"},
    ),
    "openai_completions": Format(
        path="/v1/completions",
        says=lambda text: {"prompt": text},
        fields=USAGE_TOLD,
        whole=completion,
        stream=completion_stream,
        thinks=False,
        calls=False,
        reasons={"tool_calls": "stop"},
    ),
}


def ends(reason: FinishReason = "stop") -> Finish:
    return Finish(reasons=(reason,), usage=USAGE)


TWO_CALLS: list[Step] = [
    TextDelta(text="I look. "),
    ToolCallDelta(index=0, id="c1", name="look", arguments='{"at":'),
    ToolCallDelta(index=0, arguments='"sky"}'),
    ToolCallDelta(index=1, id="c2", name="look", arguments="{}"),
    ends("tool_calls"),
]
# What the model does, and what a client of a format that can say all of it has seen then.
ANSWERS: dict[str, tuple[Sequence[Step], Seen]] = {
    "text": (
        [TextDelta(text="Hel"), TextDelta(text="lo"), ends()],
        Seen(text="Hello", reason="stop", tokens=3),
    ),
    "reasoning": (
        [ReasoningDelta(text="Let me "), ReasoningDelta(text="see."), TextDelta(text="Hi"), ends()],
        Seen(reasoning="Let me see.", text="Hi", reason="stop", tokens=3),
    ),
    "tool call": (
        TWO_CALLS,
        Seen(
            text="I look. ",
            calls=(("look", '{"at":"sky"}'), ("look", "{}")),
            reason="tool_calls",
            tokens=3,
        ),
    ),
    "empty answer": ([ends()], Seen(reason="stop", tokens=3)),
    "refusal": ([RefusalDelta(text="I cannot."), ends()], Seen(text="I cannot.", reason="stop", tokens=3)),
    "content filter": (
        [TextDelta(text="The"), ends("content_filter")],
        Seen(text="The", reason="content_filter", tokens=3),
    ),
    "length": ([TextDelta(text="The"), ends("length")], Seen(text="The", reason="length", tokens=3)),
}


def expected(form: Format, whole: Seen) -> Seen:
    """What can be seen of it in a format."""
    reason = form.reasons.get(whole.reason or "", whole.reason)
    thoughts = whole.reasoning if form.thinks else ""
    return replace(whole, reason=reason, reasoning=thoughts, calls=whole.calls if form.calls else ())


async def answer(
    form: Format, asked: dict[str, Any], local: Scripted, folder: Path, *, streamed: bool
) -> httpx.Response:
    async with serving(gateway_of([local], folder)) as address, httpx.AsyncClient() as client:
        return await client.post(address + form.path, json={**asked, "stream": streamed})


WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
EVERY_FORMAT = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())


@WAYS
@EVERY_FORMAT
@pytest.mark.parametrize("situation", ANSWERS)
async def test_an_answer(form: Format, situation: str, streamed: bool, tmp_path: Path) -> None:
    script, whole = ANSWERS[situation]
    reply = await answer(
        form, form.ask(form.says("Hi")), Scripted("Local", script), tmp_path, streamed=streamed
    )
    assert reply.status_code == 200, reply.text
    found = form.stream(reply.content) if streamed else form.whole(reply.json())
    if situation == "refusal" and form.path == "/v1/messages":
        # The reason is another one there, and the words stand beside it.
        found = replace(found, reason="stop")
    assert found == expected(form, whole)


# What is asked, and what the provider is given then.
ASKED: dict[str, tuple[Callable[[Format], dict[str, Any] | None], Callable[[Any], Any], Any]] = {
    "tool": (
        lambda form: form.tool and {**form.says("Hi"), **form.tool},
        lambda request: request.params.tools,
        (Tool("look", "Looks", {"type": "object"}),),
    ),
    "tool result": (
        lambda form: form.answered,
        lambda request: [
            (message.role, message.text, [(call.name, call.arguments) for call in message.tool_calls])
            for message in request.messages
        ],
        [("user", "Look", []), ("assistant", "", [("look", '{"at":"sky"}')]), ("tool", "blue", [])],
    ),
    "image": (
        lambda form: form.image,
        lambda request: [part.url for part in request.messages[0].content if isinstance(part, ImagePart)],
        [f"data:image/png;base64,{PNG}"],
    ),
    "structured output": (
        lambda form: form.schema and {**form.says("Hi"), **form.schema},
        lambda request: (request.params.response_format.kind, request.params.response_format.json_schema),
        ("json_schema", SCHEMA),
    ),
}
# What a format without a word for it is asked in words of others; to leave it out would ask something else.
IN_OTHER_WORDS: dict[str, dict[str, Any]] = {
    "tool": FORMATS["openai_chat"].tool or {},
    "tool result": FORMATS["openai_chat"].answered or {},
    "image": {"images": [PNG]},
    "structured output": FORMATS["openai_chat"].schema or {},
}


@WAYS
@EVERY_FORMAT
@pytest.mark.parametrize("situation", ASKED)
async def test_a_question(form: Format, situation: str, streamed: bool, tmp_path: Path) -> None:
    make, given, wanted = ASKED[situation]
    asked = make(form)
    local = Scripted("Local")
    if asked is None:
        strange = IN_OTHER_WORDS[situation]
        refused = await answer(form, form.ask(form.says("Hi"), strange), local, tmp_path, streamed=streamed)
        assert refused.status_code == 400
        assert f"`{next(iter(strange))}" in refused.text
        assert not local.requests
        return
    reply = await answer(form, form.ask(asked), local, tmp_path, streamed=streamed)
    assert reply.status_code == 200, reply.text
    assert given(local.requests[0]) == wanted
    answered = [message for message in local.requests[0].messages if message.role == "tool"]
    calls = [call.id for message in local.requests[0].messages for call in message.tool_calls]
    assert [message.tool_call_id for message in answered] == calls


@WAYS
@EVERY_FORMAT
async def test_an_error_before_the_answer(form: Format, streamed: bool, tmp_path: Path) -> None:
    local = Scripted("Local", [UpstreamOverloaded("too many")])
    reply = await answer(form, form.ask(form.says("Hi")), local, tmp_path, streamed=streamed)
    assert reply.status_code == 503
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()["error"]
    assert "too many" in (error if isinstance(error, str) else error["message"])


@WAYS
@EVERY_FORMAT
async def test_an_error_in_the_middle(form: Format, streamed: bool, tmp_path: Path) -> None:
    local = Scripted("Local", [TextDelta(text="half"), UpstreamOverloaded("too many")])
    reply = await answer(form, form.ask(form.says("Hi")), local, tmp_path, streamed=streamed)
    if not streamed:
        assert reply.status_code == 503
        return
    assert reply.status_code == 200
    found = form.stream(reply.content)
    assert (found.text, found.reason) == ("half", None)
    assert found.code in ("upstream_overloaded", "UpstreamOverloaded", "UpstreamFailed")
    assert "too many" in reply.text


@EVERY_FORMAT
async def test_a_file_is_carried_where_the_format_has_one(form: Format, tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "/v1/chat/completions": {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}},
        "/v1/responses": {"type": "input_file", "file_data": "data:application/pdf;base64,AA=="},
        "/v1/messages": {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
        },
    }
    part = files.get(form.path)
    if part is None:
        pytest.skip("the format has no word for it")
    name = "input" if form.path == "/v1/responses" else "messages"
    local = Scripted("Local")
    asked = form.ask({name: [{"role": "user", "content": [part]}]})
    assert (await answer(form, asked, local, tmp_path, streamed=False)).status_code == 200
    [message] = local.requests[0].messages
    file = message.content[0]
    assert isinstance(file, FilePart)
    assert file.url == "data:application/pdf;base64,AA=="


def test_every_format_that_is_served_stands_in_the_table() -> None:
    from modelway.server.formats import CHATS

    served = {"/v1/chat/completions", "/v1/completions", *CHATS}
    assert {form.path for form in FORMATS.values()} == served

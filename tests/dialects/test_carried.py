"""Any request in any format reaches any upstream with all that it says, is refused, or names what it lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from modelway.dialects import anthropic_messages, gemini, ollama_chat, openai_chat, openai_responses
from modelway.dialects.fitting import Fit
from modelway.errors import InvalidRequest
from modelway.providers.bedrock import asking as bedrock
from modelway.types import ChatRequest, Params

PNG = "iVBORw0KGgoAAAANSUhEUg=="
Body = dict[str, Any]


class Call(Struct, frozen=True):
    """A call and its result, each with a word that stands nowhere else."""

    id: str
    name: str
    argument: str
    result: str


class Talk(Struct, frozen=True, kw_only=True):
    """What is said: every text in it is another one. `turns` alternate from a user's question on."""

    system: str = ""
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    calls: tuple[Call, ...] = ()
    image: str = ""
    options: dict[str, Any] = {}

    @property
    def facts(self) -> list[str]:
        """All that an upstream must be told."""
        of_calls = [fact for call in self.calls for fact in (call.name, call.argument, call.result)]
        return [*filter(None, (self.system, self.image)), *self.questions, *self.answers, *of_calls]


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    count = iter(range(1000))

    def fact(kind: str) -> str:
        return f"{kind}{next(count):03d}{draw(st.sampled_from(['', ' ü', ' 你', ' 𝄞', ' {}']))}."

    rounds = draw(st.integers(0, 2))
    calls = tuple(
        Call(f"call_{next(count)}", f"tool{next(count):03d}", fact("argument"), fact("result"))
        for _ in range(draw(st.integers(0, 2)))
    )
    options: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "temperature": st.just(0.25),
                "top_p": st.just(0.75),
                "max_tokens": st.just(7777),
                "stop": st.just(["STOP"]),
                "seed": st.just(4242),
                "presence_penalty": st.just(0.125),
                "schema": st.just(True),
                "user": st.just("ada"),
                "unheard_of": st.just({"a": 1}),
            },
        )
    )
    return Talk(
        system=fact("system") if draw(st.booleans()) else "",
        questions=tuple(fact("question") for _ in range(rounds + 1)),
        answers=tuple(fact("answer") for _ in range(rounds)),
        calls=calls,
        image=PNG if draw(st.booleans()) else "",
        options=options,
    )


# As clients of each format write it.


def chat(talk: Talk) -> Body:
    messages: list[Body] = [{"role": "system", "content": talk.system}] if talk.system else []
    for question, answer in zip(talk.questions, talk.answers, strict=False):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    last: Any = talk.questions[-1]
    if talk.image:
        url = f"data:image/png;base64,{talk.image}"
        last = [{"type": "text", "text": last}, {"type": "image_url", "image_url": {"url": url}}]
    messages.append({"role": "user", "content": last})
    if talk.calls:
        made = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps({"at": call.argument})},
            }
            for call in talk.calls
        ]
        messages.append({"role": "assistant", "tool_calls": made})
        messages += [{"role": "tool", "tool_call_id": call.id, "content": call.result} for call in talk.calls]
    body: Body = {"model": "m", "messages": messages, **talk.options}
    if body.pop("schema", False):
        shape = {"name": "a", "schema": {"type": "object", "properties": {"SHAPE": {"type": "string"}}}}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    if talk.calls:
        body["tools"] = [
            {"type": "function", "function": {"name": call.name, "parameters": {"type": "object"}}}
            for call in talk.calls
        ]
    return body


def responses(talk: Talk) -> Body:
    plain = chat(Talk(questions=talk.questions, answers=talk.answers))["messages"]
    if talk.image:
        url = f"data:image/png;base64,{talk.image}"
        parts = [
            {"type": "input_text", "text": talk.questions[-1]},
            {"type": "input_image", "image_url": url},
        ]
        plain[-1] = {"role": "user", "content": parts}
    for call in talk.calls:
        arguments = json.dumps({"at": call.argument})
        plain.append({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments})
    for call in talk.calls:
        plain.append({"type": "function_call_output", "call_id": call.id, "output": call.result})
    body: Body = {"model": "m", "input": plain, **talk.options}
    if talk.system:
        body["instructions"] = talk.system
    if "max_tokens" in body:
        body["max_output_tokens"] = body.pop("max_tokens")
    for absent in ("stop", "seed"):
        body.pop(absent, None)
    if body.pop("schema", False):
        shape = {"type": "object", "properties": {"SHAPE": {"type": "string"}}}
        body["text"] = {"format": {"type": "json_schema", "name": "a", "schema": shape}}
    if talk.calls:
        body["tools"] = [
            {"type": "function", "name": call.name, "parameters": {"type": "object"}} for call in talk.calls
        ]
    return body


def claude(talk: Talk) -> Body:
    plain = chat(Talk(questions=talk.questions, answers=talk.answers))["messages"]
    if talk.image:
        source = {"type": "base64", "media_type": "image/png", "data": talk.image}
        plain[-1]["content"] = [
            {"type": "text", "text": talk.questions[-1]},
            {"type": "image", "source": source},
        ]
    if talk.calls:
        uses = [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": {"at": call.argument}}
            for call in talk.calls
        ]
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": call.result} for call in talk.calls
        ]
        plain += [{"role": "assistant", "content": uses}, {"role": "user", "content": results}]
    options = {
        name: value for name, value in talk.options.items() if name not in ("seed", "presence_penalty")
    }
    body: Body = {"model": "m", "max_tokens": 9, "messages": plain, **options}
    if talk.system:
        body["system"] = talk.system
    if "stop" in body:
        body["stop_sequences"] = body.pop("stop")
    if body.pop("schema", False):
        shape = {"type": "object", "properties": {"SHAPE": {"type": "string"}}}
        body["output_config"] = {"format": {"type": "json_schema", "schema": shape}}
    if talk.calls:
        body["tools"] = [{"name": call.name, "input_schema": {"type": "object"}} for call in talk.calls]
    return body


def llama(talk: Talk) -> Body:
    body = chat(Talk(system=talk.system, questions=talk.questions, answers=talk.answers))
    if talk.image:
        body["messages"][-1]["images"] = [talk.image]
    if talk.calls:
        made = [{"function": {"name": call.name, "arguments": {"at": call.argument}}} for call in talk.calls]
        body["messages"].append({"role": "assistant", "content": "", "tool_calls": made})
        body["messages"] += [
            {"role": "tool", "tool_name": call.name, "content": call.result} for call in talk.calls
        ]
        body["tools"] = [
            {"type": "function", "function": {"name": call.name, "parameters": {"type": "object"}}}
            for call in talk.calls
        ]
    options = dict(talk.options)
    if options.pop("schema", False):
        body["format"] = {"type": "object", "properties": {"SHAPE": {"type": "string"}}}
    if "max_tokens" in options:
        options["num_predict"] = options.pop("max_tokens")
    outside: Body = {name: options.pop(name) for name in ("user", "unheard_of") if name in options}
    return {**body, **outside, **({"options": options} if options else {})}


SOURCES: dict[str, tuple[Callable[[Talk], Body], Callable[[bytes], ChatRequest]]] = {
    "openai_chat": (chat, openai_chat.decode_request),
    "openai_responses": (responses, openai_responses.decode_request),
    "anthropic_messages": (claude, anthropic_messages.decode_request),
    "ollama_chat": (llama, ollama_chat.decode_request),
}
KINDS = ("tools", "n", "json_schema", "json_object")
TARGETS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "openai_chat": (openai_chat, Params.__struct_fields__),
    "anthropic_messages": (anthropic_messages, anthropic_messages.PARAMS),
    "ollama_chat": (ollama_chat, ollama_chat.PARAMS),
    "gemini": (gemini, gemini.PARAMS),
    "bedrock": (bedrock, bedrock.PARAMS),
}
# What stands in what is sent where an option has been told.
MARKS = {
    "temperature": "0.25",
    "top_p": "0.75",
    "max_tokens": "7777",
    "stop": "STOP",
    "seed": "4242",
    "presence_penalty": "0.125",
    "schema": "SHAPE",
    "user": '"ada"',
}


def unescaped(sent: bytes) -> str:
    """What is sent, with texts inside of texts (arguments) read too."""
    return sent.decode().replace('\\"', '"').encode().decode("unicode_escape", "ignore") + sent.decode()


def sent_or_refused(
    fit: Fit, request: ChatRequest, encode: Callable[[ChatRequest], bytes]
) -> tuple[bytes, tuple[str, ...]] | InvalidRequest:
    try:
        fitted, ignored = fit.of(request)
        return encode(fitted), ignored
    except InvalidRequest as refused:
        return refused


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
@given(talk=talks())
def test_whatever_is_said_is_told_or_named(source: str, target: str, talk: Talk) -> None:
    write, decode = SOURCES[source]
    dialect, params = TARGETS[target]
    body = write(talk)
    request = decode(json.dumps(body).encode())
    fit = Fit("It", dialect=target if target != "bedrock" else "", params=params, supports=KINDS)
    outcome = sent_or_refused(fit, request, dialect.encode_request)
    if isinstance(outcome, InvalidRequest):
        assert outcome.param is not None
        assert outcome.param.partition(".")[0].partition("[")[0] in body, outcome.message
        return
    sent, ignored = outcome
    told = unescaped(sent)
    for fact in talk.facts:
        assert fact in told or json.dumps(fact)[1:-1] in told, fact
    for option, mark in MARKS.items():
        is_said = mark in json.dumps(body)
        if is_said and mark not in sent.decode():
            assert any(option in name or name.endswith("num_predict") for name in ignored), option
    # What nobody knows goes on to those of the same format, and to nobody else in silence.
    assert ("unheard_of" in body) == (b"unheard_of" in sent)

"""Ollama: what goes out, what comes in, and what it says of models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from modelway.config import ProviderSettings, Settings, UpstreamSettings
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    SignInRequired,
    UpstreamFailed,
    UpstreamProtocolError,
    UpstreamRefusedCredential,
    UpstreamUnreachable,
)
from modelway.provider import RelayRequest
from modelway.providers.http import HTTPClient
from modelway.providers.ollama import Ollama
from modelway.routing import Router
from modelway.testing.fake_upstream import closed_port
from modelway.types import (
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    Params,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
    collect,
)
from tests.canary import key
from tests.fake_ollama import FakeOllama
from tests.providers.asking import STREAMED, events_of, failure, said

pytestmark = pytest.mark.anyio

PNG = "iVBORw0KGgo="
LOOK = Tool("look", "looks", {"type": "object"})
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}


@pytest.fixture
async def upstream() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[HTTPClient]:
    settings = UpstreamSettings(first_byte_timeout_s=2, idle_timeout_s=2, max_event_bytes=100_000)
    async with aclosing(HTTPClient(settings)) as made:
        yield made


@pytest.fixture
def provider(upstream: FakeOllama, http: HTTPClient) -> Ollama:
    return made(upstream, http)


def made(upstream: FakeOllama, http: HTTPClient, key: str = "", **settings: Any) -> Ollama:
    chosen = ProviderSettings(**{"base_url": upstream.root, **settings})
    return Ollama(chosen, http=http, key_lookup=lambda variable, file: key)


def ask(
    *messages: Message,
    stream: bool = True,
    model: str = "model-a",
    dialect: str = "openai_chat",
    **fields: Any,
) -> ChatRequest:
    asked = messages or (Message(role="user", content="Hi"),)
    return ChatRequest(messages=asked, model=model, stream=stream, dialect=dialect, **fields)


# What goes out.


@STREAMED
async def test_the_request_is_one_of_api_chat(provider: Ollama, upstream: FakeOllama, stream: bool) -> None:
    params = Params(
        temperature=0.5,
        top_p=0.9,
        max_tokens=9,
        stop=("a",),
        seed=3,
        presence_penalty=1,
        reasoning_effort="low",
        tools=(LOOK,),
        response_format=ResponseFormat("json_schema", "shape", SCHEMA),
        n=1,
        parallel_tool_calls=True,
    )
    messages = (Message(role="developer", content="Be brief"), Message(role="user", content="Hi"))
    await events_of(provider, ask(*messages, stream=stream, params=params))
    received = upstream.requests[0]
    assert (received.method, received.path) == ("POST", "/api/chat")
    assert "authorization" not in received.headers
    assert received.json == {
        "model": "model-a",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}],
        "stream": stream,
        "truncate": False,
        "options": {
            "temperature": 0.5,
            "top_p": 0.9,
            "num_predict": 9,
            "stop": ["a"],
            "seed": 3,
            "presence_penalty": 1,
        },
        "think": "low",
        "tools": [
            {
                "type": "function",
                "function": {"name": "look", "description": "looks", "parameters": {"type": "object"}},
            }
        ],
        "format": SCHEMA,
    }


async def test_what_was_said_before_goes_out_with_calls_results_images_and_thoughts(
    provider: Ollama, upstream: FakeOllama
) -> None:
    await events_of(
        provider,
        ask(
            said(TextPart("What is it?"), ImagePart(f"data:image/png;base64,{PNG}")),
            Message(role="assistant", reasoning="hm", tool_calls=(ToolCall("c1", "look", '{"at": 1.0}'),)),
            Message(role="tool", content="a cat", tool_call_id="c1"),
            Message(role="assistant", extra={"refusal": "I would rather not."}),
            Message(role="user", content="Please"),
        ),
    )
    assert b'"arguments":{"at": 1.0}' in upstream.requests[0].body
    assert upstream.requests[0].json["messages"] == [
        {"role": "user", "content": "What is it?", "images": [PNG]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"at": 1.0}}}
            ],
        },
        {"role": "tool", "content": "a cat", "tool_name": "look", "tool_call_id": "c1"},
        {"role": "assistant", "content": "I would rather not."},
        {"role": "user", "content": "Please"},
    ]


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        (Params(reasoning_effort="none"), {"think": False}),
        (Params(response_format=ResponseFormat("json_object")), {"format": "json"}),
        (Params(response_format=ResponseFormat("text")), {}),
        (Params(tools=(LOOK,), tool_choice=ToolChoice("none")), {}),
    ],
)
async def test_parameters_are_said_in_ollamas_words(
    provider: Ollama, upstream: FakeOllama, params: Params, fields: dict[str, Any]
) -> None:
    await events_of(provider, ask(params=params))
    plain = {"model", "messages", "stream", "truncate"}
    assert {key: value for key, value in upstream.requests[0].json.items() if key not in plain} == fields


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"params": Params(tools=(LOOK,), tool_choice=ToolChoice("required"))}, "tool_choice"),
        ({"params": Params(tools=(LOOK,), tool_choice=ToolChoice("named", "look"))}, "tool_choice"),
    ],
)
async def test_what_it_cannot_be_told_is_refused_by_name(
    provider: Ollama, upstream: FakeOllama, fields: dict[str, Any], param: str
) -> None:
    error = await failure(provider, ask(**fields))
    assert isinstance(error, InvalidRequest)
    assert error.param == param
    assert not upstream.requests


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([said(ImagePart("https://example.org/cat.png"))], "data: URL"),
        ([said(FilePart(url="data:application/pdf;base64,AA=="))], "files"),
        ([said(OtherPart("openai_chat", {"type": "input_audio"}))], "input_audio"),
        ([Message(role="tool", content="x", tool_call_id="lost")], "lost"),
        ([Message(role="user", content="x", name="Ada")], "name"),
        ([Message(role="assistant", tool_calls=(ToolCall("1", "look", "[1]"),))], "JSON object"),
    ],
)
async def test_a_message_that_it_cannot_be_told_is_refused_and_never_thinned_out(
    provider: Ollama, upstream: FakeOllama, messages: Sequence[Message], words: str
) -> None:
    error = await failure(provider, ask(*messages))
    assert isinstance(error, InvalidRequest)
    assert words in str(error)
    assert not upstream.requests


async def test_bookkeeping_of_other_dialects_is_no_reason_to_refuse(
    provider: Ollama, upstream: FakeOllama
) -> None:
    extra = {"user": "ada", "metadata": {"a": "b"}, "logprobs": False, "store": True}
    await events_of(provider, ask(extra=extra))
    assert "user" not in upstream.requests[0].json


async def test_a_caller_of_the_same_dialect_is_passed_on_with_all_fields(
    provider: Ollama, upstream: FakeOllama
) -> None:
    extra = {"keep_alive": "1h", "options": {"num_ctx": 9000}, "truncate": True}
    await events_of(provider, ask(dialect="ollama_chat", extra=extra, params=Params(seed=1)))
    sent = upstream.requests[0].json
    assert (sent["keep_alive"], sent["truncate"]) == ("1h", True)
    assert sent["options"] == {"num_ctx": 9000, "seed": 1}


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/api"])
async def test_the_address_may_end_as_users_have_written_it(
    upstream: FakeOllama, http: HTTPClient, end: str
) -> None:
    await events_of(made(upstream, http, base_url=upstream.root + end), ask())
    assert upstream.requests[0].path == "/api/chat"


async def test_an_address_that_cannot_be_one_is_refused(upstream: FakeOllama, http: HTTPClient) -> None:
    with pytest.raises(ProviderNotConfigured, match=r"\[providers.Ollama\] base_url"):
        made(upstream, http, base_url="localhost:11434")


async def test_a_key_and_headers_go_out_where_the_user_has_some(
    upstream: FakeOllama, http: HTTPClient
) -> None:
    provider = made(upstream, http, key=key("secret"), headers={"X-Team": "a"})
    await events_of(provider, ask())
    assert upstream.requests[0].headers["authorization"] == f"Bearer {key('secret')}"
    assert upstream.requests[0].headers["x-team"] == "a"
    assert provider.info.credential_source == "environment"


async def test_a_key_that_is_needed_and_missing_is_told_before_anything_is_sent(
    upstream: FakeOllama, http: HTTPClient
) -> None:
    provider = made(upstream, http, needs_auth=True)
    assert not provider.info.ready
    assert isinstance(await failure(provider, ask()), SignInRequired)
    assert not upstream.requests


# What comes in.


@STREAMED
async def test_thoughts_text_calls_and_tokens_arrive(
    provider: Ollama, upstream: FakeOllama, stream: bool
) -> None:
    upstream.reply("It is", " a cat", reasoning="hm", calls=[ToolCall("", "look", '{"at": 1}')])
    completion = collect(await events_of(provider, ask(stream=stream)))
    assert completion.text == "It is a cat"
    assert completion.message.reasoning == "hm"
    (call,) = completion.message.tool_calls
    assert (call.name, call.arguments) == ("look", '{"at": 1}')
    assert call.id.startswith("call_")
    assert completion.finish_reason == "tool_calls"
    assert completion.usage == Usage(7, 3)
    assert completion.model == "model-a"


async def test_the_length_is_a_reason_of_its_own(provider: Ollama, upstream: FakeOllama) -> None:
    upstream.reply("So", reason="length")
    assert collect(await events_of(provider, ask())).finish_reason == "length"


async def test_a_stream_cut_at_every_byte_reads_the_same(provider: Ollama, upstream: FakeOllama) -> None:
    upstream.reply("grüß ", "€ dich", one_byte_at_a_time=True)
    assert collect(await events_of(provider, ask())).text == "grüß € dich"


@STREAMED
async def test_a_caller_of_the_same_dialect_gets_the_upstreams_bytes(
    provider: Ollama, upstream: FakeOllama, stream: bool
) -> None:
    upstream.reply("Hello", " there")
    events = await events_of(provider, ask(stream=stream, dialect="ollama_chat"))
    raw = b"".join(getattr(event, "raw", None) or b"" for event in events)
    assert raw.count(b'"done":true') == 1
    assert (b'"content":" there"' in raw) is stream


async def test_an_error_in_the_middle_comes_after_what_was_said(
    provider: Ollama, upstream: FakeOllama
) -> None:
    upstream.say_lines(
        {"model": "model-a", "message": {"role": "assistant", "content": "so far"}, "done": False},
        {"error": "an error was encountered while running the model"},
    )
    async with aclosing(provider.stream(ask())) as events:
        assert collect([await anext(events)]).text == "so far"
        with pytest.raises(UpstreamFailed, match="while running the model"):
            await anext(events)


async def test_a_stream_that_just_ends_is_an_error(provider: Ollama, upstream: FakeOllama) -> None:
    upstream.say_lines({"message": {"role": "assistant", "content": "half"}, "done": False})
    error = await failure(provider, ask())
    assert isinstance(error, UpstreamProtocolError)
    assert error.code == "upstream_truncated"


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "the prompt is longer than the context length currently available", ContextTooLong),
        (
            400,
            '{"error":{"code":400,"message":"request (8889 tokens) exceeds the available context size",'
            '"type":"exceed_context_size_error"}}',
            ContextTooLong,
        ),
        (400, '"model-a" does not support thinking', InvalidRequest),
        (401, "unauthorized", UpstreamRefusedCredential),
        (500, "model requires more system memory", UpstreamFailed),
    ],
)
async def test_an_error_status_has_its_error(
    provider: Ollama, upstream: FakeOllama, status: int, message: str, kind: type[GatewayError]
) -> None:
    upstream.fail(status, message)
    error = await failure(provider, ask())
    assert type(error) is kind
    assert (message if message[0] != "{" else "8889 tokens") in error.message


# Models.


async def test_a_model_that_is_not_there_comes_with_the_way_to_get_it(
    provider: Ollama, upstream: FakeOllama
) -> None:
    error = await failure(provider, ask(model="qwen3:8b"))
    assert isinstance(error, ModelNotFound)
    assert error.failover
    assert error.hint == "`ollama pull qwen3:8b`"
    assert error.others == ["model-a", "model-b:7b"]


async def test_without_a_model_it_takes_the_first_one_that_is_there(
    provider: Ollama, upstream: FakeOllama
) -> None:
    assert provider.info.default_model == ""
    assert Router([provider], Settings(provider="Ollama")).resolve(ask(model=""))[0].model == ""
    await events_of(provider, ask(model=""))
    assert upstream.requests[-1].json["model"] == "model-a"
    assert provider.info.default_model == "model-a"


async def test_a_first_model_that_has_gone_is_forgotten(provider: Ollama, upstream: FakeOllama) -> None:
    await events_of(provider, ask(model=""))
    del upstream.models[0]
    await failure(provider, ask(model="model-a"))
    assert provider.info.default_model == ""


async def test_without_any_model_it_says_how_to_get_one(provider: Ollama, upstream: FakeOllama) -> None:
    upstream.models.clear()
    error = await failure(provider, ask(model=""))
    assert isinstance(error, ModelNotFound)
    assert "ollama pull" in error.hint


async def test_models_are_those_that_have_been_pulled(provider: Ollama, upstream: FakeOllama) -> None:
    found = await provider.models()
    assert [model.id for model in found] == ["model-a", "model-b:7b"]
    assert found[0].created == 1_760_000_000


async def test_the_default_model_of_the_settings_goes_before(upstream: FakeOllama, http: HTTPClient) -> None:
    provider = made(upstream, http, default_model="mine")
    await provider.models()
    assert provider.info.default_model == "mine"


async def test_where_it_does_not_run_the_error_says_how_to_start_it(http: HTTPClient) -> None:
    settings = ProviderSettings(base_url=f"http://127.0.0.1:{closed_port()}")
    error = await failure(Ollama(settings, http=http, key_lookup=lambda variable, file: ""), ask())
    assert isinstance(error, UpstreamUnreachable)
    assert not error.sent
    assert "ollama serve" in error.hint


# Other addresses.


async def test_other_addresses_are_passed_on_as_openai_has_them(
    provider: Ollama, upstream: FakeOllama
) -> None:
    upstream.reply_with(b'{"data": []}', kind="application/json")
    request = RelayRequest(
        method="POST", path="embeddings", headers={"content-type": "application/json"}, body=b'{"input": "a"}'
    )
    async with aclosing(await provider.relay(request)) as reply:
        assert (reply.status, await reply.read()) == (200, b'{"data": []}')
    received = upstream.requests[0]
    assert (received.method, received.path) == ("POST", "/v1/embeddings")
    assert received.json == {"input": "a"}


async def test_another_address_that_is_not_there_is_told(provider: Ollama, upstream: FakeOllama) -> None:
    upstream.fail(404, "no such page", "NOT_FOUND")
    with pytest.raises(ModelNotFound, match="no such page"):
        await provider.relay(RelayRequest(method="GET", path="batches", query="limit=1"))
    assert upstream.requests[0].path.endswith("/batches?limit=1")

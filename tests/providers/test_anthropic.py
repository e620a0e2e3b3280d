"""Anthropic as a provider: what goes out, what comes in, and what its errors become."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from modelway.config import ProviderSettings
from modelway.dialects import anthropic_messages
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    RequestTooLarge,
    SignInRequired,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
)
from modelway.providers.anthropic import Anthropic
from modelway.providers.http import HTTPClient
from modelway.types import (
    ChatRequest,
    Event,
    FilePart,
    Message,
    Model,
    Params,
    TextPart,
    Tool,
    ToolCall,
    UpstreamState,
    Usage,
    collect,
)
from tests.fake_anthropic import KEY, FakeAnthropic
from tests.providers.asking import events_of, failure

pytestmark = pytest.mark.anyio


@pytest.fixture
async def upstream() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic() as fake:
        yield fake


@pytest.fixture
def anthropic(upstream: FakeAnthropic, http: HTTPClient) -> Anthropic:
    return made(upstream, http)


def made(upstream: FakeAnthropic, http: HTTPClient, key: str = KEY, **fields: Any) -> Anthropic:
    settings = ProviderSettings(**{"base_url": upstream.root, **fields})
    return Anthropic(settings, http=http, key_lookup=lambda variable, _: key if variable else "")


def ask(text: str = "Hi", *, stream: bool = True, **fields: Any) -> ChatRequest:
    fields = {"messages": (Message(role="user", content=text),), "model": "model-a", **fields}
    return ChatRequest(stream=stream, **fields)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_with_everything_arrives(
    upstream: FakeAnthropic, anthropic: Anthropic, stream: bool
) -> None:
    usage = Usage(
        input_tokens=30, output_tokens=9, cached_tokens=20, reasoning_tokens=4, cache_write_tokens=3
    )
    call = ToolCall("toolu_1", "look", '{"at":1}')
    upstream.reply("I ", "look", reasoning="hm", calls=[call], usage=usage)
    completion = collect(await events_of(anthropic, ask(stream=stream)))
    assert (completion.text, completion.message.reasoning) == ("I look", "hm")
    assert completion.message.tool_calls == (call,)
    assert (completion.usage, completion.finish_reason) == (usage, "tool_calls")


async def test_the_request_has_the_headers_and_the_fields_that_are_demanded(
    upstream: FakeAnthropic, http: HTTPClient
) -> None:
    upstream.reply("Hello")
    provider = made(upstream, http, base_url=f"{upstream.root}/v1/", headers={"anthropic-beta": "x-1"})
    await events_of(provider, ask())
    (request,) = upstream.requests
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2026-10-21"
    assert request.headers["anthropic-beta"] == "x-1"
    assert "authorization" not in request.headers
    assert upstream.asked[0]["max_tokens"] == 32_000


async def test_features_of_the_settings_and_of_the_caller_are_all_turned_on(
    upstream: FakeAnthropic, http: HTTPClient
) -> None:
    upstream.reply("Hello")
    provider = made(upstream, http, headers={"Anthropic-Beta": "x-1"})
    asked = replace(ask(), dialect=anthropic_messages.NAME, extra={anthropic_messages.BETA: ["y-2", "z-3"]})
    await events_of(provider, asked)
    assert upstream.requests[0].headers["anthropic-beta"] == "y-2,z-3,x-1"


async def test_tokens_are_counted_without_what_is_no_part_of_the_prompt(
    upstream: FakeAnthropic, anthropic: Anthropic
) -> None:
    asked = replace(ask(params=Params(temperature=0.3, max_tokens=9, stop=("x",))), stream=True)
    assert await anthropic.count_tokens(asked) > 0
    assert set(upstream.asked[0]) == {"model", "messages"}


async def test_a_temperature_goes_with_the_version_that_knows_it(
    upstream: FakeAnthropic, anthropic: Anthropic
) -> None:
    upstream.reply("Hello")
    await events_of(anthropic, ask(params=Params(temperature=0.3)))
    assert upstream.asked[0]["temperature"] == 0.3
    assert upstream.requests[0].headers["anthropic-version"] == "2023-06-01"


async def test_a_long_conversation_with_tools_and_a_document_is_taken(
    upstream: FakeAnthropic, anthropic: Anthropic
) -> None:
    upstream.reply("done")
    pdf = FilePart("data:application/pdf;base64,AAAA", name="a.pdf")
    messages = (
        Message(role="system", content="be brief"),
        Message(role="user", content=(TextPart("read"), pdf)),
        Message(role="user", content="and look"),
        Message(role="assistant", tool_calls=(ToolCall("call_1", "look"), ToolCall("call_2", "look"))),
        Message(role="tool", content="", tool_call_id="call_1"),
        Message(role="tool", content="a cat", tool_call_id="call_2"),
        Message(role="assistant", content=""),
        Message(role="user", content="so?"),
    )
    params = Params(tools=(Tool("look"),))
    assert collect(await events_of(anthropic, ask(messages=messages, params=params))).text == "done"
    assert [turn["role"] for turn in upstream.asked[0]["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize("stream", [True, False])
async def test_thinking_survives_a_tool_loop(
    upstream: FakeAnthropic, anthropic: Anthropic, stream: bool
) -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "I must look", "signature": "sig"},
        {"type": "redacted_thinking", "data": "opaque"},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 1}},
    ]
    upstream.reply_with_blocks(*blocks)
    first = await events_of(anthropic, ask(stream=stream))
    (state,) = (event.value for event in first if isinstance(event, UpstreamState))
    upstream.reply("a cat")
    result = Message(role="tool", content="cat", tool_call_id="toolu_1")
    messages = (Message(role="user", content="Hi"), collect(first).message, result)
    second = await events_of(anthropic, ask(messages=messages, upstream_state=state, stream=stream))
    assert upstream.asked[1]["messages"][1] == {"role": "assistant", "content": blocks}
    assert not any(isinstance(event, UpstreamState) for event in second)


async def test_a_caller_of_its_dialect_gets_its_bytes(upstream: FakeAnthropic, anthropic: Anthropic) -> None:
    upstream.reply("Hello", "!")
    events = await events_of(anthropic, ask(dialect=anthropic_messages.NAME))
    assert collect(events).text == "Hello!"
    raw = b"".join(getattr(event, "raw", None) or b"" for event in events)
    assert raw.startswith(b"event: message_start\n")
    assert b"message_delta" in raw
    upstream.reply("Hello")
    whole = collect(await events_of(anthropic, ask(stream=False, dialect=anthropic_messages.NAME)))
    assert json.loads(whole.raw or b"")["content"] == [{"type": "text", "text": "Hello"}]


async def test_an_answer_in_one_piece_to_who_asked_for_a_stream_is_taken(
    upstream: FakeAnthropic, anthropic: Anthropic
) -> None:
    body = {"content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn"}
    upstream.reply_with(json.dumps(body).encode(), kind="application/json")
    assert collect(await events_of(anthropic, ask())).text == "Hello"


@pytest.mark.parametrize(
    ("status", "kind", "message", "error", "retry_after"),
    [
        (400, "invalid_request_error", "bad field", InvalidRequest, None),
        (400, "invalid_request_error", "prompt is too long: 9 > 8", ContextTooLong, None),
        (400, "invalid_request_error", "Your credit balance is too low", UpstreamRefusedCredential, None),
        (401, "authentication_error", "invalid x-api-key", UpstreamRefusedCredential, None),
        (402, "billing_error", "pay", UpstreamRefusedCredential, None),
        (403, "permission_error", "not allowed", UpstreamRefusedCredential, None),
        (404, "not_found_error", "model: model-a", ModelNotFound, None),
        (413, "request_too_large", "too many bytes", RequestTooLarge, None),
        (429, "rate_limit_error", "slow down", UpstreamRateLimited, 3),
        (500, "api_error", "Internal server error", UpstreamFailed, 3),
        (504, "timeout_error", "too slow", UpstreamTimeout, 3),
        (529, "overloaded_error", "Overloaded", UpstreamOverloaded, 3),
    ],
)
async def test_a_refusal_becomes_an_error_of_ours(
    upstream: FakeAnthropic,
    anthropic: Anthropic,
    status: int,
    kind: str,
    message: str,
    error: type[GatewayError],
    retry_after: float | None,
) -> None:
    upstream.refuse_with(status, kind, message, retry_after="3")
    found = await failure(anthropic, ask())
    assert type(found) is error
    assert message in found.message
    assert found.retry_after == retry_after


async def test_an_error_in_the_stream_comes_after_the_text_before_it(
    upstream: FakeAnthropic, anthropic: Anthropic
) -> None:
    upstream.break_off("overloaded_error", "Overloaded", "so ", "far")
    found: list[Event] = []

    async def listen() -> None:
        async with aclosing(anthropic.stream(ask())) as events:
            async for event in events:
                found.append(event)  # noqa: PERF401

    with pytest.raises(UpstreamOverloaded):
        await listen()
    assert collect(found).text == "so far"


async def test_a_stream_that_is_cut_is_an_error(upstream: FakeAnthropic, anthropic: Anthropic) -> None:
    upstream.cut()
    assert (await failure(anthropic, ask())).code == "upstream_truncated"


async def test_a_web_page_is_no_answer(upstream: FakeAnthropic, anthropic: Anthropic) -> None:
    upstream.show_web_page()
    found = await failure(anthropic, ask())
    assert isinstance(found, UpstreamProtocolError)
    assert "base_url" in found.hint


@pytest.mark.parametrize("in_stream", [True, False])
async def test_the_key_is_in_no_error(upstream: FakeAnthropic, anthropic: Anthropic, in_stream: bool) -> None:
    if in_stream:
        upstream.break_off("api_error", f"the key {KEY} broke")
    else:
        upstream.refuse_with(500, "api_error", f"the key {KEY} broke")
    found = await failure(anthropic, ask())
    assert KEY not in found.explanation
    assert "***" in found.message


async def test_without_a_key_nothing_is_sent_and_the_remedy_is_told(
    upstream: FakeAnthropic, http: HTTPClient
) -> None:
    provider = made(upstream, http, key="")
    assert not provider.info.ready
    assert "ANTHROPIC_API_KEY" in provider.info.missing
    for call in (events_of(provider, ask()), provider.models()):
        with pytest.raises(SignInRequired, match="ANTHROPIC_API_KEY"):
            await call
    assert upstream.requests == []


async def test_a_gateway_that_asks_for_no_key_gets_none(upstream: FakeAnthropic, http: HTTPClient) -> None:
    provider = made(upstream, http, key="", needs_auth=False)
    assert provider.info.ready
    assert isinstance(await failure(provider, ask()), UpstreamRefusedCredential)
    assert "x-api-key" not in upstream.requests[0].headers


async def test_a_key_from_a_file_is_used(upstream: FakeAnthropic, http: HTTPClient) -> None:
    settings = ProviderSettings(base_url=upstream.root, api_key_file="/keys/anthropic")
    found: list[tuple[str, str]] = []

    def lookup(variable: str, file: str) -> str:
        found.append((variable, file))
        return KEY

    upstream.reply("Hello")
    await events_of(Anthropic(settings, http=http, key_lookup=lookup), ask())
    assert set(found) == {("", "/keys/anthropic")}


async def test_models_are_listed(upstream: FakeAnthropic, anthropic: Anthropic) -> None:
    first, second = await anthropic.models()
    assert first == Model("model-a", created=1_700_000_000, owned_by="anthropic", context_length=200_000)
    assert second.id == "model-b"
    assert upstream.requests[0].path == "/v1/models?limit=1000"


async def test_it_is_described_by_its_settings(upstream: FakeAnthropic, http: HTTPClient) -> None:
    info = made(
        upstream, http, default_model="mine", models=("mine",), label="Ours", supports=("system",)
    ).info
    assert (info.default_model, info.models, info.label, info.supports) == (
        "mine",
        ("mine",),
        "Ours",
        ("system",),
    )
    assert info.credential_source == "environment"
    assert not info.stateful


async def test_an_address_that_can_be_none_is_told_at_once(http: HTTPClient, tmp_path: Path) -> None:
    with pytest.raises(ProviderNotConfigured, match=r"\[providers.Anthropic\] base_url"):
        Anthropic(
            ProviderSettings(base_url=f"file://{tmp_path}"), http=http, key_lookup=lambda variable, file: ""
        )

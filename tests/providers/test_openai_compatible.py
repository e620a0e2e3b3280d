"""OpenAI-compatible providers: what goes out, what comes in, and how they are configured."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.config import ProviderSettings, UpstreamSettings
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    SignInRequired,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelway.provider import ProviderInfo
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import (
    OpenAICompatible,
    Quirks,
    build_provider,
    load_presets,
)
from modelway.testing.fake_upstream import FakeUpstream, closed_port
from modelway.types import (
    ChatRequest,
    Event,
    Finish,
    Message,
    Model,
    Params,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    Usage,
    collect,
)
from tests.canary import CANARY
from tests.polling import until
from tests.providers.asking import STREAMED, events_of, failure

pytestmark = pytest.mark.anyio

KEY = f"sk-test-{CANARY}"
PRESETS = load_presets()
DOCUMENT = Path(__file__).parents[2] / "docs" / "providers.md"


@pytest.fixture
async def http() -> AsyncIterator[HTTPClient]:
    settings = UpstreamSettings(first_byte_timeout_s=0.3, idle_timeout_s=0.3, max_event_bytes=100_000)
    async with aclosing(HTTPClient(settings)) as made:
        yield made


@pytest.fixture
def provider(upstream: FakeUpstream, http: HTTPClient) -> OpenAICompatible:
    return made(upstream.url, http)


def made(url: str, http: HTTPClient, **options: Any) -> OpenAICompatible:
    info = ProviderInfo(name="Acme", needs_auth=True)
    return OpenAICompatible(info, url, http=http, **{"key": lambda: KEY, **options})


def ask(*, stream: bool = True, dialect: str = "openai_chat", **fields: Any) -> ChatRequest:
    messages = (Message(role="user", content="Hi"),)
    return ChatRequest(messages=messages, model="model-a", stream=stream, dialect=dialect, **fields)


# What goes out.


@STREAMED
async def test_the_request_is_one_of_chat_completions(
    provider: OpenAICompatible, upstream: FakeUpstream, stream: bool
) -> None:
    await events_of(provider, ask(stream=stream, params=Params(temperature=0.5, max_tokens=9)))
    received = upstream.requests[0]
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["content-type"] == "application/json"
    expected: dict[str, Any] = {
        "model": "model-a",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": stream,
        "temperature": 0.5,
        "max_tokens": 9,
    }
    if stream:
        expected["stream_options"] = {"include_usage": True}
    assert received.json == expected


async def test_quirks_of_an_upstream_are_respected(upstream: FakeUpstream, http: HTTPClient) -> None:
    quirks = Quirks(
        auth="api-key",
        max_tokens_field="max_completion_tokens",
        include_usage=False,
        drop=("seed", "logprobs"),
    )
    provider = made(upstream.url, http, quirks=quirks)
    extra = {"logprobs": True, "stream_options": {"include_usage": True}, "kept": 1}
    await events_of(provider, ask(params=Params(max_tokens=9, seed=1), extra=extra))
    received = upstream.requests[0]
    assert received.headers["api-key"] == KEY
    assert "authorization" not in received.headers
    assert received.json["max_completion_tokens"] == 9
    assert received.json["kept"] == 1
    assert not {"seed", "logprobs", "stream_options", "max_tokens"} & set(received.json)
    assert "seed" not in provider.info.params
    assert "temperature" in provider.info.params


async def test_the_users_headers_go_out_and_no_others(upstream: FakeUpstream, http: HTTPClient) -> None:
    provider = made(upstream.url, http, headers={"X-Title": "Modelway"})
    await events_of(provider, ask(extra={"authorization": "Bearer caller"}))
    headers = upstream.requests[0].headers
    assert headers["x-title"] == "Modelway"
    assert set(headers) == {
        "host",
        "accept-encoding",
        "user-agent",
        "authorization",
        "content-type",
        "content-length",
        "x-title",
    }
    assert headers["authorization"] == f"Bearer {KEY}"


async def test_without_a_key_nothing_is_sent(upstream: FakeUpstream, http: HTTPClient) -> None:
    provider = made(upstream.url, http, key=lambda: "", key_hint="set the environment variable ACME_KEY")
    error = await failure(provider, ask())
    assert isinstance(error, SignInRequired)
    assert error.failover
    assert "ACME_KEY" in error.explanation
    with pytest.raises(SignInRequired):
        await provider.models()
    assert upstream.connected == 0


async def test_a_key_that_is_not_needed_is_not_sent(upstream: FakeUpstream, http: HTTPClient) -> None:
    provider = OpenAICompatible(ProviderInfo(name="Open"), upstream.url, http=http, key=lambda: "")
    assert collect(await events_of(provider, ask())).text == "Hello"
    assert "authorization" not in upstream.requests[0].headers


async def test_a_key_that_turns_up_later_is_noticed(upstream: FakeUpstream, http: HTTPClient) -> None:
    keys = [""]
    provider = made(upstream.url, http, key=lambda: keys[0], key_hint="set K")

    def state() -> tuple[bool, str]:
        return provider.info.ready, provider.info.missing

    assert state() == (False, "no API key: set K")
    keys[0] = KEY
    assert state() == (True, "")
    keys[0] = ""
    await failure(provider, ask())
    assert state() == (False, "no API key: set K")


async def test_a_key_file_that_cannot_be_used_leaves_the_provider_there_but_not_ready(
    upstream: FakeUpstream, http: HTTPClient
) -> None:
    def key() -> str:
        raise ProviderNotConfigured("others may read the key file")

    provider = made(upstream.url, http, key=key)
    assert not provider.info.ready
    assert provider.info.missing == "others may read the key file"
    assert isinstance(await failure(provider, ask()), ProviderNotConfigured)


# What comes in.


async def test_a_stream_carries_raw_bytes_for_a_caller_of_the_same_dialect(
    provider: OpenAICompatible, upstream: FakeUpstream
) -> None:
    upstream.reply("Hello", " there")
    events = await events_of(provider, ask())
    raw = b"".join(getattr(event, "raw", None) or b"" for event in events)
    chunks = [json.loads(line[6:]) for line in raw.decode().split("\n\n") if line]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Hello there"
    assert all(chunk["choices"] for chunk in chunks)
    assert b"[DONE]" not in raw


async def test_a_stream_for_another_dialect_carries_none(
    provider: OpenAICompatible, upstream: FakeUpstream
) -> None:
    upstream.reply("Hello", reasoning="hm", calls=[ToolCall("c1", "look", '{"a":1}')])
    events = await events_of(provider, ask(dialect="another"))
    assert all(getattr(event, "raw", None) is None for event in events)
    completion = collect(events)
    assert (completion.text, completion.message.reasoning) == ("Hello", "hm")
    assert completion.message.tool_calls == (ToolCall("c1", "look", '{"a":1}'),)
    assert completion.finish_reason == "tool_calls"
    assert completion.usage == Usage(input_tokens=7, output_tokens=3)
    assert completion.model == "model-a"


async def test_a_whole_answer_carries_the_upstreams_body(
    provider: OpenAICompatible, upstream: FakeUpstream
) -> None:
    upstream.reply("Hello", " there")
    events = await events_of(provider, ask(stream=False))
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert json.loads(finish.raw or b"")["choices"][0]["message"]["content"] == "Hello there"


async def test_a_stream_cut_at_every_byte_reads_the_same(
    provider: OpenAICompatible, upstream: FakeUpstream
) -> None:
    upstream.reply("Grüße", " 👋", one_byte_at_a_time=True)
    completion = collect(await events_of(provider, ask()))
    assert completion.text == "Grüße 👋"
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_comments_unknown_events_and_every_line_end_are_understood(
    provider: OpenAICompatible, upstream: FakeUpstream, end: str
) -> None:
    lines = [
        ": keep-alive",
        "",
        "event: ping",
        "",
        'data:{"choices":[{"index":0,"delta":{"content":"Hello"}}]}',
        "",
        "id: 7",
        'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}',
        "",
        "data: [DONE]",
        "",
        "",
    ]
    upstream.reply_with(end.join(lines).encode())
    completion = collect(await events_of(provider, ask()))
    assert (completion.text, completion.finish_reason) == ("Hello", "length")


async def test_a_whole_answer_in_place_of_a_stream_is_taken(
    provider: OpenAICompatible, upstream: FakeUpstream
) -> None:
    body = b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}'
    upstream.reply_with(body, kind="application/json")
    events = await events_of(provider, ask())
    assert events[0] == TextDelta(text="Hello")
    assert isinstance(events[-1], Finish)
    assert events[-1].raw is None


async def test_the_connection_is_used_again_though_the_consumer_stops_at_the_finish(
    provider: OpenAICompatible, upstream: FakeUpstream, http: HTTPClient
) -> None:
    for _ in range(3):
        events = provider.stream(ask())
        async for event in events:
            if isinstance(event, Finish):
                break
        await events.aclose()
        await until(lambda: any(http._idle.values()))
    assert upstream.connected == 1


async def test_reasoning_is_told_apart_from_text(provider: OpenAICompatible, upstream: FakeUpstream) -> None:
    upstream.reply("4", reasoning="2+2")
    events = await events_of(provider, ask(dialect="another"))
    assert ReasoningDelta(text="2+2") in events


# Failures.


@STREAMED
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "", InvalidRequest),
        (400, "context_length_exceeded", ContextTooLong),
        (401, "", UpstreamRefusedCredential),
        (404, "", ModelNotFound),
        (429, "", UpstreamRateLimited),
        (503, "", UpstreamOverloaded),
    ],
)
async def test_an_error_status_is_raised_before_any_event(
    provider: OpenAICompatible,
    upstream: FakeUpstream,
    stream: bool,
    status: int,
    code: str,
    kind: type[GatewayError],
) -> None:
    upstream.fail(status, "because", code)
    error = await failure(provider, ask(stream=stream))
    assert type(error) is kind
    assert "Acme" in error.message
    assert "because" in error.message


async def test_a_refused_key_names_where_it_is_set_and_never_the_key(
    upstream: FakeUpstream, http: HTTPClient
) -> None:
    provider = made(upstream.url, http, key_hint="set the environment variable ACME_KEY")
    upstream.fail(401, f"Incorrect API key provided: {KEY}.")
    error = await failure(provider, ask())
    assert "ACME_KEY" in error.hint
    assert KEY not in error.explanation
    assert KEY not in str(error)


@STREAMED
async def test_an_error_inside_a_good_answer_is_raised_without_the_key(
    provider: OpenAICompatible, upstream: FakeUpstream, stream: bool
) -> None:
    if stream:
        upstream.report_error(f"no credit on {KEY}", "overloaded_error")
    else:
        body = json.dumps({"error": {"message": f"no credit on {KEY}", "code": "overloaded_error"}})
        upstream.reply_with(body.encode(), kind="application/json")
    error = await failure(provider, ask(stream=stream))
    assert isinstance(error, UpstreamOverloaded)
    assert "no credit" in error.message
    assert KEY not in str(error)


@pytest.mark.parametrize(
    ("fault", "arguments", "kind", "code"),
    [
        ("reset", [], UpstreamUnreachable, "upstream_unreachable"),
        ("be_silent", [], UpstreamTimeout, "upstream_timeout"),
        ("stall", [], UpstreamTimeout, "upstream_timeout"),
        ("cut", [], UpstreamProtocolError, "upstream_truncated"),
        ("show_web_page", [], UpstreamProtocolError, "upstream_malformed"),
        ("redirect", ["http://127.0.0.1:1/"], UpstreamProtocolError, "upstream_redirect"),
        ("bomb", [], UpstreamProtocolError, "upstream_too_large"),
        ("send_huge_header", [], UpstreamProtocolError, "upstream_too_large"),
        ("report_error", ["broken"], UpstreamError, "upstream_error"),
    ],
)
async def test_a_fault_before_the_first_delta_has_its_error(
    provider: OpenAICompatible,
    upstream: FakeUpstream,
    fault: str,
    arguments: list[Any],
    kind: type[GatewayError],
    code: str,
) -> None:
    getattr(upstream, fault)(*arguments)
    error = await failure(provider, ask())
    assert isinstance(error, kind)
    assert error.code == code


@pytest.mark.parametrize(
    ("fault", "arguments", "code"),
    [
        ("reset", ["so far"], "upstream_reset"),
        ("stall", ["so far"], "upstream_stalled"),
        ("cut", ["so far"], "upstream_truncated"),
        ("speak_gibberish", [], "upstream_malformed"),
        ("report_error", ["broken", "", "so far"], "upstream_error"),
    ],
)
async def test_a_fault_inside_the_answer_comes_after_what_was_said(
    provider: OpenAICompatible, upstream: FakeUpstream, fault: str, arguments: list[Any], code: str
) -> None:
    getattr(upstream, fault)(*arguments)
    events: list[Event] = []

    async def collect_events() -> None:
        async with aclosing(provider.stream(ask(dialect="another"))) as stream:
            async for event in stream:
                events.append(event)  # noqa: PERF401

    with pytest.raises(UpstreamError) as raised:
        await collect_events()
    assert raised.value.code == code
    assert events
    assert all(isinstance(event, TextDelta) for event in events)


async def test_an_event_that_is_too_large_is_given_up(
    provider: OpenAICompatible, upstream: FakeUpstream
) -> None:
    upstream.stream(b"data: ", b"x" * 200_000)
    assert (await failure(provider, ask())).code == "upstream_too_large"


async def test_an_upstream_that_is_not_there_was_never_sent_anything(http: HTTPClient) -> None:
    error = await failure(made(f"http://127.0.0.1:{closed_port()}/v1", http), ask())
    assert isinstance(error, UpstreamUnreachable)
    assert not error.sent


# Models.


async def test_models_are_what_the_upstream_lists(provider: OpenAICompatible, upstream: FakeUpstream) -> None:
    upstream.models = [Model(id="one", owned_by="acme", context_length=4096), Model(id="two")]
    assert await provider.models() == upstream.models
    assert upstream.requests[0].path == "/v1/models"
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_missing_list_of_models_is_an_error(http: HTTPClient) -> None:
    provider = made(f"http://127.0.0.1:{closed_port()}/v1", http)
    with pytest.raises(UpstreamUnreachable):
        await provider.models()


# Presets and settings.


def build(
    name: str,
    http: HTTPClient,
    settings: ProviderSettings | None = None,
    keys: Mapping[tuple[str, str], str] = {},
) -> OpenAICompatible:
    return build_provider(
        name, PRESETS.get(name), settings, http, lambda env, file: keys.get((env, file), "")
    )


@pytest.mark.parametrize("name", PRESETS)
async def test_a_preset_builds_a_provider_that_says_what_it_lacks(name: str, http: HTTPClient) -> None:
    preset = PRESETS[name]
    described = build(name, http).info
    assert described.name == name
    assert described.url.startswith("https://")
    assert described.label
    assert set(described.supports) <= {
        "system",
        "tools",
        "images",
        "json_schema",
        "json_object",
        "reasoning",
        "n",
        "completions",
        "prefix_echoed",
        "responses",
    }
    assert preset.default_model in preset.models or not preset.default_model
    if preset.needs_auth:
        assert preset.key_env
        assert not described.ready
        assert preset.key_env in described.missing or "base_url" in described.missing
        assert preset.base_url.startswith("https://")
    else:
        assert described.ready
        assert preset.base_url.startswith("http://localhost:")


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_in_the_documents_table_as_it_is(name: str) -> None:
    preset = PRESETS[name]
    key = f"`{preset.key_env}`" if preset.key_env else "–"
    model = f"`{preset.default_model}`" if preset.default_model else "–"
    row = f"| `{name}` | [{preset.label}]({preset.url}) | {key} | {model} |"
    assert row in DOCUMENT.read_text().splitlines()


async def test_the_key_comes_from_the_presets_variable_or_the_users(
    upstream: FakeUpstream, http: HTTPClient
) -> None:
    keys = {("OPENAI_API_KEY", ""): "preset", ("MY_KEY", ""): "mine", ("", "/k"): "file"}
    for settings, key in [
        (ProviderSettings(base_url=upstream.url), "preset"),
        (ProviderSettings(base_url=upstream.url, api_key_env="MY_KEY"), "mine"),
        (ProviderSettings(base_url=upstream.url, api_key_file="/k"), "file"),
    ]:
        await events_of(build("OpenAI", http, settings, keys), ask())
        assert upstream.requests[-1].headers["authorization"] == f"Bearer {key}"


async def test_the_users_settings_go_before_the_presets(http: HTTPClient) -> None:
    settings = ProviderSettings(
        label="Mine", needs_auth=False, default_model="m", models=("m", "n"), supports=("tools",)
    )
    described = build("Groq", http, settings).info
    assert (described.label, described.default_model, described.models) == ("Mine", "m", ("m", "n"))
    assert described.supports == ("tools",)
    assert described.ready
    assert described.url == PRESETS["Groq"].url


async def test_a_base_url_of_the_users_own_needs_no_preset(upstream: FakeUpstream, http: HTTPClient) -> None:
    provider = build("Mine", http, ProviderSettings(base_url=upstream.url + "/"))
    assert provider.info.ready
    assert collect(await events_of(provider, ask())).text == "Hello"
    assert upstream.requests[0].path == "/v1/chat/completions"


async def test_a_key_of_the_users_own_makes_it_needed(http: HTTPClient) -> None:
    settings = ProviderSettings(base_url="http://127.0.0.1:1/v1", api_key_env="MY_KEY")
    described = build("Mine", http, settings).info
    assert not described.ready
    assert "MY_KEY" in described.missing


async def test_a_placeholder_in_the_address_asks_for_the_users_own(http: HTTPClient) -> None:
    provider = build("Azure", http, keys={("AZURE_OPENAI_API_KEY", ""): KEY})
    assert not provider.info.ready
    assert "base_url" in provider.info.missing
    error = await failure(provider, ask())
    assert isinstance(error, ProviderNotConfigured)
    assert "[providers.Azure]" in error.explanation


@pytest.mark.parametrize(
    ("name", "base_url", "said"),
    [
        ("Mine", None, "base_url"),
        ("openai", None, '"OpenAI"'),
        ("a/b", "http://127.0.0.1/v1", "name"),
        ("a:b", "http://127.0.0.1/v1", "name"),
        ("", "http://127.0.0.1/v1", "name"),
        ("Mine", "file:///etc/passwd", "[providers.Mine]"),
        ("Mine", "http://user:hunter2@127.0.0.1/v1", "[providers.Mine]"),
        ("Mine", "http://127.0.0.1/v1?key=hunter2", "query"),
        ("Mine", "http://127.0.0.1/v1#x", "fragment"),
    ],
)
async def test_settings_that_can_never_work_are_refused(
    http: HTTPClient, name: str, base_url: str | None, said: str
) -> None:
    with pytest.raises(ProviderNotConfigured) as raised:
        build(name, http, ProviderSettings(base_url=base_url))
    assert said in raised.value.explanation
    assert "hunter2" not in raised.value.explanation

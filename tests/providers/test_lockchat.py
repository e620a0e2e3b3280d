"""Lockchat: its request, its missing models, its key, and the function for programs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from modelway import __version__
from modelway.config import ProviderSettings, Settings, UpstreamSettings
from modelway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    SignInRequired,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelway.provider import Provider
from modelway.providers import lockchat
from modelway.providers.http import HTTPClient
from modelway.providers.lockchat import Lockchat
from modelway.testing.fake_upstream import FakeUpstream, closed_port, text_event
from modelway.types import ChatRequest, Finish, Message, Params, collect
from modelway.wiring import build_providers
from tests.polling import until
from tests.providers.asking import STREAMED, events_of

KEY = "canary+Key/0123456789=="
QUOTED = "canary%2BKey%2F0123456789%3D%3D"
WORDS = "The model: `gpt-4` does not exist"
DONE = b"data: [DONE]\n\n"
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


@pytest.fixture
async def http() -> AsyncIterator[HTTPClient]:
    settings = UpstreamSettings(first_byte_timeout_s=0.3, idle_timeout_s=0.3)
    async with aclosing(HTTPClient(settings)) as made:
        yield made


@pytest.fixture
def provider(upstream: FakeUpstream, http: HTTPClient) -> Lockchat:
    return made(upstream, http)


def address(upstream: FakeUpstream) -> str:
    return upstream.url.removesuffix("/v1")


def made(upstream: FakeUpstream, http: HTTPClient, key: str = KEY, **settings: Any) -> Lockchat:
    chosen = ProviderSettings(base_url=address(upstream), **settings)
    return Lockchat(chosen, http=http, key=lambda: key, first_pause_s=0.001)


def ask(*, stream: bool = True, dialect: str = "openai_chat", **fields: Any) -> ChatRequest:
    messages = (Message(role="user", content="Hi"),)
    return ChatRequest(messages=messages, model="gpt-4", stream=stream, dialect=dialect, **fields)


async def failure(provider: Provider, request: ChatRequest | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        await events_of(provider, request or ask())
    return raised.value


def error_event(error: object) -> bytes:
    return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"


# What goes out.


@pytest.mark.anyio
@STREAMED
async def test_the_request_is_the_documents(provider: Lockchat, upstream: FakeUpstream, stream: bool) -> None:
    await events_of(provider, ask(stream=stream))
    received = upstream.requests[0]
    assert (received.method, received.path) == ("POST", f"/v1/chat/completions?auth={QUOTED}")
    assert received.headers["user-agent"] == f"modelway/{__version__}"
    assert "authorization" not in received.headers
    assert received.json == {
        "model": "gpt-4",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "temperature": 0.7,
    }


@pytest.mark.anyio
async def test_what_the_caller_asks_further_is_sent_on(provider: Lockchat, upstream: FakeUpstream) -> None:
    await events_of(provider, ask(params=Params(temperature=0, max_tokens=9), extra={"logit_bias": {"1": 2}}))
    body = upstream.requests[0].json
    assert (body["temperature"], body["max_tokens"], body["logit_bias"]) == (0, 9, {"1": 2})


@pytest.mark.anyio
async def test_without_a_key_the_url_has_no_query(upstream: FakeUpstream, http: HTTPClient) -> None:
    await events_of(made(upstream, http, key=""), ask())
    assert upstream.requests[0].path == "/v1/chat/completions"


@pytest.mark.anyio
async def test_a_base_url_may_end_in_v1(upstream: FakeUpstream, http: HTTPClient) -> None:
    settings = ProviderSettings(base_url=upstream.url + "/")
    await events_of(Lockchat(settings, http=http, key=str), ask())
    assert upstream.requests[0].path == "/v1/chat/completions"


@pytest.mark.anyio
async def test_a_key_may_be_made_a_demand(upstream: FakeUpstream, http: HTTPClient) -> None:
    assert isinstance(await failure(made(upstream, http, key="", needs_auth=True)), SignInRequired)
    assert not upstream.requests


# Missing models.

MISSING: dict[str, Callable[[FakeUpstream], None]] = {
    "a token": lambda upstream: upstream.stream(text_event(WORDS), FINISH, DONE),
    "tokens": lambda upstream: upstream.reply("The mod", "el: `gpt", "-4` does not", " exist"),
    "a sentence": lambda upstream: upstream.reply("\n" + WORDS + ".\n"),
    "a token and no end": lambda upstream: upstream.stream(text_event(WORDS)),
    "a plain line": lambda upstream: upstream.reply_with(WORDS.encode() + b"\n", kind="text/plain"),
    "a plain event": lambda upstream: upstream.stream(b"data: " + WORDS.encode() + b"\n\n", DONE),
    "an error in the stream": lambda upstream: upstream.stream(error_event({"message": WORDS})),
    "an error as text": lambda upstream: upstream.stream(error_event(WORDS), DONE),
    "an error object": lambda upstream: upstream.reply_with(
        json.dumps({"error": {"message": WORDS, "code": "model_not_found"}}).encode(),
        kind="application/json",
    ),
    "a bare object": lambda upstream: upstream.reply_with(json.dumps({"message": WORDS}).encode()),
    "an event without choices": lambda upstream: upstream.stream(
        b"data: " + json.dumps({"object": "error", "message": WORDS}).encode() + b"\n\n"
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("said", MISSING.values(), ids=MISSING.keys())
@STREAMED
async def test_a_missing_model_is_asked_for_three_times(
    provider: Lockchat, upstream: FakeUpstream, said: Callable[[FakeUpstream], None], stream: bool
) -> None:
    said(upstream)
    error = await failure(provider, ask(stream=stream))
    assert isinstance(error, ModelNotFound)
    assert (error.status, error.code, error.failover, error.param) == (404, "model_not_found", True, "model")
    assert WORDS in error.message
    assert len(upstream.requests) == 3
    assert upstream.requests[0].body == upstream.requests[2].body


@pytest.mark.anyio
@pytest.mark.parametrize("said", MISSING.values(), ids=MISSING.keys())
@pytest.mark.parametrize("dialect", ["openai_chat", "another"])
async def test_a_model_that_comes_back_answers(
    provider: Lockchat, upstream: FakeUpstream, said: Callable[[FakeUpstream], None], dialect: str
) -> None:
    said(upstream)
    upstream.reply("Hello", " there")
    events = await events_of(provider, ask(dialect=dialect))
    assert collect(events).text == "Hello there"
    assert WORDS.encode() not in b"".join(getattr(event, "raw", None) or b"" for event in events)
    assert len(upstream.requests) == 2


@pytest.mark.anyio
async def test_the_pause_between_attempts_grows(upstream: FakeUpstream, http: HTTPClient) -> None:
    settings = ProviderSettings(base_url=address(upstream))
    provider = Lockchat(settings, http=http, key=str, max_attempts=4, first_pause_s=0.02)
    upstream.reply(WORDS)
    started = asyncio.get_running_loop().time()
    await failure(provider)
    assert len(upstream.requests) == 4
    assert asyncio.get_running_loop().time() - started >= 0.02 + 0.04 + 0.08


@pytest.mark.anyio
async def test_one_attempt_may_be_enough(upstream: FakeUpstream, http: HTTPClient) -> None:
    upstream.reply(WORDS)
    provider = Lockchat(
        ProviderSettings(base_url=address(upstream)), http=http, key=str, max_attempts=1, first_pause_s=60
    )
    assert isinstance(await failure(provider), ModelNotFound)
    assert len(upstream.requests) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    "pieces",
    [
        ("It said: ", WORDS),
        (WORDS, ", it said."),
        (WORDS + " here",),
        ("The model", " is fine"),
        ("The model: `gpt-3.5-turbo` does not exist",),
        ('a line "data: {}" and data: [DONE]', "\n\ndata: ", "end"),
        (" ",),
        ("The",),
    ],
)
@pytest.mark.parametrize("dialect", ["openai_chat", "another"])
async def test_an_answer_that_resembles_it_arrives_whole(
    provider: Lockchat, upstream: FakeUpstream, pieces: tuple[str, ...], dialect: str
) -> None:
    upstream.reply(*pieces)
    events = await events_of(provider, ask(dialect=dialect))
    assert collect(events).text == "".join(pieces)
    assert isinstance(events[-1], Finish)
    assert len(upstream.requests) == 1


@pytest.mark.anyio
async def test_the_words_after_a_token_are_an_error_and_nothing_is_sent_again(
    provider: Lockchat, upstream: FakeUpstream
) -> None:
    upstream.report_error(WORDS, "", "Hello")
    async with aclosing(provider.stream(ask())) as events:
        first = await anext(events)
        assert getattr(first, "text", "") == "Hello"
        with pytest.raises(GatewayError):
            await anext(events)
    assert len(upstream.requests) == 1


@pytest.mark.anyio
async def test_another_models_absence_is_not_asked_for_again(
    provider: Lockchat, upstream: FakeUpstream
) -> None:
    upstream.report_error("no such model", "model_not_found")
    assert isinstance(await failure(provider), ModelNotFound)
    assert len(upstream.requests) == 1


@pytest.mark.anyio
async def test_closing_while_it_pauses_sends_nothing_more(upstream: FakeUpstream, http: HTTPClient) -> None:
    upstream.reply(WORDS)
    provider = Lockchat(ProviderSettings(base_url=address(upstream)), http=http, key=str, first_pause_s=3600)
    asking = asyncio.create_task(events_of(provider, ask()))
    await until(lambda: upstream.requests)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert len(upstream.requests) == 1


# Failures.

FAULTS: dict[str, tuple[Callable[[FakeUpstream], None], type[GatewayError]]] = {
    "a plain error object": (
        lambda upstream: upstream.reply_with(b'{"error": "out of order"}', kind="application/json"),
        UpstreamFailed,
    ),
    "an error object called a stream": (
        lambda upstream: upstream.reply_with(b'\n{"error": {"message": "out of order"}}'),
        UpstreamFailed,
    ),
    "an error in the stream": (
        lambda upstream: upstream.report_error("later", "rate_limit_exceeded"),
        UpstreamRateLimited,
    ),
    "half a JSON object": (lambda upstream: upstream.reply_with(b'{"choices": ['), UpstreamProtocolError),
    "nothing": (lambda upstream: upstream.reply_with(b""), UpstreamProtocolError),
    "a page": (FakeUpstream.show_web_page, UpstreamProtocolError),
    "gibberish": (FakeUpstream.speak_gibberish, UpstreamProtocolError),
    "an end without a finish": (FakeUpstream.cut, UpstreamProtocolError),
    "a redirect": (lambda upstream: upstream.redirect("http://127.0.0.1/"), UpstreamProtocolError),
    "400": (lambda upstream: upstream.fail(400), InvalidRequest),
    "401": (lambda upstream: upstream.fail(401), UpstreamRefusedCredential),
    "404": (lambda upstream: upstream.fail(404, WORDS), ModelNotFound),
    "429": (lambda upstream: upstream.fail(429), UpstreamRateLimited),
    "500": (lambda upstream: upstream.fail(500), UpstreamFailed),
    "503": (lambda upstream: upstream.fail(503), UpstreamOverloaded),
    "silence": (FakeUpstream.be_silent, UpstreamTimeout),
    "silence inside": (lambda upstream: upstream.stall("The"), UpstreamTimeout),
    "a reset": (FakeUpstream.reset, UpstreamUnreachable),
}


@pytest.mark.anyio
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_an_error_of_ours_after_one_call(
    provider: Lockchat, upstream: FakeUpstream, fault: str
) -> None:
    play, expected = FAULTS[fault]
    play(upstream)
    error = await failure(provider)
    assert type(error) is expected, error
    assert error.failover is not isinstance(error, InvalidRequest)
    assert len(upstream.requests) == 1


@pytest.mark.anyio
async def test_a_whole_answer_is_taken_too(provider: Lockchat, upstream: FakeUpstream) -> None:
    body = {"choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}
    upstream.reply_with(json.dumps(body).encode(), kind="application/json")
    assert collect(await events_of(provider, ask())).text == "Hello"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "shown",
    [KEY, QUOTED, QUOTED.replace("B", "b"), "/v1/chat/completions?auth=" + QUOTED],
    ids=["as it is", "quoted", "lower", "URL"],
)
@pytest.mark.parametrize("kind", ["status", "stream", "object", "long", "redirect", "refused", "sent"])
async def test_the_key_is_in_no_error_log_or_repr(
    upstream: FakeUpstream, http: HTTPClient, caplog: pytest.LogCaptureFixture, shown: str, kind: str
) -> None:
    caplog.set_level(logging.DEBUG)
    provider = made(upstream, http)
    match kind:
        case "status":
            upstream.fail(401, f"{shown} is wrong")
        case "stream":
            upstream.report_error(f"{shown} is wrong")
        case "object":
            upstream.reply_with(json.dumps({"error": f"{shown} is wrong"}).encode(), kind="application/json")
        case "long":
            # The message is cut at 500 characters, in the middle of the key.
            upstream.report_error("x" * (500 - len(shown) // 2) + shown)
        case "redirect":
            upstream.redirect(f"http://127.0.0.1/?auth={shown}")
        case "refused":
            settings = ProviderSettings(base_url=f"http://127.0.0.1:{closed_port()}")
            provider = Lockchat(settings, http=http, key=lambda: KEY)
        case _:
            upstream.reset()
    error: BaseException | None = await failure(provider)
    told = [repr(provider), repr(vars(provider)), repr(provider.info), caplog.text]
    while error is not None:
        told += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    # Half of a key that was cut is a leak too.
    for part in (KEY, QUOTED, "canary"):
        assert part not in "".join(told)


@pytest.mark.anyio
async def test_the_key_is_found_behind_an_escaped_slash(upstream: FakeUpstream, http: HTTPClient) -> None:
    told = ("x" * 490 + KEY).replace("/", "\\/")
    upstream.reply_with(f'{{"error": "{told}"}}'.encode(), status=400, kind="application/json")
    assert "canary" not in str(await failure(made(upstream, http)))


# What it says of itself.


@pytest.mark.anyio
async def test_without_an_address_it_says_which_setting_is_missing(http: HTTPClient) -> None:
    provider = Lockchat(ProviderSettings(), http=http, key=str)
    error = await failure(provider)
    assert isinstance(error, ProviderNotConfigured)
    assert (error.status, error.code, error.failover) == (503, "provider_not_configured", True)
    assert "[providers.Lockchat] base_url" in str(error)
    assert not provider.info.ready
    assert "[providers.Lockchat] base_url" in provider.info.missing


@pytest.mark.anyio
@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://u:p@127.0.0.1", "http://127.0.0.1/?auth=x", "x"])
async def test_an_address_that_cannot_be_is_refused(http: HTTPClient, url: str) -> None:
    error = await failure(Lockchat(ProviderSettings(base_url=url), http=http, key=str))
    assert isinstance(error, ProviderNotConfigured)
    assert "[providers.Lockchat] base_url" in error.message


@pytest.mark.anyio
async def test_it_describes_itself_as_the_documents_do(provider: Lockchat) -> None:
    info = provider.info
    assert (info.name, info.url) == ("Lockchat", "http://super.lockchat.app")
    assert (info.needs_auth, info.supports_stream, info.ready) == (False, True, True)
    assert [model.id for model in await provider.models()] == ["gpt-4", "gpt-3.5-turbo"]
    assert info.params == ("temperature",)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["Lockchat", "lockchat"])
async def test_the_users_settings_configure_it(
    upstream: FakeUpstream, http: HTTPClient, tmp_path: Path, name: str
) -> None:
    secret = tmp_path / "key"
    secret.write_text(KEY + "\n")
    secret.chmod(0o600)
    own = ProviderSettings(base_url=address(upstream), api_key_file=str(secret))
    built = build_providers(Settings(providers={name: own}), http, data_dir=tmp_path)
    [provider] = [each for each in built if each.info.name.casefold() == "lockchat"]
    await events_of(provider, ask())
    assert upstream.requests[0].path.endswith(f"?auth={QUOTED}")


# The function for programs. It blocks, so the upstream runs in a thread.


@contextmanager
def playing(play: Callable[[FakeUpstream], None]) -> Iterator[FakeUpstream]:
    async def start() -> FakeUpstream:
        upstream = FakeUpstream()
        play(upstream)
        return upstream

    with start_blocking_portal() as portal:
        upstream = portal.call(start)
        with portal.wrap_async_context_manager(upstream):
            yield upstream


def create(upstream: FakeUpstream, **fields: Any) -> Iterator[str]:
    asked: dict[str, Any] = {"model": "gpt-4", "messages": [{"role": "user", "content": "Привет"}], **fields}
    return lockchat.create_completion(**asked, base_url=address(upstream), auth=KEY)


def test_the_function_yields_tokens() -> None:
    with playing(lambda upstream: upstream.reply("При", "вет", " 👋")) as upstream:
        assert "".join(create(upstream, stream=True, top_p=0.5, unheard_of=[1])) == "Привет 👋"
        [request] = upstream.requests
        assert request.path == f"/v1/chat/completions?auth={QUOTED}"
        assert request.json == {
            "model": "gpt-4",
            "messages": [{"role": "user", "content": "Привет"}],
            "stream": True,
            "temperature": 0.7,
            "top_p": 0.5,
            "unheard_of": [1],
        }


def test_the_function_gives_all_text_as_one_without_stream() -> None:
    with playing(lambda upstream: upstream.reply("Hel", "lo")) as upstream:
        assert list(create(upstream, stream=False, temperature=0)) == ["Hello"]
        assert upstream.requests[0].json["temperature"] == 0


def test_the_function_asks_again_for_a_missing_model() -> None:
    def play(upstream: FakeUpstream) -> None:
        upstream.reply(WORDS)
        upstream.reply("Hello")

    with playing(play) as upstream:
        assert list(create(upstream)) == ["Hello"]
        assert len(upstream.requests) == 2


def test_the_function_raises_when_its_attempts_are_spent() -> None:
    with playing(lambda upstream: upstream.reply(WORDS)) as upstream:
        with pytest.raises(ModelNotFound, match="does not exist"):
            list(create(upstream, max_attempts=2))
        assert len(upstream.requests) == 2


def test_leaving_the_function_early_ends_the_upstreams_work() -> None:
    with playing(lambda upstream: upstream.stall("first")) as upstream:
        tokens = create(upstream)
        assert next(tokens) == "first"
        tokens.close()  # type: ignore[attr-defined]
        deadline = time.monotonic() + 5
        while upstream.connections:
            assert time.monotonic() < deadline


@pytest.mark.anyio
async def test_the_function_refuses_to_block_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match="AsyncClient"):
        lockchat.create_completion("gpt-4", [], base_url="http://127.0.0.1:1")


def test_the_function_checks_its_arguments_at_once() -> None:
    with pytest.raises(InvalidRequest):
        lockchat.create_completion("gpt-4", [{"role": "nobody"}], base_url="http://127.0.0.1:1")
    with pytest.raises(ProviderNotConfigured):
        lockchat.create_completion("gpt-4", [{"role": "user", "content": "Hi"}], base_url="nowhere")


SCRIPT = """
from modelway.providers import lockchat
messages = [{"role": "user", "content": "Hi"}]
for token in lockchat.create_completion(model="gpt-4", messages=messages, stream=True):
    print(token, end="")
"""
FIRST_TOKEN = """
from modelway.providers import lockchat
tokens = lockchat.create_completion("gpt-4", [{"role": "user", "content": "Hi"}])
print(next(tokens), end="")
"""


def run_script(folder: Path, script: str = SCRIPT, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "MODELWAY_CONFIG_DIR": str(folder), **variables}
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environ,
        cwd=folder,
        timeout=30,
        check=False,
    )


def test_the_function_finds_address_and_key_in_the_users_settings(tmp_path: Path) -> None:
    with playing(lambda upstream: upstream.reply("Hello")) as upstream:
        settings = f'[providers.Lockchat]\nbase_url = "{address(upstream)}"\napi_key_env = "SOME_KEY"\n'
        (tmp_path / "config.toml").write_text(settings)
        done = run_script(tmp_path, SOME_KEY=KEY)
        assert (done.stdout, done.stderr) == ("Hello", "")
        assert upstream.requests[0].path.endswith(f"?auth={QUOTED}")


def test_a_program_may_end_inside_an_answer(tmp_path: Path) -> None:
    with playing(lambda upstream: upstream.stall("first")) as upstream:
        settings = f'[providers.Lockchat]\nbase_url = "{address(upstream)}"\n'
        (tmp_path / "config.toml").write_text(settings)
        done = run_script(tmp_path, FIRST_TOKEN)
        assert (done.stdout, done.stderr) == ("first", "")


def test_the_function_says_where_the_address_is_set(tmp_path: Path) -> None:
    done = run_script(tmp_path)
    assert "ProviderNotConfigured" in done.stderr
    assert "[providers.Lockchat] base_url" in done.stderr


def test_the_function_tells_what_it_accepts() -> None:
    line = "Lockchat supports: (model: str, messages: list, stream: bool, temperature: float)"
    assert lockchat.params == line
    assert lockchat._create_completion is lockchat.create_completion

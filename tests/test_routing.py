"""Which provider and model a request goes to, and what a failure permits."""

import pytest
from msgspec.structs import replace

from modelway.config import RouteSettings, Settings
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotFound,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelway.routing import BadSetting, RetryPolicy, Router
from modelway.types import ChatRequest, Message
from tests.scripted import Scripted

PROVIDERS = [
    Scripted("Local", default_model="smollm2"),
    Scripted("OpenAI", default_model="gpt-5", models=("gpt-5", "gpt-5-mini"), ready=False, needs_auth=True),
    Scripted("Groq", default_model="llama", models=("llama", "shared")),
    Scripted("Other", default_model="x", models=("shared",), ready=False, needs_auth=True),
    Scripted("Empty", default_model=""),
]
SETTINGS = Settings(
    provider="Local",
    routes={
        "fast": RouteSettings(candidates=("Groq/llama:8b", "Local"), failover_on_context=True),
        "openai/odd": RouteSettings(candidates=("Local",)),
    },
)


def resolve(provider: str = "", model: str = "", settings: Settings = SETTINGS) -> list[str]:
    request = ChatRequest(messages=(Message(role="user", content="hi"),), provider=provider, model=model)
    found = Router(PROVIDERS, settings).resolve(request)
    return [f"{candidate.name}/{candidate.model}" for candidate in found]


@pytest.mark.parametrize(
    ("provider", "model", "candidates"),
    [
        ("", "", ["Local/smollm2"]),
        ("local", "", ["Local/smollm2"]),
        ("LOCAL", "other.gguf", ["Local/other.gguf"]),
        ("OpenAI", "", ["OpenAI/gpt-5"]),
        ("Groq", "openai/gpt-oss", ["Groq/openai/gpt-oss"]),
        ("", "groq/llama:8b", ["Groq/llama:8b"]),
        ("", "Groq:llama", ["Groq/llama"]),
        ("", "Groq/", ["Groq/llama"]),
        ("", "fast", ["Groq/llama:8b", "Local/smollm2"]),
        ("", "gpt-5-mini", ["OpenAI/gpt-5-mini"]),
        ("", "shared", ["Groq/shared"]),
        ("", "openai", ["OpenAI/gpt-5"]),
        ("", "LOCAL", ["Local/smollm2"]),
    ],
)
def test_what_is_named_is_what_answers(provider: str, model: str, candidates: list[str]) -> None:
    assert resolve(provider, model) == candidates


@pytest.mark.parametrize("model", ["gpt-9", "fasst", "llama2", "a" * 10_000, "x\r\ny", "фу"])
def test_an_unknown_model_is_not_found_and_never_replaced(model: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve(model=model)
    assert caught.value.param == "model"
    assert len(caught.value.explanation) < 400
    assert "\n" not in caught.value.explanation


def test_the_nearest_models_are_named() -> None:
    with pytest.raises(ModelNotFound, match="nearest: fast"):
        resolve(model="fasst")


def test_every_name_of_a_model_that_is_ready_is_listed_once() -> None:
    names = Router(PROVIDERS, SETTINGS).model_names()
    assert names == ["fast", "openai/odd", "smollm2", "llama", "shared"]


@pytest.mark.parametrize(
    ("model", "shown"),
    [("x" * 80, "x" * 80), ("x" * 81, "x" * 80 + "…"), ("new\nline\x1b[31m", "new?line?[31m")],
)
def test_a_name_is_repeated_as_far_as_it_can_be_printed(model: str, shown: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve(model=model)
    assert caught.value.message == f'no route leads to the model "{shown}"'
    assert (caught.value.hint or "").endswith("name a provider too, or add [routes] to the configuration")


def test_an_unknown_provider_is_not_found() -> None:
    with pytest.raises(ProviderNotFound, match="nearest: OpenAI") as caught:
        resolve("OpenA1")
    assert caught.value.param == "provider"


@pytest.mark.parametrize("others", [1, 2, 3])
def test_of_many_that_list_a_model_one_that_is_ready_answers(others: int) -> None:
    without_key = [
        Scripted(f"Other{number}", default_model="x", models=("shared",), ready=False, needs_auth=True)
        for number in range(others)
    ]
    router = Router([PROVIDERS[0], *without_key, PROVIDERS[2]], Settings(provider="Local"))
    asked = ChatRequest(messages=(Message(role="user", content="hi"),), model="shared")
    assert [candidate.name for candidate in router.resolve(asked)] == ["Groq"]
    assert [
        candidate.name for candidate in Router(without_key, Settings(provider="Other0")).resolve(asked)
    ] == ["Other0"]


def test_a_provider_without_default_model_asks_for_one() -> None:
    with pytest.raises(InvalidRequest, match="has no default model"):
        resolve("Empty")


def test_the_fallback_comes_last_and_only_once() -> None:
    settings = Settings(fallback=("Local", "groq"))
    assert resolve("OpenAI", settings=settings) == ["OpenAI/gpt-5", "Local/smollm2", "Groq/llama"]
    assert resolve("Local", settings=settings) == ["Local/smollm2", "Groq/llama"]


def test_another_model_of_the_same_provider_is_a_fallback() -> None:
    settings = Settings(fallback=("Groq/small", "Groq"))
    assert resolve("Groq", "large", settings) == ["Groq/large", "Groq/small", "Groq/llama"]
    assert resolve("Groq", settings=settings) == ["Groq/llama", "Groq/small"]


def test_an_upstream_that_keeps_conversations_is_no_fallback_for_itself() -> None:
    providers = [Scripted("Copilot", stateful=True), Scripted("Groq")]
    router = Router(providers, Settings(provider="Groq", fallback=("Copilot/other", "Groq")))
    request = ChatRequest(messages=(Message(role="user", content="hi"),), provider="Copilot")
    assert [candidate.name for candidate in router.resolve(request)] == ["Copilot", "Groq"]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (
            Settings(routes={"fast": RouteSettings(candidates=("Groq", "groq/llama"))}),
            "routes.fast.candidates",
        ),
        (Settings(routes={"fast": RouteSettings(candidates=("Groq:x", "Groq/x"))}), "routes.fast.candidates"),
        (Settings(fallback=("Local", "LOCAL/smollm2")), "fallback"),
    ],
)
def test_one_candidate_under_two_names_is_told_at_once(settings: Settings, key: str) -> None:
    with pytest.raises(BadSetting, match="is named twice") as caught:
        Router(PROVIDERS, settings)
    assert caught.value.key == key


def test_a_fallback_that_does_not_exist_is_told_at_once() -> None:
    with pytest.raises(BadSetting, match="fallback: no provider"):
        Router(PROVIDERS, Settings(fallback=("Nobody",)))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(provider="Nobody"),
        Settings(routes={"fast": RouteSettings(candidates=("Local", "Nobody/x"))}),
        Settings(fallback=("Empty",)),
    ],
)
def test_settings_that_name_what_does_not_exist_are_told_at_once(settings: Settings) -> None:
    with pytest.raises(BadSetting) as caught:
        Router(PROVIDERS, settings)
    assert caught.value.error.hint


def test_a_provider_without_address_lists_no_model() -> None:
    lost = Scripted("Lost", ready=False, models=("gpt-4",))
    with pytest.raises(ModelNotFound):
        Router([*PROVIDERS, lost], SETTINGS).resolve(ChatRequest(messages=(), model="gpt-4"))


def test_who_lists_a_model_is_asked_once_a_second() -> None:
    asked: list[str] = []

    class Counting(Scripted):
        def __getattribute__(self, name: str) -> object:
            asked.append(name)
            return super().__getattribute__(name)

    now = 0.0
    groq = Scripted("Groq", models=("llama",))
    router = Router([Counting("Other"), groq], Settings(provider="Groq"), clock=lambda: now)
    wanted = ChatRequest(messages=(Message(role="user", content="hi"),), model="llama")
    assert router.resolve(wanted)[0].provider is groq
    asked.clear()
    router.resolve(wanted)
    assert "info" not in asked
    now = 1.0
    router.resolve(wanted)
    assert "info" in asked


def test_a_route_may_fail_over_when_the_context_is_too_long() -> None:
    request = ChatRequest(messages=(), model="fast")
    by_route = Router(PROVIDERS, SETTINGS).resolve(request)[0]
    named = Router(PROVIDERS, SETTINGS).resolve(ChatRequest(messages=(), provider="Groq"))[0]
    assert by_route.may_fail_over(ContextTooLong("too long"))
    assert not named.may_fail_over(ContextTooLong("too long"))
    assert not by_route.may_fail_over(InvalidRequest("wrong"))


POLICY = RetryPolicy(retries=2, max_wait_s=10)


@pytest.mark.parametrize(
    ("error", "stateful", "again"),
    [
        (UpstreamFailed("x"), False, True),
        (UpstreamFailed("x"), True, False),
        (UpstreamUnreachable("x", sent=False), False, True),
        (UpstreamUnreachable("x", sent=False), True, True),
        (UpstreamUnreachable("x"), False, False),
        (UpstreamTimeout("x"), False, False),
        (UpstreamTimeout("x", sent=False), False, False),
        (UpstreamRateLimited("x", retry_after=5), False, True),
        (UpstreamRateLimited("x", retry_after=11), False, False),
        (InvalidRequest("x", sent=False), False, False),
    ],
)
def test_only_what_cannot_do_harm_is_tried_again(error: GatewayError, stateful: bool, again: bool) -> None:
    assert (POLICY.pause(error, 0, stateful=stateful) is not None) == again


def test_retries_end() -> None:
    error = UpstreamFailed("x")
    pauses = [POLICY.pause(error, attempt, stateful=False) for attempt in range(3)]
    assert pauses[0] is not None
    assert pauses[1] is not None
    assert 0.1 < pauses[0] <= 0.25
    assert pauses[2] is None


def test_an_upstream_that_says_when_is_believed() -> None:
    assert POLICY.pause(UpstreamRateLimited("x", retry_after=3), 1, stateful=False) == 3


def test_only_so_many_names_are_remembered_and_no_long_ones() -> None:
    router = Router([Scripted("One")], Settings(provider="One"), clock=lambda: 0.0)
    for number in range(2000):
        router.resolve(ChatRequest(messages=(), provider="One", model=f"model-{number}"))
    router.resolve(ChatRequest(messages=(), provider="One", model="x" * 1000))
    assert len(router._resolved) <= 1000
    assert ("One", "x" * 1000) not in router._resolved


def test_what_a_name_leads_to_is_looked_up_again_after_a_second() -> None:
    now, local = 0.0, Scripted("Local", default_model="old")
    router = Router([local], Settings(provider="Local"), clock=lambda: now)
    unsaid = ChatRequest(messages=())
    router.resolve(unsaid).clear()
    assert [one.model for one in router.resolve(unsaid)] == ["old"]
    local.info = replace(local.info, default_model="new")
    now = 1.5
    assert [one.model for one in router.resolve(unsaid)] == ["new"]

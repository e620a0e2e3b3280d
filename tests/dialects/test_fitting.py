"""What a caller may ask of a provider: told, left out and named, or refused by its own name."""

from typing import Any

import pytest

from modelway.dialects.fitting import CODE, Fit
from modelway.errors import InvalidRequest
from modelway.types import ChatRequest, Message, Params, ResponseFormat, Tool, ToolChoice

EVERYTHING = Params.__struct_fields__
KINDS = ("system", "tools", "json_object", "json_schema", "n")
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
LOOK = {"name": "look", "input_schema": {"type": "object"}}


def ask(dialect: str = "openai_chat", params: Params | None = None, **extra: Any) -> ChatRequest:
    messages = (Message(role="user", content="Hi"),)
    return ChatRequest(messages=messages, dialect=dialect, extra=extra, params=params or Params())


def fit(dialect: str = "gemini", params: Any = EVERYTHING, supports: Any = KINDS, lacks: Any = ()) -> Fit:
    return Fit("Gemini", dialect=dialect, params=params, supports=supports, lacks=lacks)


def test_an_upstream_of_the_same_format_that_lacks_nothing_is_told_everything() -> None:
    request = ask(params=Params(n=3, seed=1), logprobs=True, anything=[1], tools=[{"type": "custom"}])
    assert fit("openai_chat").of(request) == (request, ())
    assert fit("openai_chat").of(request)[0] is request


@pytest.mark.parametrize(
    ("params", "ignored"),
    [
        (Params(temperature=0.0, seed=0, top_p=1.0), ("temperature", "top_p", "seed")),
        (Params(stop=("END",), max_tokens=9), ("max_tokens", "stop")),
        (Params(presence_penalty=1, frequency_penalty=0), ("presence_penalty",)),
        (
            Params(reasoning_effort="none", parallel_tool_calls=False),
            ("reasoning_effort", "parallel_tool_calls"),
        ),
        (Params(n=1, tools=(), tool_choice=ToolChoice("auto"), response_format=ResponseFormat()), ()),
        (Params(tool_choice=ToolChoice("required"), parallel_tool_calls=True), ()),
    ],
)
def test_what_only_flavours_an_answer_is_left_out_and_named(params: Params, ignored: tuple[str, ...]) -> None:
    fitted, named = fit("openai_chat", params=()).of(ask(params=params))
    assert named == ignored
    assert fitted.params == Params()


@pytest.mark.parametrize(
    ("params", "field"),
    [
        (Params(n=2), "n"),
        (Params(tools=(Tool("look"),)), "tools"),
        (Params(response_format=ResponseFormat("json_object")), "response_format"),
    ],
)
def test_what_would_make_it_another_answer_is_refused(params: Params, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        fit("openai_chat", params=()).of(ask(params=params))
    assert (caught.value.param, caught.value.code, caught.value.status) == (field, CODE, 400)
    assert "Gemini" in caught.value.message
    assert "another provider" in caught.value.hint
    # A route's next candidate may know it.
    assert caught.value.failover


@pytest.mark.parametrize("lacking", ["tools", "n"])
def test_a_provider_that_does_not_support_it_is_not_asked_for_it(lacking: str) -> None:
    asked = {"tools": Params(tools=(Tool("look"),)), "n": Params(n=2)}[lacking]
    with pytest.raises(InvalidRequest, match=f"`{lacking}`"):
        fit(supports=set(KINDS) - {lacking}).of(ask(params=asked))


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_the_kind_of_schema_that_a_provider_lacks_is_refused_with_the_other_one_named(kind: Any) -> None:
    other = ({"json_object", "json_schema"} - {kind}).pop()
    with pytest.raises(InvalidRequest, match=kind) as caught:
        fit(supports=set(KINDS) - {kind}).of(ask(params=Params(response_format=ResponseFormat(kind))))
    assert other in caught.value.hint
    assert fit().of(ask(params=Params(response_format=ResponseFormat(kind))))[1] == ()


@pytest.mark.parametrize(
    ("dialect", "extra"),
    [
        ("openai_chat", {"logprobs": False}),
        ("openai_chat", {"logit_bias": {}}),
        ("openai_chat", {"modalities": ["text"]}),
        ("openai_chat", {"service_tier": "auto"}),
        ("openai_chat", {"tools": [{"type": "function", "function": {"name": "look"}}]}),
        ("openai_chat", {"anything": None}),
        ("ollama_chat", {"think": True}),
        ("ollama_chat", {"options": {"top_k": 0, "mirostat": 0, "repeat_penalty": 1.0}}),
        ("anthropic_messages", {"thinking": {"type": "adaptive"}}),
        ("anthropic_messages", {"output_config": {"effort": "high"}}),
        ("anthropic_messages", {"anthropic_beta": ["context-1m-2025-08-07"]}),
    ],
)
def test_what_asks_for_nothing_passes_in_silence(dialect: str, extra: dict[str, Any]) -> None:
    assert fit().of(ask(dialect, **extra))[1] == ()


@pytest.mark.parametrize(
    ("dialect", "extra", "ignored"),
    [
        ("openai_chat", {"user": "ada", "top_k": 40}, ("user", "top_k")),
        (
            "openai_chat",
            {"stream_options": {"include_obfuscation": True}},
            ("stream_options.include_obfuscation",),
        ),
        (
            "openai_responses",
            {"safety_identifier": "x", "verbosity": "low"},
            ("safety_identifier", "verbosity"),
        ),
        ("ollama_chat", {"keep_alive": "5m", "options": {"num_ctx": 9}}, ("keep_alive", "options.num_ctx")),
        ("ollama_generate", {"options": {"top_k": 40}}, ("options.top_k",)),
        ("anthropic_messages", {"top_k": 40}, ("top_k",)),
        (
            "anthropic_messages",
            {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
            ("context_management",),
        ),
        (
            "anthropic_messages",
            {"tools": [{**LOOK, "cache_control": {"type": "ephemeral"}}] * 2},
            ("tools[].cache_control",),
        ),
    ],
)
def test_what_another_format_has_no_word_for_is_named_once(
    dialect: str, extra: dict[str, Any], ignored: tuple[str, ...]
) -> None:
    assert fit().of(ask(dialect, **extra))[1] == ignored


@pytest.mark.parametrize(
    ("dialect", "extra", "named"),
    [
        ("openai_chat", {"logprobs": True}, "logprobs"),
        ("openai_chat", {"logit_bias": {"1": 2}}, "logit_bias"),
        ("openai_chat", {"modalities": ["text", "audio"]}, "modalities"),
        ("openai_chat", {"web_search_options": {}}, "web_search_options"),
        ("openai_chat", {"thinking": {"type": "disabled"}}, "thinking"),
        ("openai_chat", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ("anthropic_messages", {"tools": [LOOK, {**SEARCH}]}, "tools[1].type"),
        (
            "anthropic_messages",
            {"tools": [{**LOOK, "allowed_callers": ["code_execution_20250825"]}]},
            "tools[0].allowed_callers",
        ),
        ("anthropic_messages", {"output_config": {"task_budget": {"total": 9}}}, "output_config.task_budget"),
        ("anthropic_messages", {"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
    ],
)
def test_what_is_not_known_to_be_harmless_is_refused_by_its_name(
    dialect: str, extra: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        fit().of(ask(dialect, **extra))
    assert (caught.value.param, caught.value.code) == (named, CODE)
    assert f"`{named}`" in caught.value.message


def test_fields_that_an_upstream_of_the_same_format_refuses_are_named_or_refused() -> None:
    mistral = fit("openai_chat", lacks=("user", "logprobs"))
    assert mistral.of(ask(user="ada", logprobs=False, anything=1))[1] == ("user",)
    with pytest.raises(InvalidRequest, match="`logprobs`"):
        mistral.of(ask(logprobs=True))


@pytest.mark.parametrize(
    ("dialect", "name"),
    [
        ("openai_chat", "max_tokens"),
        ("openai_responses", "max_output_tokens"),
        ("ollama_chat", "options.num_predict"),
        ("anthropic_messages", "max_tokens"),
    ],
)
def test_a_field_has_the_name_that_the_caller_gave_it(dialect: str, name: str) -> None:
    assert fit(params=()).of(ask(dialect, Params(max_tokens=1)))[1] == (name,)


def test_thinking_that_is_off_by_habit_is_not_missed_and_insisting_is_noted() -> None:
    off = Params(reasoning_effort="none")
    assert fit(params=()).of(ask("anthropic_messages", off))[1] == ()
    assert fit(params=()).of(ask("openai_chat", off))[1] == ("reasoning_effort",)


def test_openai_s_two_formats_say_with_the_same_word_how_verbose_to_be() -> None:
    assert fit("openai_chat").of(ask("openai_responses", verbosity="low"))[1] == ()

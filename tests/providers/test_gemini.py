"""Gemini: what goes out, what comes in, and how thoughts and their signatures travel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from msgspec.structs import replace

from modelway.config import ProviderSettings, UpstreamSettings
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    SignInRequired,
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
)
from modelway.provider import RelayRequest
from modelway.providers.gemini import Gemini
from modelway.providers.http import HTTPClient
from modelway.types import (
    ChatRequest,
    FilePart,
    Finish,
    ImagePart,
    Message,
    OtherPart,
    Params,
    ReasoningDelta,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    UpstreamState,
    Usage,
    collect,
)
from tests.fake_gemini import KEY, NO_SIGNATURE, FakeGemini
from tests.providers.asking import STREAMED, events_of, failure, said

pytestmark = pytest.mark.anyio

LOOK = Tool("look", "looks", {"type": "object", "properties": {"at": {"type": "integer"}}})
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}
NEW, OLD = "gemini-3-flash", "gemini-2.5-flash"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeGemini]:
    async with FakeGemini() as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[HTTPClient]:
    settings = UpstreamSettings(first_byte_timeout_s=2, idle_timeout_s=2, max_event_bytes=100_000)
    async with aclosing(HTTPClient(settings)) as made:
        yield made


@pytest.fixture
def provider(upstream: FakeGemini, http: HTTPClient) -> Gemini:
    return made(upstream, http)


def made(upstream: FakeGemini, http: HTTPClient, key: str = KEY, **settings: Any) -> Gemini:
    chosen = ProviderSettings(**{"base_url": upstream.base, **settings})
    return Gemini(chosen, http=http, key_lookup=lambda variable, file: key)


def ask(*messages: Message, stream: bool = True, model: str = OLD, **fields: Any) -> ChatRequest:
    asked = messages or (Message(role="user", content="Hi"),)
    return ChatRequest(messages=asked, model=model, stream=stream, dialect="openai_chat", **fields)


# What goes out.


@STREAMED
async def test_the_request_is_one_of_generate_content(
    provider: Gemini, upstream: FakeGemini, stream: bool
) -> None:
    params = Params(
        temperature=0.5,
        top_p=0.9,
        max_tokens=9,
        stop=("a",),
        seed=3,
        n=2,
        presence_penalty=1,
        frequency_penalty=-1,
        reasoning_effort="low",
        tools=(LOOK,),
        response_format=ResponseFormat("json_schema", "shape", SCHEMA),
    )
    messages = (Message(role="system", content="Be brief"), Message(role="user", content="Hi"))
    await events_of(provider, ask(*messages, stream=stream, params=params))
    received = upstream.requests[0]
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    assert (received.method, received.path) == ("POST", f"/v1beta/models/{OLD}:{method}")
    assert received.headers["x-goog-api-key"] == KEY
    assert KEY not in received.path
    assert received.json == {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief"}]},
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "look", "description": "looks", "parametersJsonSchema": LOOK.parameters}
                ]
            }
        ],
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "maxOutputTokens": 9,
            "stopSequences": ["a"],
            "seed": 3,
            "candidateCount": 2,
            "presencePenalty": 1,
            "frequencyPenalty": -1,
            "thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True},
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
        },
    }


async def test_what_was_said_before_goes_out_with_calls_results_images_and_files(
    provider: Gemini, upstream: FakeGemini
) -> None:
    await events_of(
        provider,
        ask(
            said(
                TextPart("What is it?"),
                ImagePart("data:image/png;base64,aGk="),
                FilePart(url="data:application/pdf;base64,aGk=", name="a.pdf"),
            ),
            Message(
                role="assistant",
                content="I look.",
                tool_calls=(ToolCall("c1", "look", '{"at": 1.0}'), ToolCall("c2", "read", "{}")),
            ),
            Message(role="tool", content="a cat", tool_call_id="c1"),
            Message(role="tool", content='{"page": 1}', tool_call_id="c2"),
            Message(role="assistant", extra={"refusal": "I would rather not."}),
            Message(role="user", content="Please"),
            Message(role="user", content="Now"),
        ),
    )
    assert b'"args":{"at": 1.0}' in upstream.requests[0].body
    assert upstream.asked[0]["contents"] == [
        {
            "role": "user",
            "parts": [
                {"text": "What is it?"},
                {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                {"inlineData": {"mimeType": "application/pdf", "data": "aGk="}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "I look."},
                {"functionCall": {"id": "c1", "name": "look", "args": {"at": 1.0}}},
                {"functionCall": {"id": "c2", "name": "read", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c1", "name": "look", "response": {"output": "a cat"}}},
                {"functionResponse": {"id": "c2", "name": "read", "response": {"page": 1}}},
            ],
        },
        {"role": "model", "parts": [{"text": "I would rather not."}]},
        {"role": "user", "parts": [{"text": "Please"}, {"text": "Now"}]},
    ]


async def test_an_image_in_a_result_goes_with_it(provider: Gemini, upstream: FakeGemini) -> None:
    await events_of(
        provider,
        ask(
            Message(role="user", content="Look"),
            Message(role="assistant", tool_calls=(ToolCall("c1", "look"),)),
            Message(role="tool", content=(ImagePart("data:image/png;base64,aGk="),), tool_call_id="c1"),
        ),
    )
    (part,) = upstream.asked[0]["contents"][-1]["parts"]
    assert part["functionResponse"]["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "aGk="}}]


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        (Params(tools=(LOOK,), tool_choice=ToolChoice("none")), {"mode": "NONE"}),
        (Params(tools=(LOOK,), tool_choice=ToolChoice("required")), {"mode": "ANY"}),
        (
            Params(tools=(LOOK,), tool_choice=ToolChoice("named", "look")),
            {"mode": "ANY", "allowedFunctionNames": ["look"]},
        ),
        (Params(tools=(replace(LOOK, strict=True),)), {"mode": "VALIDATED"}),
    ],
)
async def test_the_choice_of_tools_is_said_in_geminis_words(
    provider: Gemini, upstream: FakeGemini, params: Params, fields: dict[str, Any]
) -> None:
    await events_of(provider, ask(params=params))
    assert upstream.asked[0]["toolConfig"] == {"functionCallingConfig": fields}


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        (OLD, "none", {"thinkingBudget": 0, "includeThoughts": False}),
        (OLD, "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        (OLD, "high", {"thinkingBudget": 24576, "includeThoughts": True}),
        (NEW, "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        (NEW, "xhigh", {"thinkingLevel": "XHIGH", "includeThoughts": True}),
    ],
)
async def test_how_much_to_think_is_a_budget_or_a_level(
    provider: Gemini, upstream: FakeGemini, model: str, effort: str, config: dict[str, Any]
) -> None:
    await events_of(provider, ask(model=model, params=Params(reasoning_effort=effort)))
    assert upstream.asked[0]["generationConfig"] == {"thinkingConfig": config}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"params": Params(reasoning_effort="none"), "model": NEW}, "reasoning_effort"),
        ({"params": Params(reasoning_effort="xhigh")}, "reasoning_effort"),
    ],
)
async def test_what_it_cannot_be_told_is_refused_by_name(
    provider: Gemini, upstream: FakeGemini, fields: dict[str, Any], param: str
) -> None:
    error = await failure(provider, ask(**fields))
    assert isinstance(error, InvalidRequest)
    assert error.param == param
    assert not upstream.requests


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([said(ImagePart("https://example.org/cat.png"))], "data: URL"),
        ([said(FilePart(file_id="file-1"))], "data: URL"),
        ([said(OtherPart("openai_chat", {"type": "input_audio"}))], "input_audio"),
        ([Message(role="system", content=(ImagePart("data:,x"),)), said(TextPart("x"))], "system"),
        ([Message(role="tool", content="x", tool_call_id="lost")], "lost"),
        ([Message(role="user", content="x", name="Ada")], "name"),
        ([Message(role="assistant", tool_calls=(ToolCall("1", "look", "[1]"),))], "JSON object"),
        ([Message(role="system", content="Be brief")], "by the user"),
    ],
)
async def test_a_message_that_it_cannot_be_told_is_refused_and_never_thinned_out(
    provider: Gemini, upstream: FakeGemini, messages: Sequence[Message], words: str
) -> None:
    error = await failure(provider, ask(*messages))
    assert isinstance(error, InvalidRequest)
    assert words in str(error)
    assert not upstream.requests


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("tunedModels/mine", "tunedModels/mine"),
        ("../../evil?x=", "models/..%2F..%2Fevil%3Fx%3D"),
    ],
)
async def test_a_model_is_one_piece_of_the_address(
    provider: Gemini, upstream: FakeGemini, model: str, path: str
) -> None:
    upstream.served += ["mine", "..%2F..%2Fevil%3Fx%3D"]
    await events_of(provider, ask(model=model))
    assert upstream.requests[0].path == f"/v1beta/{path}:streamGenerateContent?alt=sse"


async def test_the_address_of_the_compatible_endpoint_is_understood(
    upstream: FakeGemini, http: HTTPClient
) -> None:
    await events_of(made(upstream, http, base_url=upstream.base + "/openai"), ask())
    assert upstream.requests[0].path.startswith("/v1beta/models/")


# What comes in.


@STREAMED
async def test_thoughts_text_calls_and_tokens_arrive(
    provider: Gemini, upstream: FakeGemini, stream: bool
) -> None:
    usage = Usage(input_tokens=9, output_tokens=7, cached_tokens=4, reasoning_tokens=5)
    calls = [ToolCall("g1", "look", '{"at":1}'), ToolCall("g2", "look", "{}")]
    upstream.reply("It is", " a cat", reasoning="hm", calls=calls, usage=usage)
    events = await events_of(provider, ask(stream=stream))
    completion = collect(events)
    assert completion.text == "It is a cat"
    assert completion.message.reasoning == "hm"
    assert completion.message.tool_calls == tuple(calls)
    assert completion.finish_reason == "tool_calls"
    assert completion.usage == usage
    assert completion.model == "model-a"
    assert [type(event) for event in events[-2:]] == [UpstreamState, Finish]


async def test_a_call_without_an_id_gets_one(provider: Gemini, upstream: FakeGemini) -> None:
    upstream.gives_ids = False
    upstream.reply(calls=[ToolCall("", "look"), ToolCall("", "look")])
    first, second = collect(await events_of(provider, ask())).message.tool_calls
    assert first.id.startswith("call_")
    assert first.id != second.id


async def test_a_stream_cut_at_every_byte_reads_the_same(provider: Gemini, upstream: FakeGemini) -> None:
    upstream.reply("grüß ", "€ dich", one_byte_at_a_time=True)
    assert collect(await events_of(provider, ask())).text == "grüß € dich"


async def test_several_candidates_are_told_apart(provider: Gemini, upstream: FakeGemini) -> None:
    candidates = [
        {"content": {"parts": [{"text": text}]}, "index": index, "finishReason": reason}
        for index, (text, reason) in enumerate([("one", "STOP"), ("two", "MAX_TOKENS")])
    ]
    upstream.say({"candidates": candidates})
    completion = collect(await events_of(provider, ask(params=Params(n=2))))
    assert [choice.message.text for choice in completion.choices] == ["one", "two"]
    assert [choice.finish_reason for choice in completion.choices] == ["stop", "length"]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        *(
            (word, "content_filter")
            for word in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")
        ),
    ],
)
async def test_each_end_has_its_reason(
    provider: Gemini, upstream: FakeGemini, word: str, reason: str
) -> None:
    upstream.say({"candidates": [{"content": {"parts": [{"text": "So"}]}, "finishReason": word}]})
    assert collect(await events_of(provider, ask())).finish_reason == reason


@STREAMED
async def test_a_prompt_that_is_blocked_is_filtered_content(
    provider: Gemini, upstream: FakeGemini, stream: bool
) -> None:
    upstream.say({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {}})
    completion = collect(await events_of(provider, ask(stream=stream)))
    assert (completion.text, completion.finish_reason) == ("", "content_filter")


@pytest.mark.parametrize(
    "chunk",
    [
        {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "Malformed: look("}]},
        {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": ""}}]}}]},
        {"candidates": [{"index": 1_000_000}]},
        b"data: {not json\n\n",
    ],
)
async def test_an_answer_that_cannot_be_right_is_a_protocol_error(
    provider: Gemini, upstream: FakeGemini, chunk: object
) -> None:
    upstream.say(chunk)
    assert isinstance(await failure(provider, ask()), UpstreamProtocolError)


@STREAMED
async def test_an_answer_without_a_finish_reason_is_an_error(
    provider: Gemini, upstream: FakeGemini, stream: bool
) -> None:
    upstream.say({"candidates": [{"content": {"parts": [{"text": "half"}]}}]})
    assert isinstance(await failure(provider, ask(stream=stream)), UpstreamProtocolError)


@pytest.mark.parametrize(
    "end",
    [
        {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}},
        b'{\n  "error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}\n}',
    ],
    ids=["as an event", "as plain JSON"],
)
async def test_an_error_in_the_middle_comes_after_what_was_said(
    provider: Gemini, upstream: FakeGemini, end: object
) -> None:
    upstream.say({"candidates": [{"content": {"parts": [{"text": "so far"}]}}]}, end)
    async with aclosing(provider.stream(ask())) as events:
        assert collect([await anext(events)]).text == "so far"
        with pytest.raises(UpstreamOverloaded, match="overloaded"):
            await anext(events)


@pytest.mark.parametrize(
    ("code", "status", "message", "kind"),
    [
        (400, "INVALID_ARGUMENT", "Unknown name", InvalidRequest),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (3475108) exceeds the maximum number of tokens allowed (1048576).",
            ContextTooLong,
        ),
        (400, "FAILED_PRECONDITION", "User location is not supported", UpstreamError),
        (403, "PERMISSION_DENIED", "no permission", UpstreamRefusedCredential),
        (500, "INTERNAL", "internal", UpstreamFailed),
        (503, "UNAVAILABLE", "overloaded", UpstreamOverloaded),
        (504, "DEADLINE_EXCEEDED", "too slow", UpstreamTimeout),
        (502, "", "bad gateway", UpstreamFailed),
    ],
)
async def test_a_status_of_googles_has_its_error(
    provider: Gemini, upstream: FakeGemini, code: int, status: str, message: str, kind: type[GatewayError]
) -> None:
    upstream.refuse_with(code, status, message)
    error = await failure(provider, ask())
    assert type(error) is kind
    assert message in error.message


async def test_a_used_up_quota_says_when_to_come_again(provider: Gemini, upstream: FakeGemini) -> None:
    wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.5s"}
    upstream.refuse_with(
        429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", {"violations": []}, wait
    )
    error = await failure(provider, ask())
    assert isinstance(error, UpstreamRateLimited)
    assert error.retry_after == 36.5


async def test_a_wrong_key_is_told_without_the_key(upstream: FakeGemini, http: HTTPClient) -> None:
    error = await failure(made(upstream, http, key="AIza-wrong"), ask())
    assert isinstance(error, UpstreamRefusedCredential)
    assert "GEMINI_API_KEY" in error.hint
    assert "AIza-wrong" not in str(error)


async def test_a_key_that_the_upstream_repeats_is_not_shown(provider: Gemini, upstream: FakeGemini) -> None:
    upstream.refuse_with(400, "INVALID_ARGUMENT", f"bad {KEY}")
    assert KEY not in str(await failure(provider, ask()))


async def test_a_model_that_is_not_there_lets_the_next_candidate_answer(provider: Gemini) -> None:
    error = await failure(provider, ask(model="gemini-9"))
    assert isinstance(error, ModelNotFound)
    assert error.failover


# Keys and models.


async def test_without_a_key_nothing_is_sent(upstream: FakeGemini, http: HTTPClient) -> None:
    provider = made(upstream, http, key="")
    assert not provider.info.ready
    assert "GEMINI_API_KEY or GOOGLE_API_KEY" in provider.info.missing
    assert isinstance(await failure(provider, ask()), SignInRequired)
    assert not upstream.requests


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
async def test_the_key_comes_from_either_variable(
    upstream: FakeGemini, http: HTTPClient, variable: str
) -> None:
    settings = ProviderSettings(base_url=upstream.base)
    provider = Gemini(settings, http=http, key_lookup=lambda name, file: KEY if name == variable else "")
    assert provider.info.ready
    assert provider.info.credential_source == "environment"
    await events_of(provider, ask())


async def test_models_are_those_that_answer_chats(provider: Gemini, upstream: FakeGemini) -> None:
    found = await provider.models()
    assert [model.id for model in found] == upstream.served
    assert found[0].context_length == 1_048_576
    assert [request.path for request in upstream.requests] == [
        "/v1beta/models?pageSize=1000",
        "/v1beta/models?pageSize=1000&pageToken=next",
    ]


# Thought signatures.


async def turn(
    provider: Gemini, messages: list[Message], state: dict[str, Any] | None, model: str = NEW
) -> dict[str, Any] | None:
    """One turn; the answer joins the messages. Gives the upstream state after it."""
    events = await events_of(provider, ask(*messages, model=model, upstream_state=state))
    messages.append(collect(events).message)
    return next((event.value for event in events if isinstance(event, UpstreamState)), None)


async def test_signatures_go_back_with_their_calls_through_all_steps_of_a_turn(
    provider: Gemini, upstream: FakeGemini
) -> None:
    upstream.reply(calls=[ToolCall("a", "look"), ToolCall("b", "look")])
    upstream.reply(calls=[ToolCall("c", "look")])
    upstream.reply("A cat")
    messages = [Message(role="user", content="Look")]
    state = await turn(provider, messages, None)
    messages += [Message(role="tool", content="1", tool_call_id=id) for id in ("a", "b")]
    state = await turn(provider, messages, state)
    messages.append(Message(role="tool", content="2", tool_call_id="c"))
    await turn(provider, messages, state)
    assert messages[-1].text == "A cat"
    sent = [
        (part["functionCall"]["id"], part.get("thoughtSignature"))
        for content in upstream.asked[-1]["contents"]
        for part in content["parts"]
        if "functionCall" in part
    ]
    assert [(id, signature is not None) for id, signature in sent] == [("a", True), ("b", False), ("c", True)]
    assert {signature for _, signature in sent if signature} == upstream.issued


async def test_calls_of_other_models_are_marked_as_unsigned_in_the_current_turn_only(
    provider: Gemini, upstream: FakeGemini
) -> None:
    def called(id: str) -> list[Message]:
        call = Message(role="assistant", tool_calls=(ToolCall(id, "look"),))
        return [call, Message(role="tool", content="x", tool_call_id=id)]

    messages = [
        Message(role="user", content="Look"),
        *called("old"),
        Message(role="user", content="Again"),
        *called("new"),
    ]
    state = {"model": "another", "signatures": {"new": "foreign"}}
    await events_of(provider, ask(*messages, model=NEW, upstream_state=state))
    calls = [
        part
        for content in upstream.asked[-1]["contents"]
        for part in content["parts"]
        if "functionCall" in part
    ]
    assert [part.get("thoughtSignature") for part in calls] == [None, NO_SIGNATURE]


async def test_an_answer_without_calls_leaves_no_state(provider: Gemini, upstream: FakeGemini) -> None:
    assert await turn(provider, [Message(role="user", content="Hi")], None) is None


async def test_thoughts_are_asked_for_only_with_an_effort(provider: Gemini, upstream: FakeGemini) -> None:
    upstream.reply("Hi", reasoning="hm")
    events = await events_of(provider, ask())
    assert any(isinstance(event, ReasoningDelta) for event in events)
    assert "generationConfig" not in upstream.asked[0]


# Other addresses.


async def test_other_addresses_are_passed_on_as_openai_has_them(
    provider: Gemini, upstream: FakeGemini
) -> None:
    upstream.reply_with(b'{"data": []}', kind="application/json")
    request = RelayRequest(
        method="POST", path="embeddings", headers={"content-type": "application/json"}, body=b'{"input": "a"}'
    )
    async with aclosing(await provider.relay(request)) as reply:
        assert (reply.status, await reply.read()) == (200, b'{"data": []}')
    received = upstream.requests[0]
    assert (received.method, received.path) == ("POST", "/v1beta/openai/embeddings")
    assert received.json == {"input": "a"}


async def test_another_address_that_is_not_there_is_told(provider: Gemini, upstream: FakeGemini) -> None:
    upstream.fail(404, "no such page", "NOT_FOUND")
    with pytest.raises(ModelNotFound, match="no such page"):
        await provider.relay(RelayRequest(method="GET", path="batches", query="limit=1"))
    assert upstream.requests[0].path.endswith("/batches?limit=1")

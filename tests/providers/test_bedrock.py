"""Amazon Bedrock as a provider: signatures, requests, frames, and what its errors become."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from modelway.config import ProviderSettings, UpstreamSettings
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    SignInRequired,
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
)
from modelway.providers._dial import AddressInfo
from modelway.providers.bedrock import Bedrock
from modelway.providers.bedrock.answering import EventDecoder, decode_completion
from modelway.providers.bedrock.asking import encode_request
from modelway.providers.bedrock.aws import Account, Frames
from modelway.providers.bedrock.listing import decode_models, decode_profiles
from modelway.providers.http import HTTPClient
from modelway.types import (
    ChatRequest,
    Citation,
    Event,
    FilePart,
    Finish,
    ImagePart,
    Message,
    OtherPart,
    Params,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    UpstreamState,
    Usage,
    collect,
)
from tests.fake_bedrock import (
    ACCESS_KEY,
    KEY,
    REGION,
    SECRET_KEY,
    TOKEN,
    FakeBedrock,
    answer,
    delta,
    ending,
    event,
    exception,
    frame,
)
from tests.providers.asking import events_of, failure

pytestmark = pytest.mark.anyio

LOOK = Tool("look", "looks", {"type": "object"})
PDF = "data:application/pdf;base64,AAAA"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeBedrock]:
    async with FakeBedrock() as fake:
        yield fake


@pytest.fixture
def bedrock(upstream: FakeBedrock, http: HTTPClient, tmp_path: Path) -> Bedrock:
    return made(upstream, http, tmp_path)


def account(secret: str = SECRET_KEY, region: str = REGION) -> Account:
    return Account(lambda: Credentials(ACCESS_KEY, secret, TOKEN) if secret else None, region)


def made(upstream: FakeBedrock, http: HTTPClient, home: Path, *, key: str = "", **more: Any) -> Bedrock:
    variables = {"AWS_BEARER_TOKEN_BEDROCK": key, **more.pop("variables", {})}
    whose = more.pop("whose", account())
    return Bedrock(
        ProviderSettings(**{"base_url": upstream.root, **more}),
        http=http,
        key_lookup=lambda variable, _: variables.get(variable, ""),
        home=home,
        find_account=lambda: whose,
    )


def ask(*messages: Message, stream: bool = True, **fields: Any) -> ChatRequest:
    return ChatRequest(
        messages=messages or (user("Hi"),), stream=stream, **{"model": "amazon.nova-1:0", **fields}
    )


def user(content: Any) -> Message:
    return Message(role="user", content=content)


def sent(request: ChatRequest) -> Any:
    return json.loads(encode_request(request))


THINKING = (
    event("messageStart", role="assistant"),
    delta(0, reasoningContent={"text": "I must "}),
    delta(0, reasoningContent={"text": "look"}),
    delta(0, reasoningContent={"signature": "sig"}),
    event("contentBlockStop", contentBlockIndex=0),
    delta(1, reasoningContent={"redactedContent": "b3BhcXVl"}),
    event("contentBlockStop", contentBlockIndex=1),
    delta(2, text="I "),
    delta(2, text="look"),
    event("contentBlockStop", contentBlockIndex=2),
    event("contentBlockStart", contentBlockIndex=3, start={"toolUse": {"toolUseId": "t1", "name": "look"}}),
    delta(3, toolUse={"input": '{"at"'}),
    delta(3, toolUse={"input": ":1}"}),
    event("contentBlockStop", contentBlockIndex=3),
    event("contentBlockStart", contentBlockIndex=4, start={"toolUse": {"toolUseId": "t2", "name": "wait"}}),
    event("contentBlockStop", contentBlockIndex=4),
    *ending("tool_use"),
)
BLOCKS: list[dict[str, Any]] = [
    {"reasoningContent": {"reasoningText": {"text": "I must look", "signature": "sig"}}},
    {"reasoningContent": {"redactedContent": "b3BhcXVl"}},
    {"text": "I look"},
    {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": 1}}},
    {"toolUse": {"toolUseId": "t2", "name": "wait", "input": {}}},
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("key", ["", KEY], ids=["signed", "with a key"])
async def test_a_call_is_signed_or_has_the_key(
    upstream: FakeBedrock, http: HTTPClient, tmp_path: Path, stream: bool, key: str
) -> None:
    upstream.reply("Hello")
    provider = made(upstream, http, tmp_path, key=key)
    model = "arn:aws:bedrock:eu-central-1:1:inference-profile/eu.x:0"
    assert collect(await events_of(provider, ask(model=model, stream=stream))).text == "Hello"
    assert upstream.asked_models == [model]
    assert upstream.requests[0].path.endswith("/converse-stream" if stream else "/converse")


async def test_a_wrong_secret_is_refused(upstream: FakeBedrock, http: HTTPClient, tmp_path: Path) -> None:
    found = await failure(made(upstream, http, tmp_path, whose=account("another")), ask())
    assert isinstance(found, UpstreamRefusedCredential)
    assert "AWS credentials" in found.hint


@pytest.mark.parametrize("cut_at", [0, 1, 7, 100])
async def test_every_kind_of_frame_becomes_events(
    upstream: FakeBedrock, bedrock: Bedrock, cut_at: int
) -> None:
    upstream.show(*THINKING, cut_at=cut_at)
    completion = collect(await events_of(bedrock, ask()))
    assert (completion.text, completion.message.reasoning) == ("I look", "I must look")
    assert completion.message.tool_calls == (
        ToolCall("t1", "look", '{"at":1}'),
        ToolCall("t2", "wait", "{}"),
    )
    assert completion.finish_reason == "tool_calls"
    assert completion.usage == Usage(input_tokens=28, output_tokens=3, cached_tokens=20, cache_write_tokens=3)


async def test_a_whole_answer_says_the_same(upstream: FakeBedrock, bedrock: Bedrock) -> None:
    upstream.show(*THINKING)
    streamed = await events_of(bedrock, ask())
    upstream.answer_whole(answer(*BLOCKS, reason="tool_use"))
    whole = await events_of(bedrock, ask(stream=False))
    assert collect(whole) == collect(streamed)
    assert whole[-2] == streamed[-2]
    assert isinstance(whole[-2], UpstreamState)


async def test_thinking_survives_a_tool_loop(upstream: FakeBedrock, bedrock: Bedrock) -> None:
    upstream.show(*THINKING)
    first = await events_of(bedrock, ask())
    (state,) = (found.value for found in first if isinstance(found, UpstreamState))
    results = [Message(role="tool", content="ok", tool_call_id=id) for id in ("t1", "t2")]
    upstream.reply("done")
    request = ask(
        user("Hi"),
        collect(first).message,
        *results,
        params=Params(tools=(LOOK,)),
        upstream_state=state,
    )
    second = await events_of(bedrock, request)
    _, assistant, user_turn = upstream.asked[1]["messages"]
    assert assistant == {"role": "assistant", "content": BLOCKS}
    assert [block["toolResult"]["toolUseId"] for block in user_turn["content"]] == ["t1", "t2"]
    assert not any(isinstance(found, UpstreamState) for found in second)


async def test_sources_in_the_web_become_citations(upstream: FakeBedrock, bedrock: Bedrock) -> None:
    cited = {"title": "X", "location": {"web": {"url": "https://x/"}}}
    passage = {"title": "Y", "location": {"documentPage": {"documentIndex": 0}}}
    upstream.show(
        delta(0, text="so"), delta(0, citation=cited), delta(0, citation=passage), *ending("end_turn")
    )
    assert collect(await events_of(bedrock, ask())).message.annotations == (
        Citation(url="https://x/", title="X"),
    )
    block = {"citationsContent": {"content": [{"text": "so"}], "citations": [cited]}}
    upstream.answer_whole(answer(block))
    completion = collect(await events_of(bedrock, ask(stream=False)))
    assert (completion.text, completion.message.annotations[0].url) == ("so", "https://x/")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
    ],
)
async def test_every_stop_reason_has_a_meaning(
    upstream: FakeBedrock, bedrock: Bedrock, word: str, reason: str
) -> None:
    upstream.show(delta(0, text="a"), *ending(word))
    assert collect(await events_of(bedrock, ask())).finish_reason == reason


async def test_an_answer_that_the_model_spoilt_is_an_error(upstream: FakeBedrock, bedrock: Bedrock) -> None:
    upstream.show(*ending("malformed_tool_use"))
    assert isinstance(await failure(bedrock, ask()), UpstreamProtocolError)


@pytest.mark.parametrize(
    ("kind", "message", "error"),
    [
        ("internalServerException", "oh", UpstreamFailed),
        ("modelStreamErrorException", "oh", UpstreamFailed),
        ("throttlingException", "slow down", UpstreamRateLimited),
        ("serviceUnavailableException", "later", UpstreamOverloaded),
        ("validationException", "bad field", InvalidRequest),
        ("validationException", "Input is too long for requested model.", ContextTooLong),
        ("newException", "", UpstreamFailed),
    ],
)
async def test_an_exception_in_the_stream_comes_after_the_text_before_it(
    upstream: FakeBedrock, bedrock: Bedrock, kind: str, message: str, error: type[GatewayError]
) -> None:
    upstream.show(delta(0, text="so far"), exception(kind, message))
    found: list[Event] = []

    async def listen() -> None:
        async with aclosing(bedrock.stream(ask())) as events:
            async for one in events:
                found.append(one)  # noqa: PERF401

    with pytest.raises(error) as caught:
        await listen()
    assert type(caught.value) is error
    assert collect(found).text == "so far"


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ((frame({":message-type": "error", ":error-message": "oh"}, b""),), "upstream_error"),
        ((delta(0, text="a"),), "upstream_truncated"),
        ((delta(0, text="a")[:-1] + b"\0",), "upstream_malformed"),
        ((frame({":event-type": "metadata"}, b"{"),), "upstream_malformed"),
        ((b"data: {}\n\n" * 9,), "upstream_malformed"),
        (
            (event("contentBlockStart", contentBlockIndex=0, start={"toolUse": {"name": "f"}}),),
            "upstream_malformed",
        ),
    ],
)
async def test_a_stream_that_is_no_answer_is_an_error(
    upstream: FakeBedrock, bedrock: Bedrock, frames: tuple[bytes, ...], code: str
) -> None:
    upstream.show(*frames)
    found = await failure(bedrock, ask())
    assert isinstance(found, UpstreamError)
    assert found.code == code


async def test_an_endless_frame_is_too_large(upstream: FakeBedrock, tmp_path: Path) -> None:
    async with aclosing(HTTPClient(UpstreamSettings(max_event_bytes=1000))) as http:
        upstream.show(delta(0, text="a" * 5000)[:-1])
        assert (await failure(made(upstream, http, tmp_path), ask())).code == "upstream_too_large"


async def test_a_stream_without_counts_ends_with_its_reason(upstream: FakeBedrock, bedrock: Bedrock) -> None:
    upstream.show(delta(0, text="a"), ending("end_turn")[0])
    completion = collect(await events_of(bedrock, ask()))
    assert (completion.finish_reason, completion.usage) == ("stop", None)


@pytest.mark.parametrize(
    ("status", "kind", "message", "error"),
    [
        (400, "ValidationException", "bad field", InvalidRequest),
        (400, "ValidationException", "Too many input tokens: 9 > 8", ContextTooLong),
        (403, "AccessDeniedException", "no access to the model", UpstreamRefusedCredential),
        (404, "ResourceNotFoundException", "no such model", ModelNotFound),
        (408, "ModelTimeoutException", "too slow", UpstreamTimeout),
        (424, "ModelErrorException", "the model broke", UpstreamFailed),
        (429, "ThrottlingException", "slow down", UpstreamRateLimited),
        (500, "InternalServerException", "oh", UpstreamFailed),
        (503, "ServiceUnavailableException", "later", UpstreamOverloaded),
    ],
)
async def test_a_refusal_becomes_an_error_of_ours(
    upstream: FakeBedrock, bedrock: Bedrock, status: int, kind: str, message: str, error: type[GatewayError]
) -> None:
    upstream.refuse_with(status, kind, message)
    found = await failure(bedrock, ask())
    assert type(found) is error
    assert message in found.message


async def test_a_model_that_needs_a_profile_is_told_so(upstream: FakeBedrock, bedrock: Bedrock) -> None:
    upstream.refuse_with(400, "ValidationException", "with on-demand throughput isn't supported")
    assert "inference profile" in (await failure(bedrock, ask())).hint


async def test_the_key_is_in_no_error(upstream: FakeBedrock, http: HTTPClient, tmp_path: Path) -> None:
    provider = made(upstream, http, tmp_path, key=KEY)
    upstream.refuse_with(500, "InternalServerException", f"{KEY} broke")
    assert KEY not in (await failure(provider, ask())).explanation
    upstream.show(exception("internalServerException", f"{KEY} broke"))
    assert KEY not in (await failure(provider, ask())).explanation


@pytest.mark.parametrize("key", ["", KEY])
async def test_models_and_profiles_are_listed(
    upstream: FakeBedrock, http: HTTPClient, tmp_path: Path, key: str
) -> None:
    models = await made(upstream, http, tmp_path, key=key).models()
    assert [model.id for model in models] == [
        "amazon.nova-1:0",
        "eu.anthropic.claude",
        "global.anthropic.claude",
    ]
    assert models[0].owned_by == "amazon"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"modelSummaries":[{}]}'])
def test_a_list_that_is_none_is_a_protocol_error(body: bytes) -> None:
    for read in (decode_models, decode_profiles):
        with pytest.raises(UpstreamProtocolError):
            read(body)


async def test_without_the_extra_it_is_there_and_says_what_it_lacks(http: HTTPClient, tmp_path: Path) -> None:
    provider = Bedrock(
        ProviderSettings(), http=http, key_lookup=lambda variable, _: "x", home=tmp_path, is_installed=False
    )
    assert not provider.info.ready
    assert 'pip install "modelway[bedrock]"' in provider.info.missing
    for call in (events_of(provider, ask()), provider.models()):
        with pytest.raises(ProviderNotConfigured, match=r"modelway\[bedrock\]"):
            await call


async def test_it_is_ready_where_something_hints_at_credentials(
    upstream: FakeBedrock, http: HTTPClient, tmp_path: Path
) -> None:
    info = made(upstream, http, tmp_path).info
    assert not info.ready
    assert "AWS_BEARER_TOKEN_BEDROCK" in info.missing
    variables = {"AWS_PROFILE": "work", "AWS_DEFAULT_REGION": REGION}
    for more in ({"key": KEY}, {"variables": variables}):
        assert made(upstream, http, tmp_path, **more).info.credential_source == "environment"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[default]\nregion = eu-central-1\n")
    info = made(upstream, http, tmp_path).info
    assert (info.ready, info.credential_source) == (True, "file")


async def test_the_region_of_the_variable_goes_before_the_one_of_the_files(tmp_path: Path) -> None:
    hosts: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[AddressInfo]:
        hosts.append(host)
        raise OSError("nobody is asked")

    async with aclosing(HTTPClient(UpstreamSettings(), resolve=resolve)) as http:
        provider = Bedrock(
            ProviderSettings(),
            http=http,
            key_lookup=lambda variable, _: "xx-nowhere-1" if variable == "AWS_REGION" else "",
            home=tmp_path,
            find_account=account,
        )
        await failure(provider, ask())
    assert hosts == ["bedrock-runtime.xx-nowhere-1.amazonaws.com"]


async def test_without_a_region_it_is_not_ready(
    upstream: FakeBedrock, http: HTTPClient, tmp_path: Path
) -> None:
    signed = made(upstream, http, tmp_path, variables={"AWS_PROFILE": "work"})
    assert "has no region" in signed.info.missing
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[default]\nregion =\n")
    assert "has no region" in made(upstream, http, tmp_path).info.missing
    upstream.reply("Hello")
    await events_of(signed, ask())
    assert signed.info.ready


async def test_the_machine_s_own_role_shows_after_the_first_call(
    upstream: FakeBedrock, bedrock: Bedrock
) -> None:
    upstream.reply("Hello")
    await events_of(bedrock, ask())
    assert bedrock.info.credential_source == "machine"


async def test_without_credentials_the_remedy_is_told(
    upstream: FakeBedrock, http: HTTPClient, tmp_path: Path
) -> None:
    found = await failure(made(upstream, http, tmp_path, whose=account("")), ask())
    assert isinstance(found, SignInRequired)
    assert upstream.requests == []


async def test_without_a_region_the_remedy_is_told(http: HTTPClient, tmp_path: Path) -> None:
    provider = Bedrock(
        ProviderSettings(),
        http=http,
        key_lookup=lambda variable, _: "",
        home=tmp_path,
        find_account=lambda: account(region=""),
    )
    found = await failure(provider, ask())
    assert isinstance(found, ProviderNotConfigured)
    assert "AWS_REGION" in found.hint


def test_the_chain_of_aws_finds_variables_and_a_region(tmp_path: Path) -> None:
    import subprocess

    code = (
        "from modelway.providers.bedrock.aws import Account; account = Account.of_this_machine();"
        "print(account.region, account.sign('GET', 'https://x/', {}, b'', 'r')['authorization'])"
    )
    environment = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "HOME": str(tmp_path),
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.decode().startswith(f"{REGION} AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/")


# What goes to the upstream.


def test_a_request_is_written_as_the_model_of_the_service_has_it() -> None:
    request = ask(
        Message(role="system", content="be brief"),
        user((TextPart("read"), ImagePart("data:image/png;base64,AAAA"), FilePart(PDF, name="a b_c.pdf"))),
        user((TextPart("again"), FilePart(PDF, name="a b_c.pdf"), FilePart("data:text/plain,hi"))),
        Message(role="assistant", content="I look", tool_calls=(ToolCall("f:1", "look", '{"a":1}'),)),
        Message(role="tool", content="", tool_call_id="f:1"),
        params=Params(
            temperature=0.5,
            top_p=0.9,
            max_tokens=10,
            stop=("x",),
            tools=(LOOK,),
            tool_choice=ToolChoice("named", "look"),
            response_format=ResponseFormat("json_schema", "shape", {"type": "object"}),
        ),
    )
    fields = sent(request)
    assert fields["system"] == [{"text": "be brief"}]
    first, assistant, result = fields["messages"]
    assert [next(iter(block)) for block in first["content"]] == [
        "text",
        "image",
        "document",
        "text",
        "document",
        "document",
    ]
    assert first["content"][1] == {"image": {"format": "png", "source": {"bytes": "AAAA"}}}
    documents = [block["document"] for block in first["content"] if "document" in block]
    assert [(one["format"], one["name"]) for one in documents] == [
        ("pdf", "a b-c"),
        ("pdf", "a b-c (2)"),
        ("txt", "document"),
    ]
    use = assistant["content"][1]["toolUse"]
    assert use["input"] == {"a": 1}
    assert result["content"] == [{"toolResult": {"toolUseId": use["toolUseId"], "content": []}}]
    assert fields["inferenceConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "maxTokens": 10,
        "stopSequences": ["x"],
    }
    assert fields["toolConfig"] == {
        "tools": [
            {
                "toolSpec": {
                    "name": "look",
                    "description": "looks",
                    "inputSchema": {"json": {"type": "object"}},
                }
            }
        ],
        "toolChoice": {"tool": {"name": "look"}},
    }
    structure = {"jsonSchema": {"schema": '{"type":"object"}', "name": "shape"}}
    assert fields["outputConfig"] == {"textFormat": {"type": "json_schema", "structure": structure}}


@pytest.mark.parametrize(
    ("model", "effort", "wanted"),
    [
        ("amazon.nova-2", "minimal", {"outputConfig": {"effort": "low"}}),
        (
            "eu.anthropic.claude-opus-4-6-v1",
            "high",
            {
                "additionalModelRequestFields": {"thinking": {"type": "adaptive", "display": "summarized"}},
                "outputConfig": {"effort": "high"},
            },
        ),
        (
            "anthropic.claude-sonnet-4-5-v1:0",
            "low",
            {
                "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 2048}},
                "inferenceConfig": {"maxTokens": 32_000},
            },
        ),
        (
            "anthropic.claude-opus-5",
            "none",
            {"additionalModelRequestFields": {"thinking": {"type": "disabled"}}},
        ),
    ],
)
def test_a_model_thinks_as_its_kind_is_told_to(model: str, effort: str, wanted: dict[str, Any]) -> None:
    fields = sent(ask(model=model, params=Params(reasoning_effort=effort)))
    del fields["messages"]
    assert fields == wanted


def test_a_default_is_not_sent_and_a_forced_call_is_any() -> None:
    params = Params(temperature=1, top_p=1, tools=(LOOK,), tool_choice=ToolChoice("required"))
    fields = sent(ask(params=params))
    assert "inferenceConfig" not in fields
    assert fields["toolConfig"]["toolChoice"] == {"any": {}}
    assert "toolConfig" not in sent(ask(params=Params(tools=(LOOK,), tool_choice=ToolChoice("none"))))


CALLED = (user("look"), Message(role="assistant", tool_calls=(ToolCall("1", "look"),)))


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"params": Params(temperature=1.5)}, "temperature"),
        ({"params": Params(reasoning_effort="none")}, "reasoning_effort"),
        ({"params": Params(tool_choice=ToolChoice("required"))}, "tool_choice"),
        ({"messages": CALLED}, "tools"),
        (
            {"messages": CALLED, "params": Params(tools=(LOOK,), tool_choice=ToolChoice("none"))},
            "tool_choice",
        ),
        ({"messages": (user((ImagePart("https://x/y.png"),)),)}, "messages"),
        ({"messages": (user((FilePart("https://x/y.pdf"),)),)}, "messages"),
        ({"messages": (user((FilePart(file_id="1"),)),)}, "messages"),
        ({"messages": (user((OtherPart("openai_chat", {"type": "input_audio"}),)),)}, "messages"),
        ({"messages": (Message(role="system", content=(ImagePart(PDF),)),)}, "messages"),
        ({"messages": (Message(role="assistant", content=(ImagePart(PDF),)),)}, "messages"),
    ],
)
def test_what_cannot_be_told_is_refused_by_its_name(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode_request(ChatRequest(**{"messages": (user("hi"),), "model": "m", **changes}))
    assert caught.value.param == param


# What AWS itself says of the shapes, against requests of ours and answers of the fake.


@pytest.fixture(scope="module")
def service() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")


THOUGHTFUL = Params(reasoning_effort="high", tools=(LOOK,), tool_choice=ToolChoice("required"))
SCHEMA = ResponseFormat("json_schema", "shape", {"type": "object"})


@pytest.mark.parametrize(
    "request_",
    [
        ask(),
        ask(Message(role="system", content="be brief"), user("hi"), params=Params(max_tokens=5, stop=("x",))),
        ask(user((TextPart("see"), ImagePart("data:image/png;base64,AAAA"), FilePart(PDF, name="a/b.pdf")))),
        ask(params=Params(temperature=0.5, top_p=0.5, response_format=SCHEMA)),
        ask(model="eu.anthropic.claude-opus-5", params=THOUGHTFUL),
        ask(model="anthropic.claude-sonnet-4-5", params=THOUGHTFUL),
        ask(model="amazon.nova-2", params=THOUGHTFUL),
        ask(
            user("look"),
            Message(role="assistant", tool_calls=(ToolCall("t1", "look"), ToolCall("t2", "wait"))),
            Message(role="tool", content="a cat", tool_call_id="t1"),
            Message(role="tool", content=(ImagePart("data:image/png;base64,AAAA"),), tool_call_id="t2"),
            params=Params(tools=(Tool("look", strict=True),)),
            upstream_state={"turns": [BLOCKS]},
        ),
    ],
)
def test_every_request_is_of_the_shape_that_aws_publishes(
    service: ServiceModel, request_: ChatRequest
) -> None:
    shape = service.operation_model("ConverseStream").input_shape
    report = ParamValidator().validate({"modelId": "m", **sent(request_)}, shape)
    assert not report.has_errors(), report.generate_report()


def test_the_fake_answers_in_the_shapes_that_aws_publishes(service: ServiceModel) -> None:
    whole = service.operation_model("Converse").output_shape
    report = ParamValidator().validate(answer(*BLOCKS, reason="tool_use"), whole)
    assert not report.has_errors(), report.generate_report()
    events = service.shape_for("ConverseStreamOutput").members
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(THINKING))
    for message in buffer:
        shape = events[message.headers[":event-type"]]
        report = ParamValidator().validate(json.loads(message.payload), shape)
        assert not report.has_errors(), report.generate_report()


NAMES = (
    "contentBlockIndex",
    "delta",
    "start",
    "text",
    "toolUse",
    "toolUseId",
    "name",
    "input",
    "usage",
    "citation",
)
OTHERS = ("reasoningContent", "reasoningText", "signature", "redactedContent", "citationsContent", "location")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["a", "end_turn", '{"a":1}']),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES + OTHERS), inner, max_size=5)
    ),
)
PIECES = st.sampled_from(
    [
        {"text": "a"},
        {"toolUse": {"toolUseId": "t", "name": "f"}},
        {"toolUse": {"input": "{"}},
        {"reasoningContent": {"text": "b", "signature": "s"}},
        {"reasoningContent": {"redactedContent": "c"}},
        {"citation": {"title": 3, "location": {"web": {"url": "u"}}}},
    ]
)
FIELDS = st.dictionaries(
    st.sampled_from((*NAMES, "stopReason", "message")), ANYTHING, max_size=4
) | st.fixed_dictionaries({"start": PIECES, "delta": PIECES, "contentBlockIndex": st.integers(0, 1)})
KINDS = ("contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata")


@given(st.lists(st.tuples(st.sampled_from(KINDS), FIELDS), max_size=6))
def test_whatever_is_streamed_is_an_answer_or_an_error_of_ours(
    frames: list[tuple[str, dict[str, Any]]],
) -> None:
    decoder = EventDecoder(Frames(10**6))
    try:
        stream = b"".join([*(event(kind, **fields) for kind, fields in frames), *ending("tool_use")])
        found = [*decoder.feed(stream), *decoder.close()]
    except GatewayError:
        return
    assert isinstance(found[-1], Finish)


@given(st.lists(st.dictionaries(st.sampled_from(NAMES + OTHERS), ANYTHING, max_size=3), max_size=4))
def test_whatever_is_answered_is_an_answer_or_an_error_of_ours(blocks: list[dict[str, Any]]) -> None:
    try:
        found = decode_completion(json.dumps(answer(*blocks, reason="tool_use")).encode())
    except GatewayError:
        return
    assert isinstance(found[-1], Finish)

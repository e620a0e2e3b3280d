"""OpenAI's older /v1/completions: relayed where the upstream has it, a chat everywhere else."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelway.errors import UpstreamOverloaded
from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import Finish, ReasoningDelta, TextDelta, Usage
from tests.e2e.test_relay import relaying
from tests.scripted import Scripted, Step, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

NEEDED = {"id", "object", "created", "model", "choices"}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


async def complete(
    client: httpx.AsyncClient, folder: Path, provider: Scripted, **fields: Any
) -> httpx.Response:
    async with serving(gateway_of([provider], folder)) as address:
        return await client.post(f"{address}/v1/completions", json={"model": "", "prompt": "Once", **fields})


def chunks_of(reply: httpx.Response) -> list[dict[str, Any]]:
    *chunks, done, end = reply.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [httpx.Response(200, text=chunk.removeprefix("data: ")).json() for chunk in chunks]


async def test_a_prompt_is_what_the_user_says(client: httpx.AsyncClient, tmp_path: Path) -> None:
    local = Scripted("Local", [ReasoningDelta(text="hm"), *says(" upon", " a time")])
    asked = {"max_tokens": 9, "temperature": 0, "stop": "END", "seed": 1, "top_p": 0.5, "user": "ada"}
    reply = await complete(client, tmp_path, local, **asked)
    body = reply.json()
    assert not NEEDED - body.keys()
    assert (body["object"], body["id"][:5], body["provider"]) == ("text_completion", "cmpl-", "Local")
    assert body["choices"] == [
        {"text": " upon a time", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"]["completion_tokens"] == 2
    [request] = local.requests
    assert [(message.role, message.text) for message in request.messages] == [("user", "Once")]
    assert (request.params.max_tokens, request.params.temperature, request.params.stop) == (9, 0, ("END",))
    assert reply.headers["x-modelway-ignored"] == "user"


async def test_a_stream_of_text_with_its_usage(client: httpx.AsyncClient, tmp_path: Path) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}, "echo": True}
    reply = await complete(client, tmp_path, Scripted("Local", says(" upon", " a time")), **options)
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, last = chunks_of(reply)
    assert all(chunk["object"] == "text_completion" and not NEEDED - chunk.keys() for chunk in chunks)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Once upon", " a time", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert [chunk["usage"] for chunk in chunks] == [None] * 3
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 3)
    assert (chunks[0]["provider"], "provider" in chunks[1]) == ("Local", False)


@pytest.mark.parametrize("script", [says("!"), [Finish(usage=Usage(1, 0))]], ids=["words", "nothing"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_echoed_comes_first(
    client: httpx.AsyncClient, tmp_path: Path, script: Any, streamed: bool
) -> None:
    reply = await complete(client, tmp_path, Scripted("Local", script), echo=True, stream=streamed)
    answers = chunks_of(reply) if streamed else [reply.json()]
    text = "".join(answer["choices"][0]["text"] for answer in answers)
    assert text == "Once" + "".join(event.text for event in script if isinstance(event, TextDelta))


@pytest.mark.parametrize("streamed", [False, True])
async def test_several_prompts_have_choices_of_their_own(
    client: httpx.AsyncClient, tmp_path: Path, streamed: bool
) -> None:
    two: list[Step] = [
        TextDelta(text="a"),
        TextDelta(text="b", choice=1),
        Finish(reasons=("stop", "length"), usage=Usage(1, 2)),
    ]
    local = Scripted("Local", two, says("c"), says("d"))
    options = {"stream_options": {"include_usage": True}} if streamed else {}
    reply = await complete(
        client, tmp_path, local, prompt=["1", "2", "3"], n=2, echo=True, stream=streamed, **options
    )
    texts: dict[int, str] = {}
    answers = chunks_of(reply) if streamed else [reply.json()]
    for answer in answers:
        assert answer["id"] == answers[0]["id"]
        for choice in answer["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    assert texts == {0: "1a", 1: "1b", 2: "2c", 3: "3d"}
    assert [answer["usage"]["total_tokens"] for answer in answers if answer.get("usage")] == [7]
    assert [request.messages[0].text for request in local.requests] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("prompt", {"prompt": None}),
        ("prompt", {"prompt": []}),
        ("prompt", {"prompt": [1, 2, 3]}),
        ("prompt", {"prompt": [[1, 2], [3]]}),
        ("prompt[1]", {"prompt": ["a", 1]}),
        ("prompt", {"prompt": ["a", "b"], "conversation_id": "c"}),
        ("suffix", {"suffix": "the end"}),
        ("logprobs", {"logprobs": 0}),
        ("best_of", {"best_of": 3, "n": 2}),
        ("logit_bias", {"logit_bias": {"1": 2}}),
        ("unheard_of", {"unheard_of": 1}),
        ("stop", {"stop": 1}),
        ("echo", {"echo": "yes"}),
    ],
)
async def test_what_cannot_be_told_to_a_chat_is_refused_by_name(
    client: httpx.AsyncClient, tmp_path: Path, field: str, asked: Any
) -> None:
    local = Scripted("Local", dialect="")
    reply = await complete(client, tmp_path, local, **asked)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)
    assert not local.requests


async def test_n_is_refused_where_there_is_one_answer(client: httpx.AsyncClient, tmp_path: Path) -> None:
    reply = await complete(client, tmp_path, Scripted("Local", supports=("system",)), n=2)
    assert reply.json()["error"]["code"] == "unsupported_parameter"


@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
async def test_an_error_in_the_middle_ends_the_stream(
    client: httpx.AsyncClient, tmp_path: Path, prompt: Any
) -> None:
    local = Scripted("Local", [TextDelta(text="half"), UpstreamOverloaded("too many")])
    reply = await complete(client, tmp_path, local, prompt=prompt, stream=True)
    assert reply.status_code == 200
    assert "[DONE]" not in reply.text
    assert '"upstream_overloaded"' in reply.text.rpartition("data: ")[2]


async def test_a_conversation_goes_on_in_completions(client: httpx.AsyncClient, tmp_path: Path) -> None:
    local = Scripted("Local", says("blue"), says("still blue"))
    async with serving(gateway_of([local], tmp_path)) as address:
        for prompt in ("Which colour?", "And now?"):
            body = {"prompt": prompt, "conversation_id": "c"}
            assert (await client.post(f"{address}/v1/completions", json=body)).status_code == 200
    assert [message.text for message in local.requests[1].messages] == ["Which colour?", "blue", "And now?"]


async def test_an_upstream_that_has_the_address_gets_the_request_as_it_is(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    told = b'{"object":"text_completion","choices":[{"text":"in the middle"}],"usage":{"prompt_tokens":3}}'
    asked = b'{"model": "codestral", "prompt": [1, 2], "suffix": "end", "logprobs": 2, "odd": 1.10}'
    async with FakeUpstream() as upstream, relaying(upstream, tmp_path, Scripted("Local")) as caller:
        upstream.reply_with(told, kind="application/json")
        headers = {"content-type": "application/json"}
        reply = await client.post(f"{caller.address}/v1/completions", content=asked, headers=headers)
        local = await client.post(
            f"{caller.address}/v1/completions", json={"prompt": "hi", "provider": "local"}
        )
    assert (reply.content, upstream.requests[0].body) == (told, asked)
    assert upstream.requests[0].path == "/v1/completions"
    assert local.json()["choices"][0]["text"] == "hello"

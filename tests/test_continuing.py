"""Answers that break off on a route that lets the next candidate go on with them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.answer import Answer
from modelway.attempting import Attempting, Begun
from modelway.config import RouteSettings, Settings, UpstreamSettings
from modelway.continuing import INSTRUCTION, Continuing, Rest
from modelway.conversations import Ephemeral
from modelway.errors import GatewayError, InvalidRequest, UpstreamFailed, UpstreamProtocolError
from modelway.gateway import Gateway
from modelway.provider import ProviderInfo
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import OpenAICompatible
from modelway.routing import Breakers, Candidate, RetryPolicy
from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import (
    Caller,
    ChatRequest,
    Citation,
    Continued,
    Event,
    Finish,
    Message,
    Opaque,
    Params,
    ReasoningDelta,
    RefusalDelta,
    ResponseFormat,
    TextDelta,
    ToolCallDelta,
    UpstreamState,
    Usage,
)
from tests.e2e.test_chat_completions import calling
from tests.scripted import EVERYTHING, Scripted, Step, says
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio
CALLER = Caller("local")
RESET = UpstreamProtocolError("One cut the answer off", code="upstream_reset")
SUPPORTS = EVERYTHING["supports"]
assert isinstance(SUPPORTS, tuple)
PREFIX = (*SUPPORTS, "prefix")
ECHO = (*SUPPORTS, "prefix_echoed")


def asking(**fields: Any) -> ChatRequest:
    fields = {"model": "best", "stream": True, "dialect": "openai_chat", **fields}
    return ChatRequest(messages=(Message(role="user", content="hi"),), **fields)


def settings(*candidates: str, **fields: Any) -> Settings:
    route = RouteSettings(candidates=candidates, on_break="continue", **fields)
    return Settings(provider=candidates[0], routes={"best": route})


async def heard(gateway: Gateway, request: ChatRequest) -> tuple[Answer, list[Event]]:
    async with aclosing(await gateway.answer(request, CALLER)) as answer:
        return answer, [event async for event in answer]


def texts(request: ChatRequest) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in request.messages]


def breaks_after(*pieces: str) -> list[Step]:
    return [*(TextDelta(text=piece) for piece in pieces), RESET]


async def test_the_next_candidate_goes_on_and_the_conversation_has_one_answer(tmp_path: Path) -> None:
    one, two = Scripted("One", breaks_after("The quick ")), Scripted("Two", says("brown ", "fox."))
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        answer, events = await heard(gateway, asking(conversation_id="c"))
        shown = await gateway.conversations.show("local", "c")
    assert answer.completion.text == "The quick brown fox."
    assert answer.provider == "One+Two"
    assert events[1] == Continued(after="One", code="upstream_reset", provider="Two", model="two-1")
    assert [message.text for message in shown.messages] == ["hi", "The quick brown fox."]
    assert [(turn.status, turn.provider) for turn in shown.turns] == [("done", "One+Two")]
    assert texts(two.requests[0]) == [("user", "hi"), ("assistant", "The quick "), ("user", INSTRUCTION)]
    assert [attempt.provider for attempt in answer.attempts] == ["One", "Two"]


async def test_an_upstream_that_takes_a_beginning_is_given_it(tmp_path: Path) -> None:
    one, two = (
        Scripted("One", breaks_after("ha ", "ha ")),
        Scripted("Two", says("ha ha ", "ho"), supports=PREFIX),
    )
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        answer, events = await heard(gateway, asking())
    assert texts(two.requests[0]) == [("user", "hi"), ("assistant", "ha ha ")]
    assert two.requests[0].messages[-1].extra == {"openai_chat": {"prefix": True}}
    assert answer.completion.text == "ha ha ha ha ho"
    assert [event.seamless for event in events if isinstance(event, Continued)] == [True]


@pytest.mark.parametrize(
    "pieces", [("The quick brown",), ("The", " quick ", "brown"), ("The quick ", "brown")]
)
async def test_a_beginning_that_comes_back_is_not_repeated(tmp_path: Path, pieces: tuple[str, ...]) -> None:
    one, two = Scripted("One", breaks_after("The ", "quick ")), Scripted("Two", says(*pieces), supports=ECHO)
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        answer, _ = await heard(gateway, asking())
    assert answer.completion.text == "The quick brown"


@pytest.mark.parametrize("rest", ["brown", "Thesis", "The"])
async def test_what_only_looks_like_the_beginning_is_kept(tmp_path: Path, rest: str) -> None:
    one, two = Scripted("One", breaks_after("The quick ")), Scripted("Two", says(*rest), supports=ECHO)
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        answer, _ = await heard(gateway, asking())
    assert answer.completion.text == f"The quick {rest}"


async def test_a_model_that_refuses_a_beginning_is_told_to_go_on(tmp_path: Path) -> None:
    one = Scripted("One", breaks_after("The "))
    two = Scripted("Two", [InvalidRequest("prefill is incompatible")], says("end"), supports=PREFIX)
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        answer, events = await heard(gateway, asking())
    assert answer.completion.text == "The end"
    assert texts(two.requests[1])[-1] == ("user", INSTRUCTION)
    assert [event.seamless for event in events if isinstance(event, Continued)] == [False]


async def test_it_may_break_more_than_once(tmp_path: Path) -> None:
    providers = [
        Scripted("One", breaks_after("a")),
        Scripted("Two", breaks_after("b"), supports=PREFIX),
        Scripted("Three", says("c"), supports=PREFIX),
    ]
    async with aclosing(gateway_of(providers, tmp_path, settings("One", "Two", "Three"))) as gateway:
        answer, _ = await heard(gateway, asking())
    assert (answer.completion.text, answer.provider) == ("abc", "One+Two+Three")
    assert texts(providers[2].requests[0])[-1] == ("assistant", "ab")


async def test_equal_candidates_end_too(tmp_path: Path) -> None:
    cuts = Candidate(Scripted("Cuts", breaks_after("a")), "m")
    equal = [cuts, Candidate(cuts.provider, "m"), Candidate(cuts.provider, "m")]
    asked: list[Candidate] = []

    async def begin(request: ChatRequest, candidate: Candidate) -> Begun:
        asked.append(candidate)
        return Begun(candidate, Stream([]), [])

    attempting = Attempting(RetryPolicy(), Breakers())
    continuing = Continuing(attempting, begin, equal, Ephemeral(asking()), [])
    second = await continuing.after(cuts, RESET)
    third = await continuing.after(second.candidate, RESET)
    with pytest.raises(UpstreamProtocolError, match="no other candidate can"):
        await continuing.after(third.candidate, RESET)
    assert len(asked) == 2


async def test_an_answer_that_just_ends_is_gone_on_with(tmp_path: Path) -> None:
    one, two = Scripted("One", [TextDelta(text="half ")]), Scripted("Two", says("whole"))
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        answer, events = await heard(gateway, asking())
    assert answer.completion.text == "half whole"
    assert [event.code for event in events if isinstance(event, Continued)] == ["upstream_truncated"]


async def test_bytes_of_two_upstreams_are_never_mixed(tmp_path: Path) -> None:
    mine: list[Step] = [Opaque(b": x\n\n"), TextDelta(text="a", raw=b"data: {}\n\n"), RESET]
    rest: list[Step] = [TextDelta(text="b", raw=b"data: {}\n\n"), Finish(raw=b"data: {}\n\n")]
    one, two = Scripted("One", mine), Scripted("Two", rest)
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        _, events = await heard(gateway, asking())
    assert [event.raw for event in events if not isinstance(event, Continued | UpstreamState)] == [None] * 3


async def test_thoughts_alone_are_no_beginning(tmp_path: Path) -> None:
    one = Scripted("One", [ReasoningDelta(text="hm"), RESET])
    two = Scripted("Two", [ReasoningDelta(text="aha"), *says("yes")], supports=PREFIX)
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        answer, _ = await heard(gateway, asking())
    assert answer.completion.text == "yes"
    assert texts(two.requests[0]) == [("user", "hi")]


async def test_sources_point_into_the_whole_answer(tmp_path: Path) -> None:
    cited = Citation(url="https://example.org", start_index=0, end_index=3)
    one, two = (
        Scripted("One", breaks_after("12345")),
        Scripted("Two", [TextDelta(text="678"), cited, Finish()]),
    )
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        answer, _ = await heard(gateway, asking())
    [found] = answer.completion.message.annotations
    assert answer.completion.text[found.start_index : found.end_index] == "678"


@pytest.mark.parametrize(
    ("begun", "params", "why"),
    [
        ([ToolCallDelta(id="x", name="f", arguments="{")], Params(), "a tool call had begun"),
        ([RefusalDelta(text="I can")], Params(), "the model was declining"),
        ([TextDelta(text="a"), TextDelta(text="b", choice=1)], Params(n=2), "it has several choices"),
        (
            [TextDelta(text='{"a"')],
            Params(response_format=ResponseFormat("json_object")),
            "no other candidate",
        ),
    ],
    ids=["call", "refusal", "choices", "shape"],
)
async def test_what_cannot_be_gone_on_with_fails_and_says_why(
    tmp_path: Path, begun: list[Step], params: Params, why: str
) -> None:
    one, two = Scripted("One", [*begun, RESET]), Scripted("Two")
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        with pytest.raises(UpstreamProtocolError, match=why) as caught:
            await heard(gateway, asking(params=params, conversation_id="c"))
        shown = await gateway.conversations.show("local", "c")
    assert caught.value.code == "upstream_reset"
    assert two.requests == []
    assert [turn.status for turn in shown.turns] == ["interrupted"]


async def test_a_shape_survives_where_the_beginning_is_taken(tmp_path: Path) -> None:
    one, two = Scripted("One", breaks_after('{"a":')), Scripted("Two", says("1}"), supports=PREFIX)
    params = Params(response_format=ResponseFormat("json_object"))
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        answer, _ = await heard(gateway, asking(params=params))
    assert json.loads(answer.completion.text) == {"a": 1}


async def test_what_only_bytes_can_carry_is_passed_on_and_not_gone_on_with(tmp_path: Path) -> None:
    raw = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[]}}]}\n\n'
    one, two = Scripted("One", [TextDelta(text="a", raw=raw), RESET]), Scripted("Two")
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        async with aclosing(await gateway.answer(asking(extra={"logprobs": True}), CALLER)) as answer:
            first = await anext(aiter(answer))
        assert isinstance(first, TextDelta)
        assert first.raw == raw
        with pytest.raises(UpstreamProtocolError, match="`logprobs` of two upstreams cannot be joined"):
            await heard(gateway, asking(extra={"logprobs": True}))
    assert two.requests == []


async def test_plain_text_is_no_shape(tmp_path: Path) -> None:
    one, two = Scripted("One", breaks_after("a ")), Scripted("Two", says("b"))
    params = Params(response_format=ResponseFormat("text"))
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        answer, _ = await heard(gateway, asking(params=params))
    assert answer.completion.text == "a b"


async def test_an_upstream_that_keeps_conversations_is_not_given_half_an_answer(tmp_path: Path) -> None:
    one, two = Scripted("One", breaks_after("a")), Scripted("Two", stateful=True)
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        with pytest.raises(UpstreamProtocolError):
            await heard(gateway, asking())
    assert two.requests == []


async def test_where_nobody_can_go_on_the_first_error_is_told(tmp_path: Path) -> None:
    one, two = Scripted("One", breaks_after("a")), Scripted("Two", [UpstreamFailed("500", retry_after=60)])
    async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
        with pytest.raises(UpstreamProtocolError, match="nobody goes on with it: 500"):
            await heard(gateway, asking())


async def test_a_route_that_says_nothing_fails(tmp_path: Path) -> None:
    one, two = Scripted("One", breaks_after("a")), Scripted("Two")
    chosen = Settings(provider="One", routes={"best": RouteSettings(candidates=("One", "Two"))})
    async with aclosing(gateway_of([one, two], tmp_path, chosen)) as gateway:
        with pytest.raises(GatewayError):
            await heard(gateway, asking())
    assert two.requests == []


BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"max_tokens": 9},
    "/api/chat": {},
    "/api/generate": {"prompt": "hi"},
}


@pytest.mark.parametrize("path", BODIES)
async def test_every_format_tells_of_it_in_a_place_that_its_clients_skip(tmp_path: Path, path: str) -> None:
    one = Scripted("One", breaks_after("The quick "))
    two = Scripted("Two", [TextDelta(text="brown"), Finish(usage=Usage(1, 2))])
    body = {"model": "best", "stream": True, "messages": [{"role": "user", "content": "hi"}], **BODIES[path]}
    if "input" in body or "prompt" in body:
        del body["messages"]
    async with calling(gateway_of([one, two], tmp_path, settings("One", "Two"))) as caller:
        response = await caller.post(body, path)
        async with aclosing(response):
            stream = (await response.body()).decode()
    assert '"continued":{"after":"One","code":"upstream_reset","provider":"Two"' in stream
    assert stream.count("The quick ") >= 1
    assert stream.count('"role":"assistant"') <= 1 or path.startswith(("/api", "/v1/responses"))
    if path == "/v1/chat/completions":
        chunks = [json.loads(line[6:]) for line in stream.split("\n\n") if line.startswith("data: {")]
        assert all(chunk["choices"][0]["delta"] is not None for chunk in chunks)
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_whole_answer_names_everybody(tmp_path: Path) -> None:
    one, two = Scripted("One", breaks_after("The ")), Scripted("Two", says("end"))
    body = {"model": "best", "messages": [{"role": "user", "content": "hi"}]}
    async with calling(gateway_of([one, two], tmp_path, settings("One", "Two"))) as caller:
        response = await caller.post(body)
        async with aclosing(response):
            answer = json.loads(await response.body())
    assert answer["choices"][0]["message"]["content"] == "The end"
    assert answer["provider"] == "One+Two"
    assert response.headers["x-modelway-provider"] == "One+Two"


async def test_an_answer_that_was_gone_on_with_is_read_again_as_it_was(tmp_path: Path) -> None:
    one, two = Scripted("One", breaks_after("The ")), Scripted("Two", says("end"))
    body = {"model": "best", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with calling(gateway_of([one, two], tmp_path, settings("One", "Two"))) as caller:
        response = await caller.post({**body, "conversation_id": "c"})
        async with aclosing(response):
            first = await response.body()
        again = await caller.post({**body, "conversation_id": "d"}, idempotency_key="k")
        async with aclosing(again):
            followed = await again.body()
        repeated = await caller.post({**body, "conversation_id": "d"}, idempotency_key="k")
        async with aclosing(repeated):
            assert await repeated.body() == followed
    assert first.count(b'"continued"') == followed.count(b'"continued"') == 1
    assert b'"The "' in followed
    assert b'"end"' in followed


async def test_an_upstream_of_chat_completions_is_given_the_beginning_marked_as_such(tmp_path: Path) -> None:
    async with FakeUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        upstream.reply("quick ", "end")
        info = ProviderInfo(name="Two", default_model="m", supports=("system", "prefix_echoed"))
        two = OpenAICompatible(info, upstream.url, http=http, key=lambda: "")
        one = Scripted("One", breaks_after("The "))
        async with aclosing(gateway_of([one, two], tmp_path, settings("One", "Two"))) as gateway:
            answer, _ = await heard(gateway, asking())
    assert answer.completion.text == "The quick end"
    assert upstream.requests[0].json["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "The ", "prefix": True},
    ]


class Stream:
    """Events that are there already."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if not self._events:
            raise StopAsyncIteration
        return self._events.pop(0)

    async def aclose(self) -> None:
        """Nothing is held."""


@given(
    said=st.text("ab ", min_size=1, max_size=6),
    rest=st.text("ab ", max_size=8),
    cuts=st.lists(st.integers(0, 14), max_size=4),
    echoes=st.booleans(),
)
def test_of_an_echo_only_all_of_it_is_left_out(said: str, rest: str, cuts: list[int], echoes: bool) -> None:
    whole = said + rest if echoes else rest
    edges = sorted({0, *(min(cut, len(whole)) for cut in cuts), len(whole)})
    pieces: list[Event] = [TextDelta(text=whole[start:end]) for start, end in pairwise(edges)]
    told = Continued(after="One", code="upstream_reset", provider="Two")

    async def read() -> list[Event]:
        held, later = pieces[:1], [*pieces[1:], Finish()]
        return [event async for event in Rest(told, held, Stream(later), said=said, echoed=True)]

    events = asyncio.run(read())
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == (whole.removeprefix(said))
    assert events[0] is told
    assert isinstance(events[-1], Finish)

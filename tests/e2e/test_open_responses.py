"""The acceptance cases of the Open Responses specification, and what else its schema says.

Those over a WebSocket are in test_sockets.py, compaction is in test_compaction.py.

Source: openresponses.org, version 2026-04-24. Events and responses are read by the strict types of OpenAI's
SDK; what only the specification demands is listed here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import httpx
import openai
import pytest
from msgspec import Struct
from openai.types.responses import Response, ResponseStreamEvent

from modelway.errors import InvalidRequest
from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import Citation, Event, Finish, ReasoningDelta, RefusalDelta, TextDelta, ToolCall, Usage
from tests.e2e.test_relay import relaying
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

HEART = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
}
CALL = ToolCall("call_1", "get_weather", '{"location":"San Francisco, CA"}')
# Every response has these, whatever was asked; what may be null is null rather than absent.
ALWAYS = frozenset(
    {
        *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "error", "model"),
        *("previous_response_id", "instructions", "output", "tools", "tool_choice", "parallel_tool_calls"),
        *("truncation", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs"),
        *("temperature", "reasoning", "usage", "max_output_tokens", "max_tool_calls", "store", "background"),
        *("service_tier", "metadata", "safety_identifier", "prompt_cache_key"),
    }
)
# The specification's items have these beside their own.
OF_ITEMS = {
    "message": {"id", "status", "role", "content"},
    "function_call": {"id", "call_id", "name", "arguments", "status"},
    "custom_tool_call": {"id", "call_id", "name", "input"},
    "reasoning": {"id", "summary"},
}
EVENTS = {
    get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
}


class Case(Struct, frozen=True, kw_only=True):
    """What is asked, what the model says to it, and what the upstream must have been told."""

    input: Any
    fields: dict[str, Any] = {}
    says: Sequence[str] = ("Hello ", "to ", "you")
    calls: Sequence[ToolCall] = ()
    reasoning: str = ""
    output: Sequence[str] = ("message",)
    told: Sequence[tuple[str, Any]] = ()


def user(content: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": content}


CASES = {
    "basic-response": Case(input=[user("Say hello in exactly 3 words.")]),
    "a string": Case(input="Say hello.", told=[("user", "Say hello.")]),
    "system-prompt": Case(
        input=[{"type": "message", "role": "system", "content": "You are a pirate."}, user("Say hello.")],
        told=[("system", "You are a pirate."), ("user", "Say hello.")],
    ),
    "instructions": Case(
        input=[user("Say hello.")],
        fields={"instructions": "You are a pirate."},
        told=[("system", "You are a pirate."), ("user", "Say hello.")],
    ),
    "tool-calling": Case(
        input=[user("What's the weather like in San Francisco?")],
        fields={"tools": [WEATHER]},
        says=(),
        calls=(CALL,),
        output=("function_call",),
    ),
    "two calls after a word": Case(
        input=[user("Weather?")],
        fields={"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": True},
        says=("I look",),
        calls=(CALL, ToolCall("call_2", "get_weather", "{}")),
        output=("message", "function_call", "function_call"),
    ),
    "tool-result": Case(
        input=[
            user("Weather?"),
            {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "18 °C"},
        ],
        fields={"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}},
        told=[("user", "Weather?"), ("assistant", None), ("tool", "18 °C")],
    ),
    "image-input": Case(
        input=[
            user([{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": HEART}])
        ],
        told=[
            (
                "user",
                [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": HEART}}],
            )
        ],
    ),
    "multi-turn": Case(
        input=[
            user("My name is Alice."),
            {"type": "message", "role": "assistant", "content": "Hello Alice!", "phase": "final_answer"},
            user("What is my name?"),
        ],
        told=[("user", "My name is Alice."), ("assistant", "Hello Alice!"), ("user", "What is my name?")],
    ),
    "reasoning": Case(
        input=[
            user("Think."),
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "So."}]},
            user("More."),
        ],
        fields={
            "reasoning": {"effort": "low", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
        },
        reasoning="Let me see",
        output=("reasoning", "message"),
        told=[("user", "Think."), ("assistant", "So."), ("user", "More.")],
    ),
    "reasoning as it is": Case(
        input="Think.",
        fields={"reasoning": {"effort": "low"}},
        reasoning="Let me see",
        output=("reasoning", "message"),
    ),
    "structured output": Case(
        input=[user("A colour?")],
        fields={
            "text": {
                "format": {
                    "type": "json_schema",
                    "name": "colour",
                    "schema": {"type": "object"},
                    "strict": True,
                },
                "verbosity": "low",
            }
        },
        says=('{"colour":', '"red"}'),
    ),
    "bookkeeping": Case(
        input=[user("Hi")],
        fields={
            "metadata": {"a": "b"},
            "safety_identifier": "s",
            "prompt_cache_key": "k",
            "max_tool_calls": 3,
            "service_tier": "auto",
            "truncation": "disabled",
            "store": False,
            "background": False,
            "stream_options": {"include_obfuscation": False},
            "top_logprobs": 0,
            "temperature": 0.5,
            "top_p": 0.9,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "max_output_tokens": 16,
        },
    ),
}


def check_response(response: dict[str, Any]) -> None:
    """A response is one by the specification, and by the SDK's types."""
    assert not ALWAYS - response.keys()
    Response.model_validate(response)
    for item in response["output"]:
        assert not OF_ITEMS[item["type"]] - item.keys()
        for part in item.get("content", []):
            if part["type"] == "output_text":
                assert part.keys() >= {"text", "annotations", "logprobs"}


def events_of(body: str) -> list[dict[str, Any]]:
    """The events of a stream, each checked, with the rules that hold between them."""
    frames = [frame.split("\n") for frame in body.removesuffix("\n\n").split("\n\n")]
    events = [json.loads(lines[-1].removeprefix("data: ")) for lines in frames]
    for lines, event in zip(frames, events, strict=True):
        assert lines[-2] == f"event: {event['type']}"
        EVENTS[event["type"]].model_validate(event)
        if "response" in event:
            check_response(event["response"])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def check_items(events: list[dict[str, Any]], output: list[dict[str, Any]]) -> None:
    """Each item is added once, filled piece by piece, and done as it stands in the response."""
    for index, item in enumerate(output):
        own = [event for event in events if event.get("output_index") == index]
        assert own[0]["type"] == "response.output_item.added"
        assert own[-1]["type"] == "response.output_item.done"
        assert own[-1]["item"] == item
        assert {event.get("item_id", item["id"]) for event in own} == {item["id"]}
        pieces = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        if item["type"] == "function_call":
            assert pieces == item["arguments"]
            assert (own[-2]["type"], own[-2]["arguments"]) == (
                "response.function_call_arguments.done",
                pieces,
            )
        else:
            parts = [*item["content"], *item.get("summary", ())]
            assert pieces == "".join(part.get("text", part.get("refusal")) for part in parts)
            kinds = [event["type"] for event in own]
            assert sum(kind.endswith("_part.added") for kind in kinds) == len(parts)
            done = [event["part"] for event in own if event["type"].endswith("_part.done")]
            assert done == parts


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_acceptance(case: Case, streamed: bool, upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply(*case.says, reasoning=case.reasoning, calls=case.calls)
    asked = {"model": "Fake/m", "input": case.input, "stream": streamed, **case.fields}
    async with relaying(upstream, tmp_path) as caller, httpx.AsyncClient() as client:
        reply = await client.post(f"{caller.address}/v1/responses", json=asked)
    assert reply.status_code == 200, reply.text
    if streamed:
        events = events_of(reply.text)
        kinds = [event["type"] for event in events]
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        response = events[-1]["response"]
        check_items(events, response["output"])
    else:
        response = reply.json()
    check_response(response)
    assert response["status"] == "completed"
    assert tuple(item["type"] for item in response["output"]) == tuple(case.output)
    if case.reasoning:
        place = "summary" if "summary" in case.fields["reasoning"] else "content"
        assert [part["text"] for part in response["output"][0][place]] == [case.reasoning]
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in calls] == [
        (call.id, call.name, call.arguments) for call in case.calls
    ]
    sent = upstream.requests[0].json
    if case.told:
        assert [(message["role"], message["content"]) for message in sent["messages"]] == list(case.told)


async def test_a_response_repeats_what_was_asked(upstream: FakeUpstream, tmp_path: Path) -> None:
    fields = CASES["bookkeeping"].fields
    async with relaying(upstream, tmp_path) as caller, httpx.AsyncClient() as client:
        reply = await client.post(f"{caller.address}/v1/responses", json={"input": "hi", **fields})
    response = reply.json()
    own = {"stream_options", "service_tier"}
    assert {name: response[name] for name in fields if name not in own} == {
        name: value for name, value in fields.items() if name not in own
    }
    ignored = reply.headers["x-modelway-ignored"].split(", ")
    assert sorted(ignored) == ["max_tool_calls", "prompt_cache_key", "safety_identifier"]


ENDS: dict[str, tuple[list[Event], str, str | None]] = {
    "length": ([TextDelta(text="cut"), Finish(reasons=("length",))], "incomplete", "max_output_tokens"),
    "content_filter": (
        [TextDelta(text="no"), Finish(reasons=("content_filter",))],
        "incomplete",
        "content_filter",
    ),
    "refusal": ([RefusalDelta(text="I cannot"), Finish()], "completed", None),
    "nothing": ([Finish(usage=Usage(1, 0))], "completed", None),
    "sources": (
        [TextDelta(text="It is"), Citation(url="https://x/", title="X"), Finish()],
        "completed",
        None,
    ),
    "thoughts only": (
        [ReasoningDelta(text="hm"), Finish(reasons=("length",))],
        "incomplete",
        "max_output_tokens",
    ),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("end", ENDS)
async def test_every_end_is_one_of_the_specification(end: str, streamed: bool, tmp_path: Path) -> None:
    script, status, reason = ENDS[end]
    async with (
        serving(gateway_of([Scripted("Local", script)], tmp_path)) as address,
        httpx.AsyncClient() as client,
    ):
        reply = await client.post(f"{address}/v1/responses", json={"input": "hi", "stream": streamed})
    if streamed:
        events = events_of(reply.text)
        assert events[-1]["type"] == f"response.{status}"
        response = events[-1]["response"]
        check_items(events, response["output"])
    else:
        response = reply.json()
        check_response(response)
    assert response["status"] == status
    assert (response["incomplete_details"] or {}).get("reason") == reason


REFUSED: dict[str, Any] = {
    "tools[0].type": {"tools": [{"type": "web_search"}]},
    "tools[1].type": {"tools": [WEATHER, {"type": "mcp", "server_label": "x"}]},
    "tool_choice.type": {"tool_choice": {"type": "file_search"}},
    "truncation": {"truncation": "auto"},
    "top_logprobs": {"top_logprobs": 3},
    "include[0]": {"include": ["message.output_text.logprobs"]},
    "prompt": {"prompt": {"id": "pmpt_1"}},
    "context_management": {"context_management": [{"type": "compaction"}]},
    "moderation": {"moderation": {"model": "m"}},
    "reasoning.mode": {"reasoning": {"mode": "pro"}},
    "unheard_of": {"unheard_of": 1},
    "input[0].content[0].file_id": {"input": [user([{"type": "input_image", "file_id": "f"}])]},
    "input[0].encrypted_content": {"input": [{"type": "compaction", "encrypted_content": "x"}]},
    "input[0].content[0].type": {"input": [user([{"type": "input_video", "video_url": "x"}])]},
    "input[0].id": {"input": [{"type": "item_reference", "id": "msg_abc"}]},
}


@pytest.mark.parametrize("field", REFUSED)
async def test_what_cannot_be_done_is_refused_by_its_name(
    field: str, upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with relaying(upstream, tmp_path) as caller, httpx.AsyncClient() as client:
        reply = await client.post(f"{caller.address}/v1/responses", json={"input": "hi", **REFUSED[field]})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, field)
    assert field.rpartition("[")[0] in error["message"]
    assert not upstream.requests


async def test_what_is_wrong_with_the_messages_is_wrong_with_the_input(tmp_path: Path) -> None:
    refusal = InvalidRequest("It cannot take images", param="messages")
    gateway = gateway_of([Scripted("Local", [refusal])], tmp_path)
    async with serving(gateway) as address, httpx.AsyncClient() as client:
        reply = await client.post(f"{address}/v1/responses", json={"input": "hi"})
    assert reply.json()["error"]["param"] == "input"


async def test_items_may_be_referred_to_by_their_ids(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.reply("I look", reasoning="hm", calls=(CALL,))
    upstream.reply("18 °C")
    async with (
        relaying(upstream, tmp_path) as caller,
        openai.AsyncOpenAI(base_url=f"{caller.address}/v1", api_key="none") as client,
    ):
        ask: Any = {"model": "Fake/m", "tools": [WEATHER]}
        stream = await client.responses.create(**ask, input="Weather?", stream=True)
        first: Any = [event async for event in stream][-1]
        items = await client.responses.input_items.list(first.response.id)
        known = [item.id for item in [*items.data, *first.response.output]]
        result = {"type": "function_call_output", "call_id": "call_1", "output": "18"}
        referring: Any = [{"type": "item_reference", "id": known[0]}, *({"id": id} for id in known[1:])]
        second = await client.responses.create(**ask, input=[*referring, result])
        with pytest.raises(openai.BadRequestError) as unknown:
            await client.responses.create(**ask, input=[{"type": "item_reference", "id": "msg_0"}])
        other: Any = [{"type": "item_reference", "id": known[1] + "_in"}]
        with pytest.raises(openai.BadRequestError, match="not here"):
            await client.responses.create(**ask, input=other)
    assert second.output_text == "18 °C"
    sent = upstream.requests[1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert (sent[1]["content"], sent[1]["tool_calls"][0]["id"]) == ("I look", "call_1")
    assert (unknown.value.param, unknown.value.code) == ("input[0].id", "item_not_found")


async def test_items_of_a_conversation_may_be_referred_to(tmp_path: Path) -> None:
    local = Scripted("Local")
    async with (
        serving(gateway_of([local], tmp_path)) as address,
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client,
    ):
        items: Any = [{"role": "user", "content": "the plan is blue"}]
        conversation = await client.conversations.create(items=items)
        [item] = (await client.conversations.items.list(conversation.id)).data
        again: Any = [{"type": "item_reference", "id": item.id}]
        await client.responses.create(model="", input=again, conversation=conversation.id)
        with pytest.raises(openai.BadRequestError, match="not here"):
            await client.responses.create(model="", input=again)
    assert [message.text for message in local.requests[0].messages][-1] == "the plan is blue"


class Counts(Scripted):
    """A provider that counts a token for each message."""

    async def count_tokens(self, request: Any) -> int:
        self.requests.append(request)
        return len(request.messages)


async def test_tokens_are_counted_with_what_the_request_follows(tmp_path: Path) -> None:
    gateway = gateway_of([Counts("Local"), Scripted("Other")], tmp_path)
    async with (
        serving(gateway) as address,
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client,
    ):
        count = client.responses.input_tokens.count
        alone = await count(model="Local", input="hi", instructions="be brief")
        first = await client.responses.create(model="Local", input="1", conversation="c")
        after = await count(model="Local", input="2", previous_response_id=first.id)
        within = await count(model="Local", input="2", conversation="c")
        new = await count(model="Local", input="2", conversation="nobody")
        with pytest.raises(openai.NotFoundError, match="does not count tokens"):
            await count(model="Other", input="hi")
    assert [alone.input_tokens, after.input_tokens, within.input_tokens, new.input_tokens] == [2, 3, 3, 1]
    assert alone.object == "response.input_tokens"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_functions_of_a_namespace_are_told_and_called_by_their_full_names(
    upstream: FakeUpstream, tmp_path: Path, streamed: bool
) -> None:
    find = {"type": "function", "name": "find", "parameters": {"type": "object"}, "strict": False}
    crm: dict[str, Any] = {"type": "namespace", "name": "crm", "description": "Customers", "tools": [find]}
    upstream.reply(calls=[ToolCall("call_1", "crm__find", "{}"), ToolCall("call_2", "get_weather", "{}")])
    upstream.reply("Ada")
    async with (
        relaying(upstream, tmp_path) as caller,
        httpx.AsyncClient(base_url=caller.address) as client,
    ):
        ask = {"model": "Fake/m", "tools": [crm, WEATHER], "stream": streamed}
        reply = await client.post("/v1/responses", json={**ask, "input": "Who?"})
        first = events_of(reply.text)[-1]["response"] if streamed else reply.json()
        kept = (await client.get(f"/v1/responses/{first['id']}")).json()
        called = first["output"]
        results = [
            {"type": "function_call_output", "call_id": item["call_id"], "output": "Ada"} for item in called
        ]
        again = {**ask, "input": [*called, *results], "stream": False}
        second = await client.post("/v1/responses", json=again)
    check_response(first)
    assert [(item["name"], item.get("namespace")) for item in called] == [
        ("find", "crm"),
        ("get_weather", None),
    ]
    assert (kept["output"], kept["tools"][0]["name"]) == (called, "crm")
    assert second.status_code == 200
    sent = upstream.requests[1].json
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["crm__find", "get_weather"]
    assert [call["function"]["name"] for call in sent["messages"][0]["tool_calls"]] == [
        "crm__find",
        "get_weather",
    ]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_tool_that_takes_plain_text_is_a_function_of_one_text(
    upstream: FakeUpstream, tmp_path: Path, streamed: bool
) -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}
    patch = {"type": "custom", "name": "patch", "description": "Patches", "format": grammar}
    upstream.reply(
        calls=[ToolCall("call_1", "patch", '{"input": "a \\"b\\""}'), ToolCall("c2", "patch", "raw")]
    )
    upstream.reply("done")
    async with (
        relaying(upstream, tmp_path) as caller,
        httpx.AsyncClient(base_url=caller.address) as client,
    ):
        ask = {"model": "Fake/m", "tools": [patch], "stream": streamed}
        reply = await client.post("/v1/responses", json={**ask, "input": "Go", "tool_choice": "required"})
        events = events_of(reply.text) if streamed else []
        first = events[-1]["response"] if streamed else reply.json()
        kept = (await client.get(f"/v1/responses/{first['id']}")).json()
        results = [{"type": "custom_tool_call_output", "call_id": "call_1", "output": "ok"}]
        again = {**ask, "input": [first["output"][0], *results], "stream": False}
        second = await client.post("/v1/responses", json=again)
    Response.model_validate(first)
    assert [(item["type"], item["name"], item["input"]) for item in first["output"]] == [
        ("custom_tool_call", "patch", 'a "b"'),
        ("custom_tool_call", "patch", "raw"),
    ]
    assert (kept["output"], kept["tools"]) == (first["output"], [patch])
    if streamed:
        told = [event for event in events if event["type"].startswith("response.custom_tool_call_input")]
        assert [event.get("delta", event.get("input")) for event in told] == ['a "b"'] * 2 + ["raw"] * 2
    assert second.status_code == 200
    sent = upstream.requests[1].json
    [function] = [tool["function"] for tool in sent["tools"]]
    assert "lark" in function["description"]
    assert json.loads(sent["messages"][0]["tool_calls"][0]["function"]["arguments"]) == {"input": 'a "b"'}
    assert (sent["messages"][1]["role"], sent["messages"][1]["content"]) == ("tool", "ok")

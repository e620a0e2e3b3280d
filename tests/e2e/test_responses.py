"""OpenAI's Responses API through the official SDK: kept, continued, shared with chats, deleted."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseFunctionToolCall, ResponseIncompleteEvent

from modelway.auth import Auth, hash_key
from modelway.errors import PermissionDenied, UpstreamOverloaded
from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import Citation, Finish, ReasoningDelta, TextDelta, ToolCallDelta, UpstreamState, Usage
from tests.e2e.running import Running
from tests.e2e.test_openai_sdk import sdk
from tests.e2e.test_relay import relaying
from tests.scripted import Scripted, Step, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}


def given(local: Scripted, number: int = -1) -> list[tuple[str, str]]:
    """What the provider was given."""
    return [(message.role, message.text) for message in local.requests[number].messages]


async def test_a_response_is_continued_by_its_id_and_instructions_hold_once(tmp_path: Path) -> None:
    local = Scripted("Local", says("I am fine"), says("German"), says("Heiner"))
    async with sdk(gateway_of([local], tmp_path)) as client:
        create = client.responses.create
        first = await create(model="", input="i am Heiner", instructions="be brief")
        second = await create(model="", input="my name?", previous_response_id=first.id, stream=False)
        await create(model="", input="and?", previous_response_id=second.id, instructions="be long")
    assert (first.output_text, first.status, first.instructions) == ("I am fine", "completed", "be brief")
    assert (second.previous_response_id, second.conversation) == (first.id, None)
    assert given(local, 1) == [("user", "i am Heiner"), ("assistant", "I am fine"), ("user", "my name?")]
    assert given(local, 2)[0] == ("system", "be long")
    assert given(local, 2)[1:] == [*given(local, 1), ("assistant", "German"), ("user", "and?")]
    assert local.requests[2].new_from == 5


async def test_a_stream_ends_with_the_response_that_can_be_fetched(tmp_path: Path) -> None:
    source = Citation(url="https://x/", title="X", start_index=0, end_index=2)
    script: list[Step] = [ReasoningDelta(text="hm"), TextDelta(text="18 "), TextDelta(text="°C"), source]
    local = Scripted("Local", [*script, Finish(usage=Usage(5, 3, 1, 2))])
    async with sdk(gateway_of([local], tmp_path)) as client:
        ask: Any = {"model": "Local", "input": "warm?", "metadata": {"a": "b"}, "temperature": 0.5}
        stream = await client.responses.create(**ask, tools=[WEATHER], max_output_tokens=99, stream=True)
        events = [event async for event in stream]
        kinds, streamed = [event.type for event in events], events[-1].response
        fetched = await client.responses.retrieve(streamed.id)
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [item.type for item in fetched.output] == ["reasoning", "message"]
    assert (fetched.output_text, fetched.metadata, fetched.temperature) == ("18 °C", {"a": "b"}, 0.5)
    assert fetched.usage is not None
    assert fetched.usage.output_tokens_details.reasoning_tokens == 2
    assert streamed.to_dict() == fetched.to_dict()
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_a_tool_loop_by_previous_response(tmp_path: Path) -> None:
    call = ToolCallDelta(id="call_1", name="weather", arguments='{"city":"Paris"}')
    other = ToolCallDelta(index=1, id="call_2", name="weather", arguments="{}")
    ends: list[Step] = [UpstreamState({"at": 1}), Finish(reasons=("tool_calls",), usage=Usage(1, 1))]
    local = Scripted("Local", [TextDelta(text="I look"), call, other, *ends], says("sunny"))
    async with sdk(gateway_of([local], tmp_path)) as client:
        first = await client.responses.create(
            model="", input="Paris?", tools=[WEATHER], tool_choice="required"
        )
        calls = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
        results: list[Any] = [
            {"type": "function_call_output", "call_id": item.call_id, "output": "18"} for item in calls
        ]
        second = await client.responses.create(
            model="", input=results, previous_response_id=first.id, tools=[WEATHER]
        )
    assert [item.arguments for item in calls] == ['{"city":"Paris"}', "{}"]
    assert second.output_text == "sunny"
    asked = local.requests[1]
    assert [message.tool_call_id for message in asked.messages] == ["", "", "call_1", "call_2"]
    assert asked.upstream_state == {"at": 1}
    assert (asked.new_from, asked.params.tools) == (2, local.requests[0].params.tools)


async def test_a_tool_loop_that_keeps_nothing_here(tmp_path: Path) -> None:
    call = ToolCallDelta(id="call_1", name="weather", arguments="{}")
    calls: list[Step] = [ReasoningDelta(text="hm"), call, Finish(reasons=("tool_calls",))]
    local = Scripted("Local", calls, says("sunny"))
    async with sdk(gateway_of([local], tmp_path)) as client:
        ask: Any = {"model": "", "store": False, "tools": [WEATHER]}
        history: list[Any] = [{"role": "user", "content": "Paris?"}]
        first = await client.responses.create(**ask, input=history, include=["reasoning.encrypted_content"])
        history += [item.model_dump() for item in first.output]
        history.append({"type": "function_call_output", "call_id": "call_1", "output": "18"})
        second = await client.responses.create(**ask, input=history)
        assert second.output_text == "sunny"
        for response in (first, second):
            assert response.model_extra is not None
            assert response.model_extra["store"] is False
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(response.id)
    asked = local.requests[1].messages
    assert [message.role for message in asked] == ["user", "assistant", "tool"]
    assert (asked[1].reasoning, asked[1].tool_calls[0].id) == ("hm", "call_1")


async def test_a_conversation_is_the_same_in_chats_and_responses_and_after_a_restart(tmp_path: Path) -> None:
    local = Scripted("Local", says("one"), says("two"), says("three"), says("four"))
    extra = {"conversation_id": "c"}
    async with sdk(gateway_of([local], tmp_path)) as client:
        hi: list[Any] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1"}]
        await client.chat.completions.create(model="", messages=hi, extra_body=extra)
        second = await client.responses.create(model="", input="2", conversation="c", instructions="once")
    async with sdk(gateway_of([local], tmp_path)) as client:
        fetched = await client.responses.retrieve(second.id)
        await client.chat.completions.create(
            model="", messages=[{"role": "user", "content": "3"}], extra_body=extra
        )
        async with client.responses.stream(model="Local", input="4", conversation={"id": "c"}) as stream:
            fourth = await stream.get_final_response()
    assert second.conversation is not None
    assert (second.conversation.id, fetched.to_dict()) == ("c", second.to_dict())
    assert fourth.output_text == "four"
    assert given(local, 1)[:2] == [("system", "once"), ("system", "be brief")]
    assert given(local, 2)[0] == ("system", "be brief")
    assert [text for _, text in given(local)] == ["be brief", "1", "one", "2", "two", "3", "three", "4"]


async def test_an_older_response_is_continued_beside_what_followed_it(tmp_path: Path) -> None:
    local = Scripted("Local", says("one"), says("two"), says("other"), says("more"))
    async with sdk(gateway_of([local], tmp_path)) as client:
        create = client.responses.create
        first = await create(model="", input="1", conversation="c")
        second = await create(model="", input="2", previous_response_id=first.id)
        other = await create(model="", input="2'", previous_response_id=first.id)
        await create(model="", input="3'", previous_response_id=other.id)
        shown: Any = await client.get("/conversations/c", cast_to=object)
        listed: Any = await client.get("/conversations", cast_to=object)
    assert second.conversation is not None
    assert (second.conversation.id, other.conversation) == ("c", None)
    assert [text for _, text in given(local)] == ["1", "one", "2'", "other", "3'"]
    assert [message["content"] for message in shown["messages"]] == ["1", "one", "2", "two"]
    assert [conversation["id"] for conversation in listed["data"]] == ["c"]


async def test_without_storing_a_response_is_continued_and_nothing_is_kept(tmp_path: Path) -> None:
    local = Scripted("Local", says("one"), says("two"))
    async with sdk(gateway_of([local], tmp_path)) as client:
        first = await client.responses.create(model="", input="1", instructions="once")
        second = await client.responses.create(
            model="", input="2", instructions="again", previous_response_id=first.id, store=False
        )
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(second.id)
    assert [text for _, text in given(local)] == ["again", "1", "one", "2"]
    assert local.requests[1].new_from == 3


async def test_input_items_in_pages(tmp_path: Path) -> None:
    gateway = gateway_of([Scripted("Local")], tmp_path)
    picture: Any = {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"}
    items: list[Any] = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "input_text", "text": "what is this?"}, picture]},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "sure?"},
    ]
    async with sdk(gateway) as client:
        response = await client.responses.create(model="", input=items, instructions="not an item")
        listed = client.responses.input_items.list
        newest = [item async for item in await listed(response.id, limit=3)]
        page = await listed(response.id, limit=2, order="asc")
        with pytest.raises(openai.BadRequestError) as refused:
            await listed(response.id, limit=0)
    assert [item.role for item in newest] == ["user", "assistant", "user", "developer"]
    assert (len(page.data), page.has_more) == (2, True)
    assert page.data[1].content[1].image_url == "https://x/y.png"
    assert refused.value.param == "limit"


async def test_a_deleted_response_is_gone_and_what_follows_it_stays(tmp_path: Path) -> None:
    local = Scripted("Local", says("one"), says("two"), says("three"))
    async with sdk(gateway_of([local], tmp_path)) as client:
        first = await client.responses.create(model="", input="secret words")
        second = await client.responses.create(model="", input="2", previous_response_id=first.id)
        await client.responses.delete(first.id)
        for call in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                await call(first.id)
        with pytest.raises(openai.BadRequestError) as gone:
            await client.responses.create(model="", input="3", previous_response_id=first.id)
        assert (gone.value.code, gone.value.param) == ("previous_response_not_found", "previous_response_id")
        await client.responses.create(model="", input="3", previous_response_id=second.id)
        assert [text for _, text in given(local)] == ["secret words", "one", "2", "two", "3"]


async def test_responses_of_another_caller_do_not_exist(tmp_path: Path) -> None:
    auth = Auth({"ann": hash_key("mw-ann"), "bob": hash_key("mw-bob")})
    async with sdk(gateway_of([Scripted("Local")], tmp_path), auth, api_key="mw-ann") as ann:
        mine = await ann.responses.create(model="", input="hi")
        responses = ann.with_options(api_key="mw-bob").responses
        for call in (responses.retrieve, responses.delete, responses.cancel, responses.input_items.list):
            with pytest.raises(openai.NotFoundError) as missing:
                await call(mine.id)
            assert missing.value.code == "response_not_found"
        for store in (True, False):
            with pytest.raises(openai.BadRequestError):
                await responses.create(model="", input="hi", previous_response_id=mine.id, store=store)
        assert (await ann.responses.retrieve(mine.id)).output_text == "hello"


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("background", {"background": True, "store": False}),
        ("store", {"conversation": "c", "store": False}),
        ("previous_response_id", {"conversation": "c", "previous_response_id": "resp_1"}),
        ("conversation_id", {"conversation": "a b"}),
        ("previous_response_id", {"previous_response_id": "chatcmpl-1"}),
        ("input", {"input": []}),
    ],
)
async def test_a_mistake_is_the_sdk_s_bad_request(tmp_path: Path, field: str, asked: Any) -> None:
    async with sdk(gateway_of([Scripted("Local")], tmp_path)) as client:
        with pytest.raises(openai.BadRequestError) as wrong:
            await client.responses.create(**{"model": "", "input": "hi", **asked})
        assert wrong.value.param == field


async def test_only_the_background_can_be_cancelled(tmp_path: Path) -> None:
    async with sdk(gateway_of([Scripted("Local")], tmp_path)) as client:
        response = await client.responses.create(model="", input="hi")
        with pytest.raises(openai.BadRequestError, match="background"):
            await client.responses.cancel(response.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.cancel("resp_none")
        with pytest.raises(openai.NotFoundError, match="stream"):
            await client.responses.retrieve(response.id, stream=True)


async def ended(client: openai.AsyncOpenAI, id: str) -> Any:
    """A response, once it has ended."""
    async with asyncio.timeout(5):
        while (found := await client.responses.retrieve(id)).status in ("queued", "in_progress"):
            await asyncio.sleep(0.01)
    return found


async def test_a_response_in_the_background_goes_on_by_itself(tmp_path: Path) -> None:
    begin, go_on = asyncio.Event(), asyncio.Event()
    script: list[Step] = [begin, TextDelta(text="half"), go_on, *says(" done")]
    local = Scripted("Local", script, [PermissionDenied("no")])
    async with sdk(gateway_of([local], tmp_path)) as client:
        create = client.responses.create
        told = await create(model="Local", input="hi", background=True)
        assert (told.status, told.background, told.model, told.output) == ("queued", True, "Local", [])
        assert (await client.responses.retrieve(told.id)).status == "queued"
        begin.set()
        async with asyncio.timeout(5):
            while (found := await client.responses.retrieve(told.id)).output_text != "half":
                await asyncio.sleep(0.01)
        assert found.status == "in_progress"
        go_on.set()
        assert ((await ended(client, told.id)).status, found.id) == ("completed", told.id)
        assert (await client.responses.cancel(told.id)).output_text == "half done"
        failed = await create(model="", input="hi", background=True)
        assert (await ended(client, failed.id)).status == "failed"
        with pytest.raises(openai.NotFoundError):
            await create(model="gpt-nothing", input="hi", background=True)
        with pytest.raises(openai.BadRequestError, match="stored"):
            await create(model="", input="hi", background=True, store=False)


async def note(stream: Any, seen: list[Any]) -> None:
    """Note the events of a stream, which may end with an error."""
    async for event in stream:
        seen.append(event)  # noqa: PERF401 - what came before an error counts


async def test_a_response_in_the_background_is_cancelled_or_left_incomplete(tmp_path: Path) -> None:
    script: list[Step] = [TextDelta(text="half"), asyncio.Event()]
    local = Scripted("Local", script)
    gateway = gateway_of([local], tmp_path)
    async with sdk(gateway) as client:
        first = await client.responses.create(model="", input="hi", background=True)
        cancelled = await client.responses.cancel(first.id)
        assert (cancelled.status, local.closed) == ("cancelled", 1)
        assert (await client.responses.cancel(first.id)).status == "cancelled"
        stopped = await client.responses.create(model="", input="hi", background=True, stream=True)
        begun = await anext(stopped)
        assert begun.type == "response.created"
        kept = await client.responses.cancel(begun.response.id)
        for stream in (stopped, await client.responses.retrieve(begun.response.id, stream=True)):
            seen: list[Any] = []
            with pytest.raises(openai.APIError, match="somebody has stopped"):
                await note(stream, seen)
            assert isinstance(last := seen[-1], ResponseIncompleteEvent)
            assert (last.response.status, kept.status) == ("cancelled", "cancelled")
        second = await client.responses.create(model="", input="hi", background=True)
        async with asyncio.timeout(5):
            while not (await client.responses.retrieve(second.id)).output_text:
                await asyncio.sleep(0.01)
        # The server would wait for it.
        await gateway.live.aclose()
    async with sdk(gateway_of([local], tmp_path)) as client:
        left = await client.responses.retrieve(second.id)
    assert (left.status, left.output_text) == ("incomplete", "half")


async def test_a_stream_in_the_background_is_resumed_by_the_sdk(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    begin = asyncio.Event()
    local = Scripted("Local", [begin, TextDelta(text="one "), go_on, *says("two")])
    async with sdk(gateway_of([local], tmp_path)) as client:
        stream = await client.responses.create(model="Local", input="hi", background=True, stream=True)
        seen = [await anext(stream) for _ in range(2)]
        assert [event.type for event in seen] == ["response.created", "response.queued"]
        begin.set()
        seen += [await anext(stream) for _ in range(4)]
        await stream.close()
        go_on.set()
        at = seen[-1].sequence_number
        id = seen[0].response.id
        rest = await client.responses.retrieve(id, stream=True, starting_after=at)
        events = [*seen, *[event async for event in rest]]
        whole = [event async for event in await client.responses.retrieve(id, stream=True)]
    assert [event.to_dict() for event in events] == [event.to_dict() for event in whole]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "one two"


async def test_an_error_in_the_middle_is_raised_and_the_response_kept_as_failed(tmp_path: Path) -> None:
    local = Scripted("Local", [TextDelta(text="half"), UpstreamOverloaded("too many")])
    async with sdk(gateway_of([local], tmp_path)) as client:
        stream = await client.responses.create(model="", input="hi", stream=True)
        events: list[Any] = []
        with pytest.raises(openai.APIError, match="too many"):
            await anext(event async for event in stream if events.append(event))  # type: ignore[func-returns-value]
        kept = await client.responses.retrieve(events[0].response.id)
    assert events[-1].type == "response.failed"
    assert events[-1].response.to_dict() == kept.to_dict()
    assert (kept.status, kept.output_text) == ("failed", "half")
    assert kept.error is not None
    assert (kept.error.code, "too many" in kept.error.message) == ("server_error", True)


async def test_what_failed_before_it_began_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    local = Scripted("Local", [UpstreamOverloaded("too many")], [UpstreamOverloaded("too many")], says("one"))
    gateway = gateway_of([local], tmp_path)
    async with sdk(gateway, max_retries=0) as client:
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="", input="words that nobody asks for")
        assert (await client.responses.create(model="", input="hi")).output_text == "one"
    with closing(sqlite3.connect(tmp_path / "conversations.sqlite3")) as database:
        assert database.execute("SELECT text FROM messages ORDER BY id").fetchall() == [("hi",), ("one",)]
        assert database.execute("SELECT count(*) FROM turns").fetchone() == (1,)


async def test_limits_make_a_response_incomplete(tmp_path: Path) -> None:
    local = Scripted("Local", [TextDelta(text="cut"), Finish(reasons=("length",))])
    async with sdk(gateway_of([local], tmp_path)) as client:
        whole = await client.responses.create(model="", input="hi", max_output_tokens=1)
        stream = await client.responses.create(model="", input="hi", stream=True)
        last = [event async for event in stream][-1]
        fetched = await client.responses.retrieve(whole.id)
    assert last.type == "response.incomplete"
    for response in (whole, last.response, fetched):
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output[0].status == "incomplete"


async def test_the_provider_may_be_named_outside_the_body(tmp_path: Path) -> None:
    other = Scripted("Other", says("it was me"))
    async with (
        serving(gateway_of([Scripted("Local"), other], tmp_path)) as address,
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="sk-fake") as client,
    ):
        headers = {"x-modelway-provider": "Other", "x-modelway-conversation-id": "c"}
        response = await client.responses.create(model="", input="hi", extra_headers=headers)
    assert response.output_text == "it was me"
    assert response.conversation is not None
    assert response.conversation.id == "c"


async def test_an_openai_compatible_upstream_is_asked_for_a_chat(tmp_path: Path) -> None:
    async with FakeUpstream() as upstream, relaying(upstream, tmp_path) as caller:
        upstream.reply("18 °C")
        async with openai.AsyncOpenAI(base_url=f"{caller.address}/v1", api_key="sk-fake") as client:
            response = await client.responses.create(
                model="Fake/chatty",
                instructions="be brief",
                input=[{"role": "user", "content": [{"type": "input_text", "text": "warm?"}]}],
                tools=[WEATHER],
                text={"format": {"type": "json_object"}, "verbosity": "low"},
                reasoning={"effort": "low", "summary": "auto"},
                max_output_tokens=99,
                metadata={"a": "b"},
                prompt_cache_key="k",
            )
    body = upstream.requests[0].json
    assert response.output_text == "18 °C"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["tools"][0]["function"]["name"] == "weather"
    assert (body["response_format"], body["verbosity"]) == ({"type": "json_object"}, "low")
    assert (body["reasoning_effort"], body["max_tokens"]) == ("low", 99)
    assert not body.keys() & {"metadata", "store", "input", "instructions", "prompt_cache_key", "reasoning"}


async def test_responses_are_there_after_a_kill_and_half_of_one_is_continued(tmp_path: Path) -> None:
    async with FakeUpstream() as upstream:
        upstream.reply("one")
        upstream.stall("half")
        upstream.reply("two")
        config = f'provider = "Fake"\n[providers.Fake]\nbase_url = "{upstream.url}"\ndefault_model = "m"'
        with Running(tmp_path, config=config) as running:
            async with openai.AsyncOpenAI(base_url=f"{running.address}/v1", api_key="none") as client:
                first = await client.responses.create(model="", input="1")
                ask: Any = {"model": "", "input": "2", "previous_response_id": first.id}
                stream = await client.responses.create(**ask, stream=True)
                id = (await anext(stream.__aiter__())).response.id
                while not (await client.responses.retrieve(id)).output_text:
                    pass
                running.kill()
                running.start()
                assert (await client.responses.retrieve(first.id)).to_dict() == first.to_dict()
                half = await client.responses.retrieve(id)
                last = await client.responses.create(model="", input="3", previous_response_id=id)
    assert (half.status, half.output_text, last.output_text) == ("incomplete", "half", "two")
    sent = [message["content"] for message in upstream.requests[2].json["messages"]]
    assert sent == ["1", "one", "2", "half", "3"]

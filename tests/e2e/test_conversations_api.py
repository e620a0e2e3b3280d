"""OpenAI's Conversations API through the official SDK, beside our own addresses."""

from pathlib import Path
from typing import Any

import openai
import pytest

from modelway.auth import Auth, hash_key
from modelway.types import Finish, ReasoningDelta, TextDelta, ToolCallDelta
from tests.e2e.test_openai_sdk import sdk
from tests.scripted import Scripted, Step, says
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio
ITEMS: list[Any] = [
    {"type": "message", "role": "developer", "content": "be brief"},
    {"type": "message", "role": "user", "content": "my name is Heiner"},
    {"type": "message", "role": "assistant", "content": "hello Heiner"},
]


async def test_a_conversation_is_created_with_items_and_used_by_responses_and_chats(tmp_path: Path) -> None:
    local = Scripted("Local", says("Heiner"), says("yes"))
    async with sdk(gateway_of([local], tmp_path)) as client:
        created = await client.conversations.create(items=ITEMS, metadata={"topic": "names"})
        await client.responses.create(model="", input="my name?", conversation=created.id)
        messages: list[Any] = [{"role": "user", "content": "sure?"}]
        await client.chat.completions.create(
            model="", messages=messages, extra_body={"conversation_id": created.id}
        )
        found = await client.conversations.retrieve(created.id)
        listed: Any = await client.get("/conversations", cast_to=object)
        deleted = await client.conversations.delete(created.id)
        with pytest.raises(openai.NotFoundError):
            await client.conversations.retrieve(created.id)
    assert (created.object, created.metadata) == ("conversation", {"topic": "names"})
    assert (found.id, found.metadata, int(found.created_at)) == (
        created.id,
        created.metadata,
        created.created_at,
    )
    assert deleted.deleted
    assert [message.text for message in local.requests[1].messages] == [
        "be brief",
        "my name is Heiner",
        "hello Heiner",
        "my name?",
        "Heiner",
        "sure?",
    ]
    assert [one["title"] for one in listed["data"]] == ["my name is Heiner"]


async def test_items_are_listed_in_pages_and_found_by_their_ids(tmp_path: Path) -> None:
    call = ToolCallDelta(id="call_1", name="look", arguments="{}")
    script: list[Step] = [
        ReasoningDelta(text="hm"),
        TextDelta(text="I look"),
        call,
        Finish(reasons=("tool_calls",)),
    ]
    async with sdk(gateway_of([Scripted("Local", script)], tmp_path)) as client:
        created = await client.conversations.create(items=ITEMS)
        await client.responses.create(model="", input="look", conversation=created.id)
        listed = client.conversations.items.list
        newest = [item async for item in await listed(created.id, limit=2)]
        oldest = await listed(created.id, order="asc", limit=1)
        again = [
            await client.conversations.items.retrieve(item.id or "", conversation_id=created.id)
            for item in newest
        ]
        with pytest.raises(openai.NotFoundError):
            await client.conversations.items.retrieve("msg_none", conversation_id=created.id)
    assert [item.type for item in newest] == ["function_call", "message", "reasoning", *["message"] * 4]
    assert len({item.id for item in newest}) == 7
    assert again == newest
    assert (oldest.data[0].id, oldest.has_more) == (newest[-1].id, True)


async def test_items_are_added_and_never_taken_for_a_history_sent_again(tmp_path: Path) -> None:
    local = Scripted("Local")
    async with sdk(gateway_of([local], tmp_path)) as client:
        created = await client.conversations.create()
        once, again = [await client.conversations.items.create(created.id, items=ITEMS[1:]) for _ in range(2)]
        listed = await client.conversations.items.list(created.id, order="asc")
        other = await client.conversations.items.create(created.id, items=ITEMS[:1])
        await client.responses.create(model="", input="and?", conversation=created.id)
    assert [item.id for item in listed.data] == [item.id for item in (*once.data, *again.data)]
    assert [item.role for item in other.data] == ["developer"]
    assert [message.text for message in local.requests[0].messages] == [
        "be brief",
        *["my name is Heiner", "hello Heiner"] * 2,
        "and?",
    ]


async def test_metadata_is_replaced(tmp_path: Path) -> None:
    async with sdk(gateway_of([Scripted("Local")], tmp_path)) as client:
        created = await client.conversations.create(metadata={"a": "1"})
        updated = await client.conversations.update(created.id, metadata={"b": "2"})
        assert updated.metadata == (await client.conversations.retrieve(created.id)).metadata == {"b": "2"}
        with pytest.raises(openai.BadRequestError) as missing:
            await client.conversations.update(created.id, metadata=None)
        assert missing.value.param == "metadata"
        with pytest.raises(openai.BadRequestError) as empty:
            await client.conversations.items.create(created.id, items=[])
        assert empty.value.param == "items"


async def test_conversations_of_another_caller_do_not_exist(tmp_path: Path) -> None:
    auth = Auth({"ann": hash_key("mw-ann"), "bob": hash_key("mw-bob")})
    async with sdk(gateway_of([Scripted("Local")], tmp_path), auth, api_key="mw-ann") as ann:
        mine = await ann.conversations.create(items=ITEMS)
        bob = ann.with_options(api_key="mw-bob").conversations
        with pytest.raises(openai.NotFoundError):
            await bob.update(mine.id, metadata={})
        with pytest.raises(openai.NotFoundError):
            await bob.items.list(mine.id)
        with pytest.raises(openai.NotFoundError):
            await bob.items.create(mine.id, items=ITEMS)
        assert len((await ann.conversations.items.list(mine.id)).data) == 3

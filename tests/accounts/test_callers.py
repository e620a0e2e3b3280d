"""The keys of callers, as the store keeps them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from modelway.conversations import Conversations
from modelway.errors import InvalidRequest, NotFound
from modelway.types import Rules
from tests.conversations.talk import ask, open_store
from tests.polling import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Conversations]:
    async with aclosing(open_store(tmp_path)) as opened:
        yield opened


async def test_a_key_is_told_once_and_known_by_its_hash(store: Conversations) -> None:
    before = time.time()
    secret, key = await store.callers.create("alice", Rules(daily_budget=7), expires_at=before + 100)
    assert list(await store.callers.keys()) == [key] == list(store.callers.known_now())
    assert (key.name, key.rules, key.expires_at) == ("alice", Rules(daily_budget=7), before + 100)
    assert before <= key.created_at <= time.time()
    assert key.revoked_at is None
    assert secret not in repr(key)
    assert secret.startswith(key.hint.rstrip("…"))


async def test_a_name_has_one_key_that_counts(store: Conversations) -> None:
    await store.callers.create("alice", Rules())
    with pytest.raises(InvalidRequest) as caught:
        await store.callers.create("alice", Rules())
    assert caught.value.message == "there is a key of the name alice"
    assert caught.value.hint == "choose another name, or `modelway keys revoke alice` first"
    assert caught.value.param == "name"
    await store.callers.revoke("alice")
    await store.callers.create("alice", Rules(), expires_at=time.time() - 1)
    _, key = await store.callers.create("alice", Rules())
    keys = await store.callers.keys()
    assert [one.revoked_at is None for one in keys] == [False, True, True]
    assert keys[2] == key


async def test_a_key_is_changed(store: Conversations) -> None:
    await store.callers.create("alice", Rules())
    _, other = await store.callers.create("bob", Rules())
    await store.callers.change("alice", Rules(daily_budget=5), expires_at=99e9)
    changed, same = await store.callers.keys()
    assert (changed.rules, changed.expires_at) == (Rules(daily_budget=5), 99e9)
    assert same == other


async def test_what_is_forgotten_is_gone_with_all_that_it_had(store: Conversations) -> None:
    await store.callers.create("alice", Rules())
    await store.callers.revoke("alice")
    await store.callers.create("alice", Rules())
    _, other = await store.callers.create("bob", Rules())
    await store.callers.revoke("alice", forget=True)
    assert list(await store.callers.keys()) == [other]


async def test_a_name_without_a_key_is_not_found(store: Conversations) -> None:
    await store.callers.create("bob", Rules())
    for attempt in (
        store.callers.change("alice", Rules(), expires_at=None),
        store.callers.revoke("alice"),
        store.callers.revoke("alice", forget=True),
    ):
        with pytest.raises(NotFound, match=r"^there is no such key of the name alice") as caught:
            await attempt
        assert caught.value.hint == "`modelway keys list` shows what there is"
    with pytest.raises(NotFound) as caught:
        await store.callers.revoke("x" * 99)
    assert caught.value.message == f"there is no such key of the name {'x' * 64}"
    await store.callers.revoke("bob")
    with pytest.raises(NotFound):
        await store.callers.revoke("bob")


async def test_any_change_of_the_database_is_another_version(store: Conversations, tmp_path: Path) -> None:
    before = store.callers.version()
    assert store.callers.version() == before
    await ask(store, "c", "hello")
    assert store.callers.version() != before
    before = store.callers.version()
    async with aclosing(open_store(tmp_path)) as other:
        await other.callers.create("alice", Rules())
        await until(lambda: store.callers.version() != before)
    store.callers.close()
    assert store.callers.version()[0] == before[0] + 1

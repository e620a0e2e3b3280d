"""Several servers of one database keep to callers' limits together."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from modelway.accounts import Accounts, Permit, Size
from modelway.conversations import Conversations
from modelway.errors import CallerRateLimited
from modelway.prices import Prices
from modelway.types import Caller, Rules, Usage
from tests.conversations.talk import open_store

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0


class Server:
    """A server's accounts; all servers of a test have one clock."""

    def __init__(self, store: Conversations, now: list[float]) -> None:
        self.store = store
        self.accounts = Accounts(store.callers, Prices({}), clock=lambda: DAY_S, timer=lambda: now[0])

    async def ask(self, caller: Caller, tokens: int = 0) -> Permit | None:
        """Let a request in; None where it is refused."""
        size = Size(tokens)
        await self.accounts.make_room(caller, size)
        try:
            return self.accounts.admit(caller, size)
        except CallerRateLimited as error:
            if error.retry_after is not None and error.retry_after < 1:
                raise
            return None

    async def settled(self) -> None:
        """Give back what is not needed, and wait until that is written."""
        self.accounts.give_back()
        await self.store.streams.settled()


@asynccontextmanager
async def servers(folder: Path, count: int, now: list[float]) -> AsyncIterator[list[Server]]:
    if count == 0:
        yield []
        return
    async with aclosing(open_store(folder)) as store, servers(folder, count - 1, now) as others:
        server = Server(store, now)
        async with aclosing(server.accounts):
            yield [server, *others]


def allowed(**rules: int) -> Caller:
    return Caller("ann", rules=msgspec.convert(rules, Rules))


async def let_in(server: Server, caller: Caller, tries: int) -> int:
    return sum([await server.ask(caller) is not None for _ in range(tries)])


@pytest.mark.parametrize("limit", [1, 7, 40])
@pytest.mark.parametrize("kind", ["requests_per_minute", "streams"])
async def test_three_servers_let_in_no_more_than_one_may(tmp_path: Path, limit: int, kind: str) -> None:
    caller, now = allowed(**{kind: limit}), [1000.0]
    async with servers(tmp_path, 3, now) as all_of_them:
        one, two, three = all_of_them
        assert await let_in(one, caller, limit // 2) == limit // 2
        assert await let_in(two, caller, limit // 4) == limit // 4
        for server in all_of_them:
            await server.settled()
            await server.settled()
        left = limit - limit // 2 - limit // 4
        assert await let_in(three, caller, limit) == left
        assert [await let_in(server, caller, 3) for server in all_of_them] == [0, 0, 0]


@pytest.mark.parametrize("seed", range(6))
async def test_no_minute_holds_more_than_the_limit_whoever_is_asked(tmp_path: Path, seed: int) -> None:
    chance, now = random.Random(seed), [1000.0]
    limit = chance.choice((5, 30))
    caller, admitted = allowed(requests_per_minute=limit, tokens_per_minute=50 * limit), list[float]()
    async with servers(tmp_path, 3, now) as all_of_them:
        for _ in range(250):
            server = chance.choice(all_of_them)
            if chance.random() < 0.2:
                await server.settled()
            elif (permit := await server.ask(caller, 10)) is not None:
                admitted.append(now[0])
                server.accounts.end(permit, Usage(10, 0))
            now[0] += chance.choice((0.0, 0.1, 2.0))
            assert sum(moment > now[0] - 60 for moment in admitted) <= limit
    assert len(admitted) > limit


async def test_tokens_are_shared_too(tmp_path: Path) -> None:
    caller, now = allowed(tokens_per_minute=100), [1000.0]
    async with servers(tmp_path, 2, now) as (one, two):
        assert await one.ask(caller, 60)
        await one.settled()
        assert not await two.ask(caller, 50)
        assert await two.ask(caller, 28)
        assert one.accounts.headers(caller)[1] == ("x-ratelimit-remaining-tokens", "40")
        assert two.accounts.headers(caller)[1] == ("x-ratelimit-remaining-tokens", "0")
        now[0] += 62
        await one.settled()
        assert await two.ask(caller, 70)


async def test_what_an_idle_server_has_is_left_to_the_others(tmp_path: Path) -> None:
    caller, now = allowed(requests_per_minute=40), [1000.0]
    async with servers(tmp_path, 2, now) as (one, two):
        assert await let_in(one, caller, 1) == 1
        # In advance it has taken an eighth more.
        assert await let_in(two, caller, 40) == 34
        await one.settled()
        await one.settled()
        assert await let_in(two, caller, 40) == 5


async def test_answers_of_a_server_that_has_ended_are_over(tmp_path: Path) -> None:
    caller, now = allowed(streams=2), [1000.0]
    async with aclosing(open_store(tmp_path)) as store:
        two = Server(store, now)
        async with servers(tmp_path, 1, now) as (one,):
            assert await let_in(one, caller, 3) == 2
            assert await let_in(two, caller, 1) == 0
        assert await let_in(two, caller, 3) == 2


async def test_within_its_part_a_server_asks_nobody(tmp_path: Path) -> None:
    caller, now = allowed(requests_per_minute=80, streams=80), [1000.0]
    async with servers(tmp_path, 1, now) as (one,):
        assert not one.accounts.has_room(caller, Size())
        assert await one.ask(caller)
        for _ in range(10):
            assert one.accounts.has_room(caller, Size())
            one.accounts.admit(caller, Size())
        assert not one.accounts.has_room(caller, Size())


async def test_who_has_no_limits_is_never_looked_up(tmp_path: Path) -> None:
    async with servers(tmp_path, 1, [1000.0]) as (one,):
        assert one.accounts.has_room(allowed(), Size(10**9))


async def test_without_the_database_a_server_counts_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caller, now = allowed(requests_per_minute=3), [1000.0]
    async with servers(tmp_path, 1, now) as (one,):
        await one.store.aclose()
        assert await let_in(one, caller, 5) == 3
    assert caplog.text.count("limits are not shared with other servers") == 1

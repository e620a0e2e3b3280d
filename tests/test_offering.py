"""What can be asked for: upstreams are asked once in a while, and nobody waits for a slow one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from msgspec.structs import replace

from modelway.errors import UpstreamUnreachable
from modelway.offering import Offering
from modelway.types import Model
from tests.scripted import Scripted

pytestmark = pytest.mark.anyio


class Listing(Scripted):
    """A provider whose upstream lists models: an error is raised, and `gate` is waited for."""

    def __init__(self, name: str, *lists: list[str] | Exception, **info: object) -> None:
        super().__init__(name, **info)
        self._lists = list(lists)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def models(self) -> list[Model]:
        self.asked += 1
        await self.gate.wait()
        listed = self._lists.pop(0) if len(self._lists) > 1 else self._lists[0]
        if isinstance(listed, Exception):
            raise listed
        return [Model(id=name, context_length=100) for name in listed]


@asynccontextmanager
async def offering_of(*providers: Scripted, wait_s: float = 5) -> AsyncIterator[Offering]:
    async with aclosing(Offering({one.info.name: one for one in providers}, wait_s=wait_s)) as offering:
        yield offering


async def names(offering: Offering, *, refresh: bool = False) -> list[str]:
    return [model.id for model in await offering.models(["alias"], refresh=refresh)]


async def test_models_of_upstreams_stand_beside_the_known_ones() -> None:
    listing = Listing("A", ["one", "two"], models=("known",))
    async with offering_of(listing, Scripted("B")) as offering:
        assert await names(offering) == ["alias", "A/a-1", "A/known", "A/one", "A/two", "B/b-1"]
        [a, _] = await offering.infos()
        models = await offering.models([])
    assert a.models == ("one", "two")
    assert models[2].context_length == 100


async def test_an_upstream_is_asked_once_until_somebody_wants_it_anew() -> None:
    listing = Listing("A", ["one"], ["two"])
    async with offering_of(listing) as offering:
        await names(offering)
        await offering.infos(["A"])
        assert listing.asked == 1
        assert "A/two" in await names(offering, refresh=True)


async def test_many_who_ask_at_once_share_one_call() -> None:
    listing = Listing("A", ["one"])
    async with offering_of(listing) as offering:
        await asyncio.gather(*(names(offering, refresh=True) for _ in range(5)))
    assert listing.asked == 1


async def test_nobody_waits_for_a_slow_upstream_and_it_is_asked_on() -> None:
    slow = Listing("Slow", ["late"])
    slow.gate.clear()
    async with offering_of(slow, Listing("B", ["b"]), wait_s=0.01) as offering:
        assert "Slow/late" not in await names(offering)
        slow.gate.set()
        while "Slow/late" not in await names(offering):
            await asyncio.sleep(0)
    assert slow.asked == 1


@pytest.mark.parametrize("failure", [UpstreamUnreachable("gone"), ValueError("a bug of a plug-in")])
async def test_what_was_listed_before_outlives_a_failure(failure: Exception) -> None:
    listing = Listing("A", ["one"], failure)
    async with offering_of(listing) as offering:
        await names(offering)
        assert "A/one" in await names(offering, refresh=True)
        await names(offering)
    assert listing.asked == 2


async def test_who_is_not_ready_is_not_asked() -> None:
    listing = Listing("A", ["one"], ready=False, needs_auth=True)
    async with offering_of(listing) as offering:
        assert await names(offering) == ["alias"]
        assert listing.asked == 0
        listing.info = replace(listing.info, ready=True)
        assert "A/one" in await names(offering)


async def test_asking_shows_whether_an_upstream_is_there() -> None:
    there = Listing("A", ["one"], UpstreamUnreachable("gone"), untried=True)
    gone = Listing("B", UpstreamUnreachable("nobody listens"), untried=True)
    async with offering_of(there, gone) as offering:
        assert [one for one in await names(offering) if "/" in one] == ["A/a-1", "A/one"]
        a, b = await offering.infos()
        assert (a.ready, a.untried) == (True, False)
        assert (b.ready, b.untried, b.missing) == (False, False, "nobody listens")
        [a] = await offering.infos(["A"], refresh=True)
        assert (a.ready, a.missing) == (False, "gone")


async def test_closing_ends_what_is_asked() -> None:
    slow = Listing("Slow", ["late"])
    slow.gate.clear()
    running = asyncio.all_tasks()
    async with offering_of(slow, wait_s=0.01) as offering:
        await names(offering)
        assert asyncio.all_tasks() > running
    assert asyncio.all_tasks() == running

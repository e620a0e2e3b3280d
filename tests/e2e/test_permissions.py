"""What a key with rules is not shown, and where what it asks does not go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from modelway.auth import Auth
from modelway.config import RouteSettings, Settings
from modelway.types import Rules
from tests.e2e.test_limits import Stage
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

ROUTED = Settings(
    provider="One",
    fallback=("Four",),
    routes={
        "best": RouteSettings(candidates=("One", "Two", "Two/x"), weights=(2.0, 1.0, 3.0), shadow="Three"),
        "first": RouteSettings(candidates=("One", "Two")),
    },
)


@asynccontextmanager
async def permitting(folder: Path, providers: list[Scripted], **rules: Rules) -> AsyncIterator[Stage]:
    gateway = gateway_of(providers, folder, ROUTED)
    callers = gateway.conversations.callers
    keys = {name: (await callers.create(name, own))[0] for name, own in rules.items()}
    async with serving(gateway, Auth({})) as address:
        yield Stage(address, gateway, keys)


def all_four() -> list[Scripted]:
    return [Scripted(name) for name in ("One", "Two", "Three", "Four")]


async def test_a_shadow_is_asked_only_where_the_key_may_go(tmp_path: Path) -> None:
    providers = all_four()
    shadow = providers[2]
    rules = {
        "held": Rules(providers=("One",)),
        "modest": Rules(models=("one-*",)),
        "named": Rules(models=("best",)),
        "both": Rules(providers=("One", "Three")),
        "free": Rules(daily_budget=10**9),
    }
    async with permitting(tmp_path, providers, **rules) as at:
        for name, asked in {"held": 0, "modest": 0, "named": 1, "both": 2, "free": 3}.items():
            assert (await at.say(name, model="best")).status == 200
            async with asyncio.timeout(5):
                while len(shadow.requests) < asked:
                    await asyncio.sleep(0)
            assert len(shadow.requests) == asked, name


async def test_a_route_is_explained_as_it_is_for_the_key(tmp_path: Path) -> None:
    rules = {
        "two": Rules(providers=("two",)),
        "x": Rules(models=("Two/x",)),
        "four": Rules(providers=("Four",)),
        "three": Rules(providers=("Two", "Three")),
        "free": Rules(daily_budget=10**9),
    }
    async with permitting(tmp_path, all_four(), **rules) as at:

        async def told(name: str, route: str) -> list[tuple[str, float, str]]:
            found = (await at.get(name, f"/v1/routes/{route}")).json
            return [(str(one["model"]), one["share"], one["verdict"]) for one in found["candidates"]]

        assert await told("two", "best") == [("two-1", 0.25, "first"), ("x", 0.75, "next")]
        assert await told("two", "first") == [("two-1", 1.0, "first")]
        assert await told("x", "best") == [("x", 1.0, "first")]
        assert await told("four", "best") == [("four-1", 1.0, "first")]
        assert [share for _, share, _ in await told("free", "best")] == [0.3333, 0.1667, 0.5, 0.0]
        refused = await at.get("x", "/v1/routes/first")
        assert (refused.status, refused.json["error"]["code"]) == (403, "permission_denied")
        assert "does not permit first;" in refused.json["error"]["message"]
        shadows = {name: (await at.get(name, "/v1/routes")).json["data"][0]["shadow"] for name in rules}
    assert shadows == {"two": "", "x": "", "four": "", "three": "Three/three-1", "free": "Three/three-1"}

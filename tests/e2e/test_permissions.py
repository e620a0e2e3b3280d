"""What a key with rules is not shown, and where what it asks does not go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modelway.auth import Auth
from modelway.config import RouteSettings, Settings
from modelway.errors import ModelNotFound
from modelway.provider import SignInCode
from modelway.types import ChatRequest, Event, Finish, Model, Rules
from tests.e2e.test_keys import ask
from tests.e2e.test_limits import Stage
from tests.polling import until
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


def was_asked(provider: Scripted, times: int) -> bool:
    return len(provider.requests) >= times


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
            await until(partial(was_asked, shadow, asked))
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


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", {"model": "ome-1"}),
        ("POST", "/v1/chat/completions", {"model": "besst"}),
        ("POST", "/v1/chat/completions", {"provider": "Ome"}),
        ("POST", "/v1/messages", {"model": "ome-1", "max_tokens": 1}),
        ("POST", "/v1/messages/count_tokens", {"model": "ome-1"}),
        ("POST", "/v1/responses", {"model": "ome-1", "input": "hi"}),
        ("POST", "/api/chat", {"model": "ome-1"}),
        ("POST", "/api/chat", {"model": "ome-1", "messages": []}),
        ("POST", "/api/show", {"model": "ome-1"}),
        ("POST", "/v1/embeddings", {"provider": "Ome", "input": "hi"}),
        ("POST", "/v1/embeddings", {"provider": "Two", "model": "none", "input": "hi"}),
        ("POST", "/api/embed", {"model": "Ome/x", "provider": "Ome", "input": "hi"}),
        ("POST", "/v1/completions", {"provider": "Ome", "prompt": "hi"}),
        ("POST", "/page/send", {"text": "hi", "choice": {"model": "Ome/x"}}),
        ("GET", "/v1/models/ome-1", None),
        ("GET", "/v1/providers/Ome", None),
        ("GET", "/v1/routes/ome-1", None),
        ("GET", "/v1/routes/besst", None),
    ],
)
async def test_an_error_names_nothing_near_that_the_key_does_not_permit(
    tmp_path: Path, method: str, path: str, body: dict[str, object] | None
) -> None:
    if body is not None and path != "/page/send":
        body = {"messages": [{"role": "user", "content": "hi"}], **body}
    held = Rules(providers=("Two",), models=("none",))
    async with permitting(tmp_path, all_four(), held=held) as at:
        told = await ask(at.address, method, path, at.keys["held"], body)
        assert told.status == 404, told.body
        for name in (b"one-1", b"One", b"best", b"Three", b"Four"):
            assert name not in told.body, told.body


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/embed", {"input": ""}),
        ("/api/embed", {"input": []}),
        ("/api/chat", {"messages": []}),
        ("/api/generate", {"prompt": ""}),
        ("/api/show", {}),
    ],
)
async def test_what_asks_nobody_is_answered_only_where_the_key_may_go(
    tmp_path: Path, path: str, fields: dict[str, object]
) -> None:
    async with permitting(tmp_path, all_four(), held=Rules(providers=("Two",)), free=Rules()) as at:
        for name, status in {"held": 403, "free": 200}.items():
            told = await ask(at.address, "POST", path, at.keys[name], {"model": "One/one-1", **fields})
            assert told.status == status, told.body


async def test_an_error_names_what_is_near_and_permitted(tmp_path: Path) -> None:
    async with permitting(tmp_path, all_four(), held=Rules(providers=("Two",)), free=Rules()) as at:
        told = (await at.say("held", model="two-11")).json["error"]["message"]
        assert "nearest: two-1; GET /v1/models" in told
        told = (await at.say("held", provider="Twoo")).json["error"]["message"]
        assert "nearest: Two; GET /v1/providers" in told
        assert "nearest: one-1, " in (await at.say("free", model="ome-1")).json["error"]["message"]


class Choosy(Scripted):
    """Has other models than the one that is asked for."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        unknown = ModelNotFound("no such model", hint="look it up")
        unknown.others = ["gpt-5", "gpt-5-mini", "claude"]
        if request.model:
            raise unknown
        yield Finish()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_s_error_names_only_those_of_its_models_that_are_permitted(
    tmp_path: Path, stream: bool
) -> None:
    rules = {
        "mini": Rules(models=("gpt-9", "*mini")),
        "none": Rules(models=("gpt-9",)),
        "elsewhere": Rules(models=("gpt-9", "Two/gpt-5")),
        "claude": Rules(models=("One/x", "One/claude")),
        "free": Rules(daily_budget=10**9),
    }
    async with permitting(tmp_path, [Choosy("One"), *all_four()[1:]], **rules) as at:

        async def told(name: str, model: str = "gpt-9", **fields: Any) -> str:
            reply = await at.say(name, provider="One", model=model, stream=stream, **fields)
            assert reply.status == 404
            return str(reply.json["error"]["message"])

        assert await told("mini") == "no such model; nearest: gpt-5-mini; look it up"
        assert await told("none") == "no such model; look it up"
        assert await told("elsewhere") == "no such model; look it up"
        assert await told("claude", "x") == "no such model; there are: claude; look it up"
        assert await told("free") == "no such model; nearest: gpt-5, gpt-5-mini; look it up"
        await told("mini", conversation_id="c")
        kept = await at.get("mini", "/v1/conversations/c")
        assert "gpt-5-mini" in str(kept.json)
        assert "claude" not in str(kept.json)


class Signable(Scripted):
    """Somebody can sign in to it, and it holds a model in memory."""

    can_sign_in = True

    def __init__(self, name: str, **info: object) -> None:
        super().__init__(name, **info)
        self.begun = 0

    @property
    def loaded(self) -> list[Model]:
        return [Model("one-1")]

    async def models(self) -> list[Model]:
        return [Model(name) for name in self.info.models]

    async def sign_in(self, show: Callable[[SignInCode], None]) -> str:
        self.begun += 1
        show(SignInCode(code="AB-CD", address="https://example.com", expires_in=60))
        return "octocat"


async def test_models_and_providers_that_a_key_does_not_permit_are_nowhere_shown(tmp_path: Path) -> None:
    providers = [Signable("One", models=("one-1", "one-2")), *all_four()[1:]]
    rules = {
        "two": Rules(providers=("Two",)),
        "second": Rules(models=("one-2",)),
        "free": Rules(),
    }
    async with permitting(tmp_path, providers, **rules) as at:

        async def shown(name: str, path: str) -> str:
            return (await at.get(name, path)).body.decode()

        for path in ("/providers", "/page/models", "/v1/providers", "/api/ps"):
            assert "one-1" in await shown("free", path), path
            for name in ("two", "second"):
                assert "one-1" not in await shown(name, path), (name, path)
        for path in ("/providers", "/page/models", "/v1/providers"):
            assert "One" not in await shown("two", path), path
            assert "two-1" in await shown("two", path), path
        assert "One/one-2" in await shown("second", "/page/models")
        assert 'value="One/"' not in await shown("second", "/page/models")


async def test_nobody_with_a_rule_signs_the_server_in(tmp_path: Path) -> None:
    one = Signable("One", ready=False)
    rules = {"held": Rules(providers=("One",)), "poor": Rules(daily_budget=1), "free": Rules()}
    async with permitting(tmp_path, [one, *all_four()[1:]], **rules) as at:
        for name in ("held", "poor"):
            assert b'data-action="sign-in"' not in (await at.get(name, "/providers")).body
            for path in ("/page/sign-in", "/page/sign-in/state"):
                refused = await ask(at.address, "POST", path, at.keys[name], {"provider": "One"})
                assert (refused.status, refused.json["error"]["code"]) == (403, "permission_denied")
        assert one.begun == 0
        assert b'data-action="sign-in"' in (await at.get("free", "/providers")).body
        begun = await ask(at.address, "POST", "/page/sign-in", at.keys["free"], {"provider": "One"})
        assert (begun.json["code"], one.begun) == ("AB-CD", 1)


async def test_nobody_with_a_rule_reads_the_figures_of_all(tmp_path: Path) -> None:
    rules = {"held": Rules(providers=("Two",)), "poor": Rules(daily_budget=1), "free": Rules()}
    addresses = ("/metrics", "/v1/figures", "/figures", "/page/figures")
    async with permitting(tmp_path, all_four(), **rules) as at:
        for path in addresses:
            for name in ("held", "poor"):
                refused = await at.get(name, path)
                assert (refused.status, refused.json["error"]["code"]) == (403, "permission_denied"), path
            assert (await at.get("free", path)).status == 200
        assert b'href="/figures"' not in (await at.get("held", "/providers")).body
        assert b'href="/figures"' in (await at.get("free", "/providers")).body

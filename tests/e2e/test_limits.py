"""What the rules of a key permit at a running server: models, limits, budgets; what is told of spending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from modelway.auth import Auth
from modelway.config import PriceSettings, RouteSettings, ServerSettings, Settings
from modelway.errors import UpstreamFailed, UpstreamProtocolError
from modelway.gateway import Gateway
from modelway.prices import NANOS, Prices
from modelway.types import Finish, Rules, TextDelta, Usage
from tests.e2e.test_keys import Reply, ask
from tests.polling import until
from tests.scripted import Script, Scripted, says
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

# Ten dollars for a million tokens: one token is 10,000 billionths.
TOKEN = 10_000
CHEAP = {"*": PriceSettings(input=10.0, output=10.0)}


class Stage(Struct):
    """A server, and the keys of callers with rules."""

    address: str
    gateway: Gateway
    keys: dict[str, str]

    async def say(
        self, name: str, *, model: str = "", path: str = "/v1/chat/completions", **fields: Any
    ) -> Reply:
        body = {"messages": [{"role": "user", "content": "hi"}], "model": model, **fields}
        return await ask(self.address, "POST", path, self.keys[name], body)

    async def get(self, name: str, path: str) -> Reply:
        return await ask(self.address, "GET", path, self.keys[name])


@asynccontextmanager
async def stage(
    folder: Path, rules: dict[str, Rules], *scripts: Script, settings: Settings | None = None
) -> AsyncIterator[Stage]:
    providers = [Scripted("Local", *scripts), Scripted("Groq", models=("groq-1", "groq-2"))]
    gateway = gateway_of(providers, folder, settings or Settings(provider="Local"))
    gateway.accounts.prices = Prices(CHEAP)
    callers = gateway.conversations.callers
    keys = {name: (await callers.create(name, own))[0] for name, own in rules.items()}
    async with serving(gateway, Auth({})) as address:
        yield Stage(address, gateway, keys)


@pytest.fixture
def routed() -> Settings:
    route = RouteSettings(candidates=("Groq/groq-2",))
    return Settings(provider="Local", routes={"fast": route})


async def test_a_key_reaches_only_what_its_rule_names(tmp_path: Path, routed: Settings) -> None:
    rules = {
        "one": Rules(providers=("groq",)),
        "two": Rules(models=("Groq/groq-1",)),
        "three": Rules(models=("fast",)),
        "four": Rules(),
    }
    reached = {
        "one": {"": 403, "Local": 403, "groq-1": 200, "Groq/groq-2": 200, "fast": 200},
        "two": {"": 403, "Local": 403, "groq-1": 200, "Groq/groq-2": 403, "fast": 403},
        "three": {"": 403, "Local": 403, "groq-1": 403, "Groq/groq-2": 403, "fast": 200},
        "four": {"": 200, "Local": 200, "groq-1": 200, "Groq/groq-2": 200, "fast": 200},
    }
    async with stage(tmp_path, rules, settings=routed) as at:
        for name, models in reached.items():
            for model, status in models.items():
                assert (await at.say(name, model=model)).status == status, (name, model)
        refused = (await at.say("two", model="Groq/groq-2")).json["error"]
        assert refused["code"] == "permission_denied"
        assert "models Groq/groq-1" in refused["message"]
        others: dict[str, dict[str, Any]] = {
            "/v1/messages": {"max_tokens": 5},
            "/v1/responses": {"input": "hi"},
            "/v1/completions": {"prompt": "hi"},
            "/api/chat": {},
            "/v1/embeddings": {"input": "hi"},
            "/api/embed": {"input": "hi"},
            "/api/show": {},
        }
        for path, body in others.items():
            refused = await at.say("two", model="Local", path=path, **body)
            assert refused.status == 403, path
        later = await at.say("two", model="Local", path="/v1/responses", input="hi", background=True)
        assert later.status == 403


async def test_a_pattern_of_a_provider_is_not_fooled_by_a_model_s_name(tmp_path: Path) -> None:
    routes = {"fast": RouteSettings(candidates=("Groq/groq-2",))}
    settings = Settings(provider="Local", routes=routes, fallback=("Local",))
    rules = {"a": Rules(models=("Groq/*",)), "b": Rules(models=("fast",))}
    others: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {},
        "/v1/completions": {"prompt": "hi"},
        "/v1/embeddings": {"input": "hi"},
        "/api/embed": {"input": "hi"},
    }
    async with stage(tmp_path, rules, settings=settings) as at:
        for path, body in others.items():
            refused = await at.say("a", model="Groq/groq-1", provider="Local", path=path, **body)
            assert refused.status == 403, path
        assert (await at.say("a", model="fast")).status == 200
        assert (await at.say("b", model="fast")).status == 200
        candidates = (await at.get("b", "/v1/routes/fast")).json["candidates"]
        assert [one["provider"] for one in candidates] == ["Groq"]


async def test_lists_show_only_what_a_key_reaches(tmp_path: Path, routed: Settings) -> None:
    rules = {"one": Rules(providers=("groq",)), "two": Rules(models=("Groq/groq-1", "fast")), "all": Rules()}
    async with stage(tmp_path, rules, settings=routed) as at:
        models = {
            name: {one["id"] for one in (await at.get(name, "/v1/models")).json["data"]} for name in rules
        }
        assert models["two"] == {"fast", "groq-1", "Groq/groq-1"} & models["all"]
        assert models["one"] == {name for name in models["all"] if "local" not in name.lower()}
        assert len(models["all"]) > len(models["one"]) > len(models["two"]) > 0
        providers = {
            name: [one["name"] for one in (await at.get(name, "/v1/providers")).json["data"]]
            for name in rules
        }
        assert providers == {"one": ["Groq"], "two": ["Local", "Groq"], "all": ["Local", "Groq"]}
        assert (await at.get("one", "/v1/providers/Local")).status == 403
        assert (await at.get("one", "/v1/models/Local")).status == 404
        tags = {one["name"] for one in (await at.get("two", "/api/tags")).json["models"]}
        assert {tag.removesuffix(":latest") for tag in tags} == models["two"]


async def test_requests_a_minute_are_limited_and_told(tmp_path: Path) -> None:
    async with stage(tmp_path, {"a": Rules(requests_per_minute=2), "b": Rules()}) as at:
        first = await at.say("a")
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert (await at.say("a", stream=True)).status == 200
        refused = await at.say("a")
        assert refused.status == 429
        assert refused.json["error"]["code"] == "rate_limit_exceeded"
        assert refused.json["error"]["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        other = await at.say("b")
        assert other.status == 200
        assert not [name for name in other.headers if name.startswith("x-ratelimit")]


async def test_tokens_count_as_the_upstream_told_them(tmp_path: Path) -> None:
    used: Script = [TextDelta(text="x"), Finish(usage=Usage(40, 50))]
    async with stage(tmp_path, {"a": Rules(tokens_per_minute=100)}, used) as at:
        assert (await at.say("a")).headers["x-ratelimit-remaining-tokens"] != "10"
        refused = await at.say("a", max_tokens=50)
        assert refused.status == 429
        assert refused.headers["x-ratelimit-remaining-tokens"] == "10"


async def test_answers_at_the_same_time_are_limited_and_given_back(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    waiting: Script = [TextDelta(text="x"), go_on, *says("y")]
    async with stage(tmp_path, {"a": Rules(streams=1)}, waiting, says("z")) as at:
        held = asyncio.create_task(at.say("a", stream=True))
        account = at.gateway.accounts._accounts
        await until(lambda: "a" in account and account["a"].running)
        assert (await at.say("a")).status == 429
        go_on.set()
        assert (await held).status == 200
        await until(lambda: not account["a"].running)
        assert (await at.say("a")).status == 200


async def test_the_whole_server_is_limited(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    local = Scripted("Local", [TextDelta(text="x"), go_on, *says("y")], says("z"))
    settings = ServerSettings(port=0, max_concurrent_requests=1)
    async with serving(gateway_of([local], tmp_path), settings=settings) as address:
        body = {"messages": [{"role": "user", "content": "hi"}]}
        held = asyncio.create_task(ask(address, "POST", "/v1/chat/completions", "", body))
        await until(lambda: local.requests)
        refused = await ask(address, "POST", "/v1/chat/completions", "", body)
        assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert (await ask(address, "GET", "/healthz")).status == 200
        go_on.set()
        assert (await held).status == 200
        assert (await ask(address, "POST", "/v1/chat/completions", "", body)).status == 200


async def test_turns_that_go_on_without_their_clients_count_as_well(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    local = Scripted("Local", [TextDelta(text="x"), go_on, *says("y")], says("z"))
    settings = ServerSettings(port=0, max_concurrent_requests=1)
    gateway = gateway_of([local], tmp_path)
    async with serving(gateway, settings=settings) as address:
        body = {"input": "hi", "model": "Local"}
        later = await ask(address, "POST", "/v1/responses", "", {**body, "background": True})
        assert later.status == 200
        refused = await ask(address, "POST", "/v1/responses", "", body)
        assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
        go_on.set()
        await until(lambda: not gateway.live.is_answering)
        assert (await ask(address, "POST", "/v1/responses", "", body)).status == 200


async def test_answers_that_are_asked_for_on_the_page_count_as_well(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    local = Scripted("Local", [TextDelta(text="x"), go_on, *says("y")], says("z"))
    settings = ServerSettings(port=0, max_concurrent_requests=1)
    gateway = gateway_of([local], tmp_path)
    async with serving(gateway, settings=settings) as address:
        body = {"messages": [{"role": "user", "content": "hi"}]}
        sent = await ask(address, "POST", "/page/send", "", {"text": "hi"})
        assert sent.status == 200
        for path, asked in (
            ("/v1/chat/completions", body),
            ("/page/send", {"text": "more"}),
            ("/page/send", {"text": "more", "temporary": "t"}),
            ("/page/test", {"provider": "Local"}),
        ):
            refused = await ask(address, "POST", path, "", asked)
            assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded"), path
        assert (await ask(address, "GET", "/page/list")).status == 200
        assert len(await gateway.conversations.list("local")) == 1
        stopped = {"conversation": sent.json["conversation"]}
        assert (await ask(address, "POST", "/page/stop", "", stopped)).status == 200
        assert (await ask(address, "POST", "/page/send", "", {"text": "more"})).status == 200
        go_on.set()


async def test_counts_of_tokens_are_requests(tmp_path: Path) -> None:
    async with stage(tmp_path, {"a": Rules(requests_per_minute=2)}) as at:
        paths = ["/v1/messages/count_tokens", "/v1/responses/input_tokens", "/v1/messages/count_tokens"]
        found = [(await at.say("a", path=path, input="hi")).status for path in paths]
        assert found[2] == 429
        assert 429 not in found[:2]
        assert at.gateway.accounts._accounts["a"].running == 0


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not-kept"])
async def test_a_budget_is_spent_and_then_refused(tmp_path: Path, *, kept: bool) -> None:
    fields = {"conversation_id": "talk"} if kept else {}
    # Each answer of two pieces is three tokens.
    async with stage(tmp_path, {"a": Rules(daily_budget=6 * TOKEN)}, says("x", "y")) as at:
        first = await at.say("a", **fields)
        assert first.headers["x-modelway-cost"] == f"{3 * TOKEN / NANOS:.9f}"
        assert first.headers["x-modelway-budget-daily-remaining"] == f"{6 * TOKEN / NANOS:.6f}"
        assert (await at.say("a", stream=True, **fields)).status == 200
        refused = await at.say("a", **fields)
        assert refused.status == 429
        assert refused.json["error"]["code"] == refused.json["error"]["type"] == "insufficient_quota"
        assert refused.headers["x-should-retry"] == "false"
        assert refused.headers["x-modelway-budget-daily-remaining"] == "0.000000"
        assert "retry-after" not in refused.headers
        usage = (await until_written(at, 2)).json
        (line,) = usage["data"]
        assert (line["caller"], line["provider"], line["model"]) == ("a", "Local", "local-1")
        assert (line["input_tokens"], line["output_tokens"], line["estimated"]) == (2, 4, 0)
        assert usage["cost"] == line["cost"] == 6 * TOKEN / NANOS
        if kept:
            shown = (await at.get("a", "/v1/conversations/talk")).json
            assert [turn["cost"] for turn in shown["turns"]] == [3 * TOKEN / NANOS] * 2
    # What was spent is known to the next server on the same database.
    gateway = gateway_of([Scripted("Local")], tmp_path)
    async with serving(gateway, Auth({})) as address:
        again = await ask(
            address,
            "POST",
            "/v1/chat/completions",
            at.keys["a"],
            {"messages": [{"role": "user", "content": "hi"}]},
        )
        assert again.status == 429


async def until_written(at: Stage, requests: int) -> Reply:
    while True:
        reply = await at.get("a", "/v1/usage")
        if sum(one["requests"] for one in reply.json["data"]) >= requests:
            return reply


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not-kept"])
async def test_what_came_of_a_broken_answer_is_charged_by_its_length(tmp_path: Path, *, kept: bool) -> None:
    broken: Script = [TextDelta(text="x" * 400), UpstreamProtocolError("cut", code="upstream_truncated")]
    fields = {"conversation_id": "talk"} if kept else {}
    async with stage(tmp_path, {"a": Rules(daily_budget=NANOS)}, broken) as at:
        await at.say("a", stream=True, **fields)
        (line,) = (await until_written(at, 1)).json["data"]
        assert (line["input_tokens"], line["output_tokens"]) == (5, 100)
        assert (line["estimated"], line["requests"]) == (1, 1)
        assert line["cost"] == 105 * TOKEN / NANOS


async def test_what_failed_before_its_first_word_costs_nothing(tmp_path: Path) -> None:
    async with stage(
        tmp_path, {"a": Rules(streams=1, daily_budget=NANOS)}, [UpstreamFailed("no")], says("x")
    ) as at:
        assert (await at.say("a", conversation_id="talk")).status in (200, 502)
        assert (await at.say("a")).status == 200
        (line,) = (await until_written(at, 1)).json["data"]
        assert line["requests"] <= 2
        assert at.gateway.accounts._accounts["a"].running == 0


async def test_two_servers_share_a_budget(tmp_path: Path) -> None:
    rules = {"a": Rules(daily_budget=3 * TOKEN)}
    async with (
        stage(tmp_path, rules, says("x", "y")) as at,
        serving(gateway_of([Scripted("Local")], tmp_path), Auth({})) as other,
    ):
        assert (await at.say("a")).status == 200
        body = {"messages": [{"role": "user", "content": "hi"}]}
        while (await ask(other, "POST", "/v1/chat/completions", at.keys["a"], body)).status != 429:
            pass


async def test_each_caller_is_told_its_own_spending_only(tmp_path: Path) -> None:
    async with stage(tmp_path, {"a": Rules(), "b": Rules()}, says("x")) as at:
        await at.say("a")
        assert (await until_written(at, 1)).json["cost"] > 0
        assert (await at.get("b", "/v1/usage")).json["data"] == []
        assert (await at.get("a", "/v1/usage?from=2020-01-01&to=2020-02-01")).json["data"] == []
        wrong = await at.get("a", "/v1/usage?from=yesterday")
        assert (wrong.status, wrong.json["error"]["param"]) == (400, "from")


@pytest.mark.parametrize("max_tokens", [None, 2])
async def test_answers_at_the_same_time_do_not_overrun_a_budget(
    tmp_path: Path, max_tokens: int | None
) -> None:
    go_on = asyncio.Event()
    slow: Script = [TextDelta(text="x"), go_on, TextDelta(text="y"), Finish(usage=Usage(5, 2))]
    fields: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
    async with stage(tmp_path, {"a": Rules(daily_budget=20 * TOKEN)}, *[slow] * 40) as at:
        asked = [asyncio.create_task(at.say("a", **fields)) for _ in range(40)]
        accounts = at.gateway.accounts._accounts
        # One that came only now would find room again.
        await until(
            lambda: "a" in accounts and sum(one.done() for one in asked) + accounts["a"].running == 40
        )
        assert accounts["a"].running <= 10
        go_on.set()
        replies = await asyncio.gather(*asked)
        assert (await until_written(at, 1)).json["cost"] < (20 + 7) * TOKEN / NANOS
        refused = next(one for one in replies if one.status != 200)
        assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
        # What was kept for them and not needed is free again.
        assert accounts["a"].reserved == accounts["a"].running == 0
        if max_tokens is None:
            assert (await at.say("a")).status == 200

"""What a provider says of itself is true: what it lists in `params` reaches its upstream, the rest not."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelway.testing import FakeStage
from modelway.types import ChatRequest, Message, Params, ResponseFormat, Tool, ToolChoice
from tests.contract.test_providers import STAGES, marked
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

LOOK = Tool("look", "Looks", {"type": "object", "properties": {}})
SCHEMA = ResponseFormat("json_schema", "answer", {"type": "object", "properties": {}})
# An effect of each parameter that no upstream has unasked.
EFFECTS: dict[str, Params] = {
    "temperature": Params(temperature=0.25),
    "top_p": Params(top_p=0.25),
    "max_tokens": Params(max_tokens=77),
    "stop": Params(stop=("END",)),
    "seed": Params(seed=77),
    "n": Params(n=2),
    "presence_penalty": Params(presence_penalty=0.25),
    "frequency_penalty": Params(frequency_penalty=0.25),
    "reasoning_effort": Params(reasoning_effort="low"),
    "tools": Params(tools=(LOOK,)),
    "tool_choice": Params(tools=(LOOK,), tool_choice=ToolChoice("none")),
    "parallel_tool_calls": Params(tools=(LOOK,), parallel_tool_calls=False),
    "response_format": Params(response_format=SCHEMA),
}
# Without these the parameter cannot be told at all.
BASES = {name: Params(tools=(LOOK,)) for name in ("tool_choice", "parallel_tool_calls")}
MODELS = {"Gemini": "gemini-3-flash", "Vertex": "gemini-3-flash", "Local": "model-a", "Ollama": "model-a"}
# These have no body to compare: Copilot is given words.
PROVIDERS = [name for name in STAGES if name != "Copilot"]


def test_every_parameter_has_an_effect_here() -> None:
    assert EFFECTS.keys() == set(Params.__struct_fields__)


@pytest.fixture
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[FakeStage]:
    async with STAGES[request.param]() as stage:
        assert isinstance(stage, FakeStage)
        yield stage


async def told(stage: FakeStage, params: Params) -> bytes:
    """What the upstream is sent for these parameters."""
    stage.say("ok")
    name = stage.provider.info.name
    request = ChatRequest(
        messages=(Message(role="user", content="Hi"),), model=MODELS.get(name, "claude-x"), params=params
    )
    async with aclosing(stage.provider.stream(request)) as events:
        async for _ in events:
            pass
    return stage._upstream.requests[-1].body


@pytest.mark.parametrize("stage", [marked(name) for name in PROVIDERS], indirect=True)
async def test_what_is_declared_is_told(stage: FakeStage) -> None:
    info = stage.provider.info
    for name in info.params:
        if name == "response_format" and "json_schema" not in info.supports:
            continue
        if name in ("tools", "tool_choice", "parallel_tool_calls") and "tools" not in info.supports:
            continue
        base = await told(stage, BASES.get(name, Params()))
        assert await told(stage, EFFECTS[name]) != base, name


async def test_what_was_left_out_stands_in_the_header_and_in_the_answer(tmp_path: Path) -> None:
    local = Scripted("Local", params=("temperature",), supports=("system",), dialect="")
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
        "seed": 1,
        "user": "ada",
        "max_tokens": 9,
    }
    async with serving(gateway_of([local], tmp_path)) as address, httpx.AsyncClient() as client:
        url = f"{address}/v1/chat/completions"
        whole = await client.post(url, json=body)
        streamed = await client.post(url, json={**body, "stream": True})
        plain = await client.post(url, json={"messages": body["messages"]})
        refused = await client.post(url, json={**body, "n": 2})
    assert whole.headers["x-modelway-ignored"] == streamed.headers["x-modelway-ignored"]
    assert whole.headers["x-modelway-ignored"] == "max_tokens, seed, user"
    assert whole.json()["ignored"] == ["max_tokens", "seed", "user"]
    assert '"ignored":["max_tokens","seed","user"]' in streamed.text.partition("\n\n")[0]
    assert local.requests[0].params == Params(temperature=0.5)
    assert "x-modelway-ignored" not in plain.headers
    assert "ignored" not in plain.json()
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "n")
    assert "Local" in error["message"]

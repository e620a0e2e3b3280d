"""What OpenAI's and Anthropic's SDKs make of a key's limits."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from modelway.prices import NANOS
from modelway.types import Rules
from tests.e2e.test_limits import TOKEN, stage
from tests.scripted import says

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
pytestmark = pytest.mark.anyio


async def test_openai_s_sdk_does_not_repeat_what_a_spent_budget_refuses(tmp_path: Path) -> None:
    rules = {"a": Rules(daily_budget=3 * TOKEN), "ops": Rules()}
    async with stage(tmp_path, rules, says("x", "y")) as at:

        def talk() -> None:
            with openai.OpenAI(base_url=f"{at.address}/v1", api_key=at.keys["a"], max_retries=3) as client:
                messages = [{"role": "user", "content": "hi"}]
                raw = client.chat.completions.with_raw_response.create(model="Local", messages=messages)
                assert raw.headers["x-modelway-cost"] == f"{3 * TOKEN / NANOS:.9f}"
                with pytest.raises(openai.RateLimitError) as caught:
                    client.chat.completions.create(model="Local", messages=messages)
                assert caught.value.code == "insufficient_quota"
                assert caught.value.type == "insufficient_quota"
                assert [model.id for model in client.models.list()]

        await anyio.to_thread.run_sync(talk)
        figures = (await at.get("ops", "/v1/figures")).json
    (refused,) = (one for one in figures["errors"] if one["code"] == "insufficient_quota")
    assert refused["count"] == 1


async def test_anthropic_s_sdk_understands_the_limits_in_its_own_format(tmp_path: Path) -> None:
    async with stage(tmp_path, {"a": Rules(requests_per_minute=1, models=("Local/*",))}, says("x")) as at:

        def talk() -> None:
            with anthropic.Anthropic(base_url=at.address, api_key=at.keys["a"], max_retries=0) as client:
                messages = [{"role": "user", "content": "hi"}]
                with pytest.raises(anthropic.PermissionDeniedError):
                    client.messages.create(model="Groq", max_tokens=5, messages=messages)
                client.messages.create(model="Local", max_tokens=5, messages=messages)
                with pytest.raises(anthropic.RateLimitError) as caught:
                    client.messages.create(model="Local", max_tokens=5, messages=messages)
                assert 1 <= int(caught.value.response.headers["retry-after"]) <= 61
                assert caught.value.body["error"]["type"] == "rate_limit_error"

        await anyio.to_thread.run_sync(talk)

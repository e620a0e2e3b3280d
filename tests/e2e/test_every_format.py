"""What real programs send in their own format reaches every upstream, with all that it says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.test_providers import STAGES
from tests.serving import gateway_of, serving

pytestmark = pytest.mark.anyio

UPSTREAMS = ("OpenAI", "LMStudio", "Anthropic", "Bedrock", "Gemini", "Vertex", "Ollama")
MODELS = {"Gemini": "gemini-3-flash", "Vertex": "gemini-3-flash"}
PNG = "iVBORw0KGgoAAAANSUhEUg=="
FACTS = (
    "You write code",
    "Read the plan",
    "plan.md",
    "Reads a file",
    "step one",
    "Go on",
)

CACHED = {"cache_control": {"type": "ephemeral"}}
# As Claude Code writes it.
CLAUDE: dict[str, Any] = {
    "max_tokens": 32000,
    "stream": True,
    "system": [{"type": "text", "text": "You write code", **CACHED}],
    "metadata": {"user_id": "user_1"},
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "tools": [
        {
            "name": "Read",
            "description": "Reads a file",
            "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
            "eager_input_streaming": True,
            **CACHED,
        }
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Read the plan", **CACHED}]},
        {"role": "system", "content": "The time is noon"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "A file", "signature": "signed"},
                {"type": "text", "text": "I read it"},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "plan.md"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "step one", **CACHED},
                {"type": "text", "text": "Go on", **CACHED},
            ],
        },
    ],
}
# As a chat window for Ollama writes it.
OLLAMA: dict[str, Any] = {
    "stream": True,
    "keep_alive": "5m",
    "think": False,
    "options": {"temperature": 0.5, "num_ctx": 8192, "num_predict": 64, "stop": ["END"]},
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "Read",
                "description": "Reads a file",
                "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
            },
        }
    ],
    "messages": [
        {"role": "system", "content": "You write code"},
        {"role": "user", "content": "Read the plan", "images": [PNG]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "Read", "arguments": {"path": "plan.md"}}}],
        },
        {"role": "tool", "tool_name": "Read", "content": "step one"},
        {"role": "user", "content": "Go on"},
    ],
}
# As Codex writes it.
CODEX: dict[str, Any] = {
    "stream": True,
    "store": False,
    "instructions": "You write code",
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "a-thread",
    "client_metadata": {"thread_id": "a-thread"},
    "tools": [
        {
            "type": "function",
            "name": "Read",
            "description": "Reads a file",
            "strict": False,
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        },
        {
            "type": "namespace",
            "name": "agents",
            "description": "Others who work",
            "tools": [
                {
                    "type": "function",
                    "name": "spawn",
                    "strict": False,
                    "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
                }
            ],
        },
    ],
    "input": [
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "The time is noon"}],
        },
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Read the plan"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "A file"}], "content": None},
        {
            "type": "function_call",
            "name": "Read",
            "arguments": '{"path":"plan.md"}',
            "call_id": "call_1",
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "step one"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go on"}]},
    ],
}
SHAPE = {"type": "object", "properties": {"next": {"type": "string"}}, "required": ["next"]}


class Programs:
    """Asks every upstream in every format."""

    def __init__(self, client: httpx.AsyncClient, stages: dict[str, Any]) -> None:
        self._client = client
        self._stages = stages

    async def ask(self, path: str, name: str, body: dict[str, Any]) -> tuple[str, str]:
        """The whole reply, and what the upstream was sent."""
        self._stages[name].say("Step", " two")
        model = f"{name}/{MODELS.get(name, 'model-a')}"
        reply = await self._client.post(path, json={"model": model, **body})
        assert reply.status_code == 200, reply.text
        return reply.text, self._stages[name]._upstream.requests[-1].body.decode()


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[Programs]:
    async with AsyncExitStack() as stack:
        stages = {name: await stack.enter_async_context(STAGES[name]()) for name in UPSTREAMS}
        gateway = gateway_of([stage.provider for stage in stages.values()], tmp_path)
        address = await stack.enter_async_context(serving(gateway))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=address))
        yield Programs(client, stages)


async def test_what_claude_code_sends_reaches_every_upstream(programs: Programs) -> None:
    for name in UPSTREAMS:
        reply, sent = await programs.ask("/v1/messages", name, CLAUDE)
        assert "Step" in reply
        assert reply.rstrip().endswith('{"type":"message_stop"}'), name
        assert {fact: sent.count(fact) for fact in FACTS} == dict.fromkeys(FACTS, 1), name
        assert "The time is noon" in sent, name
        assert "toolu_1" in sent or "plan.md" in sent


async def test_what_a_chat_window_for_ollama_sends_reaches_every_upstream(programs: Programs) -> None:
    for name in UPSTREAMS:
        reply, sent = await programs.ask("/api/chat", name, OLLAMA)
        lines = [json.loads(line) for line in reply.splitlines()]
        assert "".join(line["message"]["content"] for line in lines) == "Step two"
        assert lines[-1]["done"] is True
        assert {fact: sent.count(fact) for fact in (*FACTS, PNG)} == dict.fromkeys((*FACTS, PNG), 1), name
        assert all(word in sent for word in ("0.5", "64", "END")), name


async def test_what_codex_sends_reaches_every_upstream(programs: Programs) -> None:
    for name in UPSTREAMS:
        reply, sent = await programs.ask("/v1/responses", name, CODEX)
        events = [json.loads(line[6:]) for line in reply.splitlines() if line.startswith("data: ")]
        assert events[-1]["type"] == "response.completed", name
        assert {fact: sent.count(fact) for fact in FACTS} == dict.fromkeys(FACTS, 1), name
        assert "The time is noon" in sent, name
        assert "agents__spawn" in sent, name


async def test_a_schema_in_ollama_s_format_reaches_every_upstream(programs: Programs) -> None:
    asked = {"messages": [{"role": "user", "content": "What next?"}], "format": SHAPE, "stream": False}
    for name in UPSTREAMS:
        _, sent = await programs.ask("/api/chat", name, asked)
        assert '"next"' in sent.replace('\\"', '"'), name


async def test_a_tool_of_the_vendor_s_own_is_refused_by_its_name_everywhere_else(
    tmp_path: Path, programs: Programs
) -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    asked = {**CLAUDE, "tools": [*CLAUDE["tools"], search]}
    for name in UPSTREAMS:
        reply = await programs._client.post("/v1/messages", json={"model": f"{name}/model-a", **asked})
        if name == "Anthropic":
            assert reply.status_code == 200
        else:
            assert reply.status_code == 400
            assert "tools[1].type" in reply.json()["error"]["message"]

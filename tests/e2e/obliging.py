"""A server in a thread, for programs that block, before an upstream whose model does what it is asked to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelway.testing.fake_upstream import FakeUpstream, Received
from modelway.types import ToolCall
from tests.e2e.test_relay import relaying

_EXAMPLES: dict[str, Any] = {
    "integer": 3,
    "number": 3,
    "boolean": True,
    "null": None,
    "string": "你好, こんにちは, blue",
}


def oblige(upstream: FakeUpstream) -> None:
    """Call the tool that is demanded, or the first one once; write what a schema wants; else talk."""
    upstream.decide(lambda request: _answer(upstream, request))


def _answer(upstream: FakeUpstream, request: Received) -> None:
    asked = request.json
    format = asked.get("response_format") or {}
    last = asked["messages"][-1]
    tool = _tool(asked)
    if tool and last["role"] != "tool":
        name, schema = tool["name"], tool.get("parameters") or {}
        upstream.reply(calls=[ToolCall("call_1", name, json.dumps(example(schema)))])
    elif format.get("type") == "json_schema":
        upstream.reply(json.dumps(example(format["json_schema"]["schema"])))
    elif format.get("type") == "json_object":
        upstream.reply('{"setup":"Why?",', '"punchline":"Because."}')
    elif last["role"] == "tool":
        upstream.reply("It said: ", str(last["content"])[:200])
    else:
        upstream.reply("Hello, ", "I am ", "obliging.")


def _tool(asked: dict[str, Any]) -> Any:
    """The tool to call, if one is to be called."""
    tools, choice = asked.get("tools") or [], asked.get("tool_choice", "auto")
    if not tools or choice == "none":
        return None
    named = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["function"]["name"]
    return next(tool["function"] for tool in tools if tool["function"]["name"] == named)


def example(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """A value that a JSON schema permits, as far as programs write such schemas."""
    root = root or schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return example((root.get("$defs") or root.get("definitions") or {})[name], root)
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return example(schema[word][0], root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: example(inner, root) for name, inner in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [example(schema.get("items") or {"type": "string"}, root)]
    return _EXAMPLES[kind[0] if isinstance(kind, list) else kind]


@contextmanager
def obliging(folder: Path) -> Iterator[str]:
    """Serve in a thread; gives the address, without /v1. The model is called Fake/m."""
    told: list[str] = []
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with FakeUpstream() as upstream, relaying(upstream, folder) as caller:
            oblige(upstream)
            told.append(caller.address)
            ready.set()
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        yield told[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)

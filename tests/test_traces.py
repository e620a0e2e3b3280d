"""Spans: what one tells, whose trace it is part of, and that it reaches a collector."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from modelway.auth import Auth
from modelway.config import ServerSettings
from modelway.errors import UpstreamProtocolError
from modelway.server.app import Application
from modelway.telemetry import RequestRecord, Telemetry, open_traces
from modelway.testing.fake_upstream import closed_port
from tests.scripted import Script, Scripted, says
from tests.serving import gateway_of

pytest.importorskip("opentelemetry.sdk")
pytestmark = pytest.mark.anyio

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def spans_of(
    folder: Path, *scripts: Script, headers: Any = (), path: str = "/v1/chat/completions"
) -> Any:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    traces = open_traces(exporter)
    gateway = gateway_of([Scripted("Mistral", *scripts)], folder)
    application = Application(gateway, Auth({}), Telemetry(traces=traces), ServerSettings())
    body = {"messages": [{"role": "user", "content": "a secret question"}], "conversation_id": "hidden"}
    await ask(application, path, body, headers)
    await gateway.aclose()
    traces.close()
    return exporter.get_finished_spans()


async def ask(application: Application, path: str, body: Any, headers: Any) -> None:
    received = [{"type": "http.request", "body": json.dumps(body).encode()}]

    async def receive() -> Any:
        if not received:
            await asyncio.Event().wait()
        return received.pop(0)

    async def send(message: Any) -> None:
        del message

    own = [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": own}
    await application(scope, receive, send)


async def test_a_span_tells_what_was_asked_of_whom_and_no_text(tmp_path: Path) -> None:
    (span,) = await spans_of(tmp_path, says("a secret ", "answer"))
    told = dict(span.attributes)
    assert span.name == "chat mistral-1"
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "mistral_ai"
    assert told["gen_ai.request.model"] == "mistral-1"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1, 2)
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["http.response.status_code"] == 200
    assert 0 < told["gen_ai.response.time_to_first_chunk"] < 60
    assert "error.type" not in told
    assert span.parent is None
    assert span.end_time > span.start_time
    assert span.resource.attributes["service.name"] == "modelway"
    assert "secret" not in span.to_json()
    assert "hidden" not in span.to_json()


async def test_a_span_is_part_of_the_trace_of_whoever_asks(tmp_path: Path) -> None:
    (span,) = await spans_of(tmp_path, headers=[(b"traceparent", PARENT.encode())])
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]


async def test_a_parent_that_is_none_is_left_out(tmp_path: Path) -> None:
    (span,) = await spans_of(tmp_path, headers=[(b"traceparent", b"nonsense")])
    assert span.parent is None


async def test_a_failure_is_told_by_its_code(tmp_path: Path) -> None:
    (span,) = await spans_of(tmp_path, [UpstreamProtocolError("a secret reason")])
    assert span.attributes["error.type"] == "upstream_malformed"
    assert span.status.is_ok is False
    assert span.attributes["gen_ai.provider.name"] == "mistral_ai"
    assert "upstream_malformed" in span.attributes["modelway.attempts"]
    assert "secret" not in span.to_json()


async def test_what_no_upstream_was_asked_for_has_no_span(tmp_path: Path) -> None:
    assert await spans_of(tmp_path, path="/v1/nowhere/at/all") == ()


async def test_spans_reach_a_collector(tmp_path: Path) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    heard: list[bytes] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        heard.append(head + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(collect, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        traces = open_traces(OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces"))
        gateway = gateway_of([Scripted("Mistral")], tmp_path)
        application = Application(gateway, Auth({}), Telemetry(traces=traces), ServerSettings())
        await ask(application, "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, ())
        await gateway.aclose()
        await anyio.to_thread.run_sync(traces.close)
    assert heard[0].startswith(b"POST /v1/traces ")
    assert b"chat mistral-1" in heard[0] or b"gzip" in heard[0].lower()


async def test_a_collector_that_is_not_there_does_not_keep_the_server_from_ending() -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    traces = open_traces(OTLPSpanExporter(f"http://127.0.0.1:{closed_port()}/v1/traces"))
    traces.end(RequestRecord(time=1.0, request_id="r", provider="P", model="m", status=200))
    begun = time.monotonic()
    await anyio.to_thread.run_sync(traces.close)
    assert time.monotonic() - begun < 5

"""The log line of a request: what it holds, and what it does not."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from modelway.auth import Auth
from modelway.config import ServerSettings
from modelway.server.app import Application
from modelway.telemetry import Attempt, Telemetry, trail
from tests.scripted import Scripted, says
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio


async def logged(folder: Path, caplog: pytest.LogCaptureFixture, telemetry: Telemetry) -> dict[str, Any]:
    caplog.set_level(logging.INFO, "modelway.request")
    gateway = gateway_of([Scripted("Local", says("a secret ", "answer"))], folder)
    application = Application(gateway, Auth({}), telemetry, ServerSettings())
    body = {"messages": [{"role": "user", "content": "a secret question"}], "conversation_id": "hidden"}
    received = [{"type": "http.request", "body": json.dumps(body).encode()}]

    async def receive() -> Any:
        if not received:
            await asyncio.Event().wait()
        return received.pop(0)

    async def send(message: Any) -> None:
        del message

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    await application(
        {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "query_string": b"",
            "headers": headers,
        },
        receive,
        send,
    )
    await gateway.aclose()
    (record,) = (record for record in caplog.records if record.name == "modelway.request")
    line: dict[str, Any] = json.loads(record.getMessage())
    return line


@pytest.mark.check(38)
async def test_a_request_is_one_line_without_its_texts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = await logged(tmp_path, caplog, Telemetry())
    assert (line["provider"], line["model"], line["status"]) == ("Local", "local-1", 200)
    assert (line["output_tokens"], line["finish_reason"], line["caller"]) == (2, "stop", "local")
    assert line["attempts"][0]["provider"] == "Local"
    assert "secret" not in caplog.text
    assert "hidden" not in caplog.text


async def test_the_texts_are_logged_where_the_user_asks_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = await logged(tmp_path, caplog, Telemetry(prompts=True))
    assert (line["messages"], line["answer"]) == (["a secret question"], "a secret answer")


def test_the_line_of_a_request_tells_of_no_more_attempts_than_its_header(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "modelway.request")
    telemetry = Telemetry()
    record = telemetry.start("req_1")
    record.attempts += [Attempt("Local", "m", 1.0, f"code_{n}") for n in range(23)]
    telemetry.end(record)
    (line,) = map(json.loads, caplog.messages)
    assert [one["code"] for one in line["attempts"]] == [f"code_{n}" for n in range(3, 23)]
    assert line["earlier_attempts"] == 3
    assert len(trail(record.attempts).split(", ")) == len(line["attempts"])

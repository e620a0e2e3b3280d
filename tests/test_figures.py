"""The figures: what is counted, that names cannot make them grow, and how they are told."""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import anyio
import pytest

from modelway.errors import UpstreamFailed
from modelway.telemetry import Attempt, Figures, RequestRecord, Telemetry, expose
from modelway.telemetry.figures import MOST_MODELS, tokens_per_s
from modelway.types import TextDelta
from tests.polling import until
from tests.scripted import Scripted, says
from tests.serving import gateway_of, serving

SAMPLE = re.compile(r'modelway_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? \S+')


def record(model: str = "m", **fields: Any) -> RequestRecord:
    start: dict[str, Any] = {
        "time": 1000.0,
        "request_id": "",
        "provider": "P",
        "status": 200,
        "total_ms": 50.0,
    }
    return RequestRecord(model=model, **{**start, **fields})


def samples(figures: Figures) -> dict[str, float]:
    lines = expose(figures).decode().splitlines()
    assert all(line.startswith("# ") or SAMPLE.fullmatch(line) for line in lines)
    values = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in values}


def test_tokens_bytes_cost_and_times_are_added_up() -> None:
    figures = Figures()
    for _ in range(2):
        figures.count(
            record(input_tokens=5, output_tokens=7, bytes_in=10, bytes_out=20, cost=0.25, first_ms=20.0)
        )
    told = samples(figures)
    names = '{provider="P",model="m",dialect=""}'
    assert told[f"modelway_input_tokens_total{names}"] == 10
    assert told[f"modelway_output_tokens_total{names}"] == 14
    assert told[f"modelway_request_bytes_total{names}"] == 20
    assert told[f"modelway_reply_bytes_total{names}"] == 40
    assert told[f"modelway_cost_dollars_total{names}"] == 0.5
    assert told['modelway_first_token_seconds_bucket{provider="P",model="m",dialect="",le="0.025"}'] == 2
    assert told[f"modelway_request_seconds_count{names}"] == 2
    assert told['modelway_requests_total{provider="P",model="m",dialect="",status="2xx"}'] == 2


def test_columns_of_a_histogram_only_rise_up_to_the_count() -> None:
    figures = Figures()
    for ms in (1.0, 30.0, 400.0, 90_000.0):
        figures.count(record(total_ms=ms))
    columns = [value for name, value in samples(figures).items() if "request_seconds_bucket" in name]
    assert columns == sorted(columns)
    assert columns[-1] == 4
    assert columns[-2] == 4
    assert columns[0] == 2


def test_errors_and_failed_attempts_are_counted_by_code() -> None:
    figures = Figures()
    tried = [Attempt("A", "x", 1.0, "upstream_timeout"), Attempt("B", "y", 1.0, "upstream_error")]
    figures.count(record("", provider="", status=502, code="upstream_error", attempts=tried))
    told = samples(figures)
    assert told['modelway_errors_total{provider="B",code="upstream_error"}'] == 1
    assert told['modelway_attempts_failed_total{provider="A",model="other",code="upstream_timeout"}'] == 1
    assert told['modelway_requests_total{provider="B",model="other",dialect="",status="5xx"}'] == 1


@pytest.mark.check(38)
def test_random_names_of_models_do_not_make_the_figures_grow() -> None:
    figures = Figures()
    for number in range(1000):
        tried = [Attempt("P", f"no-{number}", 1.0, "model_not_found")]
        figures.count(record("", provider="", status=404, code="model_not_found", attempts=tried))
        figures.count(record(f"bad-{number}", status=404, code="model_not_found"))
    assert len(figures.lines) == 1
    assert len(figures.failures) == 1
    for number in range(1000):
        figures.count(record(f"good-{number}"))
    assert len(figures.lines) == MOST_MODELS + 1
    assert sum(sum(line.statuses) for line in figures.lines.values()) == 3000


def test_names_are_escaped() -> None:
    figures = Figures()
    figures.count(record('a"b\\c\nd'))
    assert rb'model="a\"b\\c\nd"' in expose(figures)


def test_the_hour_forgets_what_is_older() -> None:
    now = 10_000.0
    figures = Figures(clock=lambda: now)
    figures.count(record(time=5_000.0, total_ms=10.0))
    figures.count(record(time=9_000.0, total_ms=10.0, first_ms=100.0, output_tokens=11, stream=True))
    figures.count(record(time=9_001.0, total_ms=1000.0, status=502, code="upstream_error"))
    told = figures.snapshot()["hour"]
    (step,) = told["steps"]
    assert step["at"] == 9_000
    assert step["providers"]["P"]["requests"] == 2
    assert step["providers"]["P"]["errors"] == 1
    assert step["providers"]["P"]["first_ms_p50"] == pytest.approx(100, rel=0.2)
    assert told["from"] == 10_000 - 3600 + 10


def test_tokens_per_second_are_counted_from_the_first_token() -> None:
    assert tokens_per_s(record(output_tokens=10, stream=True, first_ms=500.0, total_ms=1500.0)) == 10
    assert tokens_per_s(record(output_tokens=10, first_ms=1500.0, total_ms=2000.0)) == 5
    assert tokens_per_s(record(output_tokens=1, total_ms=2000.0)) == 0
    assert tokens_per_s(record(output_tokens=10, stream=True, first_ms=5.0, total_ms=5.0)) == 0


@pytest.mark.check(38)
@pytest.mark.anyio
async def test_a_server_tells_its_figures_and_no_text(tmp_path: Path) -> None:
    local = Scripted("Local", says("a ", "secret"), [UpstreamFailed("no")])
    async with serving(gateway_of([local], tmp_path)) as address:
        await anyio.to_thread.run_sync(ask, address)
        await anyio.to_thread.run_sync(ask_in_vain, address)
        text = (await anyio.to_thread.run_sync(fetch, f"{address}/metrics")).decode()
        told = json.loads(await anyio.to_thread.run_sync(fetch, f"{address}/v1/figures"))
    names = 'provider="Local",model="local-1",dialect="openai_chat"'
    assert f'modelway_requests_total{{{names},status="2xx"}} 1' in text
    assert 'modelway_errors_total{provider="Local",code="upstream_error"} 1' in text
    assert "modelway_requests_running 1\n" in text
    assert "secret" not in text
    assert "talk-77" not in text
    line = next(line for line in told["lines"] if line["model"] == "local-1")
    assert (line["requests"], line["output_tokens"]) == ({"2xx": 1, "5xx": 1}, 2)
    assert line["bytes_out"] > 0
    assert "secret" not in json.dumps(told)


@pytest.mark.anyio
async def test_open_streams_are_told(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    local = Scripted("Local", [TextDelta(text="x"), go_on, *says("y")])
    async with serving(gateway_of([local], tmp_path)) as address:
        asking = asyncio.create_task(asyncio.to_thread(ask, address, stream=True))
        await until(lambda: local.requests)
        during = (await asyncio.to_thread(fetch, f"{address}/metrics")).decode()
        go_on.set()
        await asking
        after = (await asyncio.to_thread(fetch, f"{address}/metrics")).decode()
    assert "modelway_streams_open 1\n" in during
    assert "modelway_streams_open 0\n" in after


@pytest.mark.anyio
async def test_a_turn_that_is_read_twice_is_counted_once(tmp_path: Path) -> None:
    local = Scripted("Local", says("a ", "b"))
    async with serving(gateway_of([local], tmp_path)) as address:
        for _ in range(3):
            await anyio.to_thread.run_sync(partial(ask, address, key="once"))
        told = json.loads(await anyio.to_thread.run_sync(fetch, f"{address}/v1/figures"))
    assert len(local.requests) == 1
    (line,) = (line for line in told["lines"] if line["provider"])
    assert (line["model"], line["requests"], line["output_tokens"]) == ("local-1", {"2xx": 1}, 2)


@pytest.mark.anyio
async def test_a_turn_runs_once_from_its_beginning_to_its_end_however_many_look_on(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    local, telemetry = Scripted("Local", [TextDelta(text="x"), go_on, *says("y")]), Telemetry()
    figures = telemetry.figures
    async with serving(gateway_of([local], tmp_path), telemetry=telemetry) as address:
        asked = [asyncio.create_task(asyncio.to_thread(ask, address, "once", stream=True)) for _ in range(2)]
        await until(lambda: local.requests and len(figures.aside) == 2)
        assert figures.running == 1
        told = json.loads(await asyncio.to_thread(fetch, f"{address}/v1/figures"))
        assert told["running"] == 2  # the turn, and who asks for the figures
        go_on.set()
        await asyncio.gather(*asked)
        await until(lambda: figures.open == 0)
        assert figures.aside == set()


def ask(address: str, key: str = "", *, stream: bool = False) -> None:
    messages = [{"role": "user", "content": "a secret"}]
    body = {"messages": messages, "conversation_id": "talk-77", "stream": stream}
    headers = {"content-type": "application/json", **({"idempotency-key": key} if key else {})}
    fetch(Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), headers))


def ask_in_vain(address: str) -> None:
    with pytest.raises(HTTPError, match="502") as caught:
        ask(address)
    caught.value.close()


def fetch(request: str | Request) -> bytes:
    with urlopen(request) as reply:
        text: bytes = reply.read()
        return text

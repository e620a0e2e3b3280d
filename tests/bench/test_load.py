"""The load generator counts what it sent and what came back."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from modelway.bench.contestants import Contestant, LoadProcess
from modelway.bench.load import ID_MARK, Load, LoadRun, count_events, fault, request_count, send_time
from modelway.bench.processes import free_port
from modelway.bench.upstream import END_OF_TEXT, plain_response

PLAIN = plain_response(json.dumps({"text": END_OF_TEXT}).encode())


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[int]:
    """A server that answers each request by a function of its body; None closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                reply = answer(await reader.readexactly(length))
                if reply is None:
                    break
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_a_limited_closed_loop_gets_exactly_its_answers(direct: Contestant, load: LoadProcess) -> None:
    result = load.run(Load(port=direct.port, body=direct.body("bench:json", stream=False), requests=200))
    assert (result.requests, result.errors) == (200, {})
    assert result.latency.count == result.first_chunk.count == 200
    assert result.elapsed_s > 0


def test_a_stream_counts_its_events(direct: Contestant, load: LoadProcess) -> None:
    body = direct.body("bench:sse:50", stream=True)
    result = load.run(Load(port=direct.port, body=body, stream=True, min_events=50, requests=20))
    assert (result.requests, result.errors, result.chunks) == (20, {}, 1000)


def test_an_open_loop_sends_its_rate_and_sees_the_gaps(direct: Contestant, load: LoadProcess) -> None:
    body = direct.body("bench:paced:5:10", stream=True)
    spec = Load(port=direct.port, body=body, stream=True, min_events=10, rate=100, duration_s=0.2)
    result = load.run(spec)
    assert (result.requests, result.errors, result.chunks) == (20, {}, 200)
    assert result.late.count == 20
    assert 0 < result.gap.count <= 180


def test_one_process_puts_on_load_after_load(direct: Contestant, load: LoadProcess) -> None:
    spec = Load(port=direct.port, body=direct.body("bench:json", stream=False), requests=5, connections=2)
    assert [load.run(spec).requests for _ in range(3)] == [5, 5, 5]


@pytest.mark.anyio
async def test_every_request_has_a_text_of_its_own() -> None:
    seen: Counter[str] = Counter()

    def note(body: bytes) -> bytes:
        seen[json.loads(body)["id"]] += 1
        return PLAIN

    async with answering(note) as port:
        spec = Load(port=port, body=json.dumps({"id": ID_MARK}), requests=30, connections=3, run="r1")
        result = await LoadRun(spec).run()
    assert (result.requests, result.errors) == (30, {})
    assert len(seen) == 30
    assert all(name.startswith("r1-") for name in seen)


@pytest.mark.anyio
async def test_an_answer_that_is_cut_is_an_error_and_the_load_goes_on() -> None:
    count = 0

    def every_fifth_is_cut(_: bytes) -> bytes | None:
        nonlocal count
        count += 1
        return None if count % 5 == 0 else PLAIN

    async with answering(every_fifth_is_cut) as port:
        result = await LoadRun(Load(port=port, body="{}", requests=50, connections=1)).run()
    assert (result.requests, result.errors) == (40, {"cut": 10})


@pytest.mark.anyio
async def test_a_server_that_closes_after_each_answer_is_no_error() -> None:
    closing = PLAIN.replace(b"\r\ncontent-type", b"\r\nconnection: close\r\ncontent-type")
    async with answering(lambda _: closing) as port:
        result = await LoadRun(Load(port=port, body="{}", requests=10, connections=2)).run()
    assert (result.requests, result.errors) == (10, {})


@pytest.mark.anyio
async def test_answers_that_never_come_end_with_the_grace() -> None:
    async with answering(lambda _: b"") as port:
        spec = Load(port=port, body="{}", rate=50, duration_s=0.1, grace_s=0.1, connections=2)
        result = await LoadRun(spec).run()
    assert (result.requests, result.errors) == (0, {"unfinished": 5})


@pytest.mark.anyio
async def test_where_nobody_listens_the_load_ends() -> None:
    result = await LoadRun(Load(port=free_port(), body="{}", connections=3)).run()
    assert (result.requests, result.errors) == (0, {"connect": 3})


@pytest.mark.parametrize(
    ("status", "stream", "body", "expected"),
    [
        (200, False, END_OF_TEXT.encode(), ""),
        (200, False, b"The quick brown", "short"),
        (502, False, END_OF_TEXT.encode(), "http_502"),
        (200, True, b"data: {}\n\n" * 3 + b"data: [DONE]\n\n", ""),
        (200, True, b"data: {}\n\n" * 2 + b"data: [DONE]\n\n", "short"),
        (200, True, b"data: {}\n\n" * 3, "no_end"),
        (200, True, b'data: {}\n\ndata: {"error": {}}\n\ndata: [DONE]\n\n', "error_event"),
    ],
)
def test_only_a_whole_answer_counts(status: int, stream: bool, body: bytes, expected: str) -> None:
    spec = Load(port=1, body="", stream=stream, min_events=3)
    assert fault(spec, status, body) == expected


def test_comments_and_the_end_marker_are_no_events() -> None:
    assert count_events(b": keep-alive\n\ndata: {}\n\ndata: {}\n\ndata: [DONE]\n\n") == 2


def test_send_times_count_from_the_start() -> None:
    assert send_time(10.0, 200, 0) == 10.0
    assert send_time(10.0, 200, 400) == 12.0


def test_the_number_of_requests_of_an_open_loop() -> None:
    assert request_count(Load(port=1, body="", rate=200, duration_s=2)) == 400
    assert request_count(Load(port=1, body="", rate=200, duration_s=2, requests=7)) == 7
    assert request_count(Load(port=1, body="", rate=1, duration_s=0.1)) == 1

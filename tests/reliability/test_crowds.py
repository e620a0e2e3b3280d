"""What many clients do to a server, and what they do not."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from statistics import linear_regression, median

import httpx
import pytest

from tests.e2e.running import Running
from tests.reliability.crowds import (
    connections,
    descriptors,
    has_come,
    healthy_ms,
    read_stream,
    resident_mb,
    sockets,
    stream_of,
    talking_to,
    threads,
    told,
    worked_ticks,
)
from tests.reliability.killing import config_for, upstream

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc"),
]

Note = Callable[[str, object], None]

HASTY = """
    [server]
    head_timeout_s = 2
    body_timeout_s = 4
    write_timeout_s = 4
"""
SLOW_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with upstream() as base_url, Running(tmp_path, config=config_for(base_url) + HASTY) as running:
        yield running


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Running]:
    """A server with the limits that it has by itself."""
    with upstream() as base_url, Running(tmp_path, config=config_for(base_url)) as running:
        yield running


@pytest.mark.check(2)
async def test_fifty_streams_end_well_when_the_server_is_asked_to_end(
    server: Running, record_property: Note
) -> None:
    async with talking_to(server) as client:
        streams = [
            # Three seconds: the question below must come before they are all at their end.
            asyncio.create_task(read_stream(client, stream_of("paced:20:150", conversation_id=f"c{number}")))
            for number in range(50)
        ]
        await until(lambda: connections(server.pid) > 100)
        os.kill(server.pid, signal.SIGTERM)
        reply = await client.get("/v1/models")
        while reply.status_code == 200:
            reply = await client.get("/v1/models")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "shutting_down")
        assert reply.headers["retry-after"] == "1"
        ended = await asyncio.gather(*streams)
    # A second signal could meet an interpreter that has taken its handlers down.
    assert await asyncio.to_thread(server.ended) == 0
    assert all(stream.rstrip().endswith("data: [DONE]") for stream in ended)
    record_property("figure", "50 of 50 streams whole, exit code 0")


@pytest.mark.check(22)
async def test_five_hundred_slow_clients_are_hung_up_on_and_harm_nobody(
    server: Running, record_property: Note
) -> None:
    before = connections(server.pid)
    with sockets(server.address, 500, SLOW_HEAD) as slow:
        async with talking_to(server) as client:
            begun = time.monotonic()
            dripping = asyncio.create_task(drip(slow))
            taken = await healthy_ms(client, 20)
            await until(lambda: connections(server.pid) < before + 20)
            dripping.cancel()
    record_property("figure", f"500 closed after {time.monotonic() - begun:.1f} s (limit 2 s); {told(taken)}")


@pytest.mark.check(28)
async def test_a_hundred_clients_that_do_not_read_are_cut_off_in_bounded_memory(
    tmp_path: Path, record_property: Note
) -> None:
    request = post(stream_of("sse:100000", provider="Flood"))
    async with AsyncExitStack() as stack:
        # The upstream that floods them is busy with that alone.
        calm, flood = stack.enter_context(upstream()), stack.enter_context(upstream())
        flooding = f'[providers.Flood]\nbase_url = "{flood}"\ndefault_model = "bench"\n'
        config = config_for(calm) + flooding + HASTY
        server = stack.enter_context(Running(tmp_path, config=config))
        client = await stack.enter_async_context(talking_to(server))
        await healthy_ms(client, 20)
        before, idle = connections(server.pid), resident_mb(server.pid)
        with sockets(server.address, 100, request) as deaf:
            await until(lambda: all(map(has_come, deaf)))
            await until_it_rests(server.pid)
            taken = await healthy_ms(client, 20)
            most = resident_mb(server.pid)
            assert connections(server.pid) > before + 100
            await until(lambda: connections(server.pid) < before + 20)
    assert most - idle < 64
    record_property("figure", f"100 that do not read: {most - idle:+.0f} MB, then cut off; {told(taken)}")


@pytest.mark.check(28)
async def test_a_thousand_open_streams_fit_into_400_mb(server: Running, record_property: Note) -> None:
    request = post(stream_of("paced:5000:4"))
    async with talking_to(server) as client:
        await healthy_ms(client, 20)
        alone = await healthy_ms(client, 50)
        before, idle = connections(server.pid), resident_mb(server.pid)
        with sockets(server.address, 1000, request) as streams:
            # They are open, and their beginnings are written.
            await until(lambda: connections(server.pid) > before + 1900)
            await until_it_rests(server.pid)
            taken = await healthy_ms(client, 50)
            most = resident_mb(server.pid)
            ended = await asyncio.to_thread(read_all, streams)
    assert ended == 1000
    assert most < 400
    record_property(
        "figure",
        f"1,000 streams: {most:.0f} MB ({most - idle:.0f} KB each); {told(taken)}, "
        f"{median(alone):.1f} ms (median) without them",
    )


def read_all(streams: list[socket.socket]) -> int:
    """How many of these streams come to their end."""
    ended = 0
    for connection in streams:
        connection.settimeout(30)
        received = b""
        while b"[DONE]" not in received and (piece := connection.recv(65536)):
            received += piece
        ended += b"[DONE]" in received
    return ended


@pytest.mark.check(8)
async def test_what_streams_take_is_given_back(patient: Running, record_property: Note) -> None:
    record_property("figure", await soak(patient, seconds=8, streams=20))


@pytest.mark.check(8)
@pytest.mark.long
async def test_half_an_hour_under_fifty_streams_leaves_nothing_behind(
    patient: Running, record_property: Note
) -> None:
    record_property("figure", await soak(patient, seconds=1800, streams=50, most_mb_in_10_minutes=1.0))


async def soak(
    server: Running, *, seconds: float, streams: int, most_mb_in_10_minutes: float | None = None
) -> str:
    """Let streams follow each other; what the process holds afterwards, in words."""
    async with talking_to(server) as client:
        await healthy_ms(client, 50)
        await asyncio.gather(*(read_stream(client, stream_of("paced:20:30")) for _ in range(streams)))
    await until(lambda: connections(server.pid) < 20 + streams)
    before = descriptors(server.pid), threads(server.pid)
    readings: list[tuple[float, float]] = []
    answered = 0
    async with talking_to(server) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # New ones each time: what is remembered of long conversations fills its bounded cache for hours.
            names = [f"soak-{answered + number}" for number in range(streams // 2)]
            kept = [stream_of("paced:20:30", conversation_id=name) for name in names]
            bodies = [*kept, *[stream_of("sse:50")] * (streams - len(kept))]
            try:
                ended = await asyncio.gather(*(read_stream(client, body) for body in bodies))
            except httpx.TransportError as error:
                raise AssertionError(f"after {answered} streams: {error!r}; {server.log[-20:]}") from error
            assert all(stream.rstrip().endswith("data: [DONE]") for stream in ended)
            answered += streams
            readings.append((time.monotonic(), resident_mb(server.pid)))
    await until(lambda: descriptors(server.pid) <= before[0] + streams)
    assert threads(server.pid) <= before[1] + 2
    # The first third fills caches, whose size is bounded.
    settled = readings[len(readings) // 3 :]
    slope = linear_regression(*zip(*settled, strict=True)).slope * 600 if len(settled) > 2 else 0.0
    if most_mb_in_10_minutes is not None:
        assert slope < most_mb_in_10_minutes, [round(mb, 1) for _, mb in readings[:: len(readings) // 30 + 1]]
    grown = f"{slope:+.2f} MB in 10 minutes" if most_mb_in_10_minutes is not None else "too short for a slope"
    return f"{answered} streams in {seconds:g} s, {readings[-1][1]:.0f} MB ({grown})"


async def drip(slow: list[socket.socket]) -> None:
    """Send a byte on each connection, again and again."""
    while True:
        for connection in slow:
            with suppress(OSError):
                connection.send(b"x")
        await asyncio.sleep(0.2)


def post(body: dict[str, object]) -> bytes:
    data = json.dumps(body).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(data) + data
    )


async def until_it_rests(pid: int) -> None:
    """Wait until a process has nothing to do."""
    async with asyncio.timeout(60):
        before, quiet = worked_ticks(pid), 0
        # On a busy machine it may only be waiting for its turn.
        while quiet < 5:
            await asyncio.sleep(0.1)
            now = worked_ticks(pid)
            before, quiet = now, quiet + 1 if now <= before + 1 else 0


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.05)

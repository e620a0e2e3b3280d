"""Where the time of a request goes, without any socket: `python -m tests.bench.profile_path`.

One process holds the server's protocol, the gateway and the client for upstreams; transports that only pass
bytes on stand for both networks. For each kind of request it tells the CPU time, and the calls in Python of
each part of the path, with the share of the time that they take under the profiler.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import json
import pstats
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from modelway.auth import Auth
from modelway.config import ProviderSettings, RouteSettings, ServerSettings, Settings
from modelway.gateway import Gateway
from modelway.keys import ApiKey, hash_key
from modelway.providers import http
from modelway.server.app import Application
from modelway.server.protocol import Protocol
from modelway.telemetry import Telemetry
from modelway.types import Rules
from modelway.wiring import build

CONNECTIONS = 16
REQUESTS = 1600
BATCHES = 7
EVENTS = 50
KINDS = ("json", "sse50", "paced")
# What is done beside relaying: nothing; the turn is stored; that, for a key with limits, over a route.
WORKS = RELAYED, STORED, ALL = "relayed", "stored", "stored, with key, limits and route"
PARTS = (
    ("server/protocol", "HTTP, to the caller"),
    ("server/corking", "HTTP, to the caller"),
    ("server/cycle", "HTTP, to the caller"),
    ("uvicorn/", "HTTP, to the caller"),
    ("server/", "endpoint"),
    ("providers/", "HTTP, to the upstream"),
    ("dialects/", "formats"),
    ("conversations/", "conversations"),
    ("telemetry/", "metrics"),
    ("accounts/", "accounts"),
    ("prices/", "accounts"),
    ("modelway/", "gateway"),
)
_COMMON = {"id": "chatcmpl-1", "created": 1, "model": "bench"}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + _json({**_COMMON, "object": "chat.completion.chunk", "choices": [choice]}) + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answers(kind: str) -> list[bytes]:
    """What an upstream answers, read by read."""
    if kind == "json":
        message = {"role": "assistant", "content": "x" * 700}
        usage = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = _json({**_COMMON, "object": "chat.completion", "choices": [choice], "usage": usage})
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        return [head + body]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    words = [_chunk(_event({"content": f"word{number} "})) for number in range(EVENTS)]
    end = _chunk(_event({}, "stop")) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return [head + b"".join(words) + end] if kind == "sse50" else [head, *words, end]


class Wire:
    """What both transports have of a socket's."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: 0

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("sockname", "peername") else default


class Upstream(Wire):
    """Answers each request that is written to it, a read in each turn of the loop."""

    def __init__(self, connection: Any, reads: list[bytes]) -> None:
        self._connection = connection
        self._reads = reads
        self._loop = asyncio.get_running_loop()

    def write(self, request: bytes) -> None:
        self._loop.call_soon(self._read, 0)

    def abort(self) -> None:
        self._loop.call_soon(self._connection.connection_lost, None)

    def _read(self, place: int) -> None:
        data = self._reads[place]
        if place + 1 < len(self._reads):
            self._loop.call_soon(self._read, place + 1)
        self._connection.get_buffer(-1)[: len(data)] = data
        self._connection.buffer_updated(len(data))


class Caller(Wire):
    """One connection of a caller's, who asks again when it has its answer."""

    def __init__(self, config: uvicorn.Config, *, stream: bool) -> None:
        self._stream = stream
        self._done = asyncio.Event()
        self._protocol = Protocol(config=config, server_state=ServerState(), app_state={})
        self._protocol.connection_made(self)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        if not self._stream or data.endswith(b"0\r\n\r\n"):
            self._done.set()

    async def ask(self, fields: dict[str, Any]) -> None:
        body = _json(fields)
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:1337\r\ncontent-type: application/json\r\n"
            f"accept: */*\r\nuser-agent: x\r\nauthorization: Bearer x\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._done.clear()
        self._protocol.data_received(head.encode() + body)
        await self._done.wait()


@asynccontextmanager
async def bench_of(folder: Path, kind: str, work: str) -> AsyncIterator[Bench]:
    """A gateway for some kind of answers that does so much with them, one of WORKS."""
    reads, dial = answers(kind), vars(http)["dial"]

    async def short_wire(origin: Any, make: Any, **_: Any) -> Any:
        connection = make()
        connection.connection_made(Upstream(connection, reads))
        return connection

    provider = ProviderSettings(base_url="http://127.0.0.1:1/v1", default_model="bench", needs_auth=False)
    route = RouteSettings(candidates=("Bench/bench", "Bench2/bench"))
    settings = Settings(
        provider="Bench", providers={"Bench": provider, "Bench2": provider}, routes={"bench-route": route}
    )
    gateway = build(settings, data_dir=folder)
    auth = Auth({})
    if work == ALL:
        much = 10**8
        rules = Rules(requests_per_minute=much, tokens_per_minute=much, streams=much)
        auth.learn([ApiKey(name="bench", digest=hash_key("x"), hint="", rules=rules)])
    vars(http)["dial"] = short_wire
    try:
        yield Bench(gateway, auth, kind, work)
    finally:
        vars(http)["dial"] = dial
        await gateway.aclose()


class Bench:
    """A gateway between callers and upstreams that are no sockets."""

    def __init__(self, gateway: Gateway, auth: Auth, kind: str, work: str) -> None:
        self._stream = kind != "json"
        self._stored = work != RELAYED
        self._model = "bench-route" if work == ALL else "bench"
        application = Application(gateway, auth, Telemetry(), ServerSettings())
        config = uvicorn.Config(
            application,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        config.load()
        self._callers = [Caller(config, stream=self._stream) for _ in range(CONNECTIONS)]
        self._asked = 0

    async def ask(self, requests: int) -> None:
        await asyncio.gather(*(self._ask(caller, requests // CONNECTIONS) for caller in self._callers))

    async def _ask(self, caller: Caller, requests: int) -> None:
        fields: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": "What is the fastest way home?"}],
            "stream": self._stream,
        }
        for _ in range(requests):
            self._asked += 1
            if self._stored:
                fields["conversation_id"] = f"c{self._asked}"
            await caller.ask(fields)


async def measure(kind: str, work: str) -> tuple[float, Counter[str], Counter[str]]:
    """Microseconds of a request; its calls, and the profiler's microseconds, by the part of the path."""
    with tempfile.TemporaryDirectory() as folder:
        async with bench_of(Path(folder), kind, work) as bench:
            await bench.ask(320)
            gc.freeze()
            gc.set_threshold(20_000, 20, 20)
            requests = REQUESTS if kind == "json" else REQUESTS // 4
            batches = []
            for _ in range(BATCHES):
                begun = time.process_time()
                await bench.ask(requests)
                batches.append((time.process_time() - begun) / requests * 1e6)
            stats = await profiled(bench, requests)
    return min(batches), *by_part(stats, requests)


async def profiled(bench: Bench, requests: int) -> pstats.Stats:
    """What the profiler says of so many requests."""
    profile = cProfile.Profile()
    profile.enable()
    await bench.ask(requests)
    profile.disable()
    return pstats.Stats(profile)


def by_part(stats: Any, requests: int) -> tuple[Counter[str], Counter[str]]:
    """Calls and microseconds of each part; what is written in C belongs to who calls it."""
    calls: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for (file, _, _), (_, count, own, _, callers) in stats.stats.items():
        if file != "~":
            calls[part_of(file)] += count
            spent[part_of(file)] += own
            continue
        for (caller, _, _), (_, count_of, own_of, _) in callers.items():
            calls[part_of(caller)] += count_of
            spent[part_of(caller)] += own_of
    return (
        Counter({part: round(count / requests) for part, count in calls.items()}),
        Counter({part: round(seconds / requests * 1e6) for part, seconds in spent.items()}),
    )


def part_of(file: str) -> str:
    """The part of the path that a file belongs to."""
    if file.endswith("profile_path.py") or "/json/" in file:
        return "this measurement"
    return next((part for place, part in PARTS if place in file), "the loop, and others")


def main() -> None:
    """Print both tables."""
    for kind in sys.argv[1:] or KINDS:
        for work in WORKS:
            microseconds, calls, spent = asyncio.run(measure(kind, work))
            name = f"{kind}, {work}"
            ours = sum(count for part, count in spent.items() if part != "this measurement")
            print(f"\n{name}: {microseconds:.0f} µs of CPU time a request, this measurement's own included")
            for part, count in calls.most_common():
                share = "" if part == "this measurement" else f"{100 * spent[part] / ours:4.0f} %"
                print(f"  {part:24} {count:5} calls {share}")


if __name__ == "__main__":
    main()

"""A load generator: asks for chat completions over keep-alive connections and counts what comes back.

A closed loop keeps every connection busy; an open loop sends at a fixed rate and counts latency from the
moment at which a request should have been sent, so that a stalled gateway cannot hide its waiting
callers. Run as a process it reads a Load a line from its input and writes a LoadResult a line.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from array import array
from collections import Counter, deque
from typing import cast

import httptools
import msgspec
from msgspec import Struct, field

from modelway.bench.loop import run
from modelway.bench.stats import Percentiles, percentiles
from modelway.bench.upstream import END_OF_TEXT, STAMP, STAMP_DIGITS

ID_MARK = "@ID@"
"""Where it stands in a body, each request puts a text that no other request has."""


class Load(Struct, frozen=True, kw_only=True):
    """What to send, how often and for how long.

    `rate` in requests per second is an open loop, 0 a closed one. `requests` limits their number (0: only
    the duration does). An answer with less than `min_events` events counts as an error; for `stream`
    False the text's own end marker is looked for. `run` begins the texts that replace ID_MARK. `stamped`
    events say when they were sent.
    """

    host: str = "127.0.0.1"
    port: int
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = {}
    body: str
    stream: bool = False
    stamped: bool = False
    min_events: int = 0
    connections: int = 16
    duration_s: float = 2.0
    rate: float = 0.0
    requests: int = 0
    run: str = "run"
    grace_s: float = 10.0


class LoadResult(Struct, frozen=True, kw_only=True):
    """What came back. `chunks` are events without the end marker; times are in milliseconds.

    `began`, by the clock that all processes share, is when everybody was connected. `event_age` is how long
    events were on their way from the upstream, the first of each read, once all requests have been sent.
    `late` tells by how much the generator itself missed the intended send times; `cpu_s` what it used.
    """

    requests: int
    errors: dict[str, int] = field(default_factory=dict)
    chunks: int = 0
    began: float = 0.0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    latency: Percentiles = Percentiles()
    first_chunk: Percentiles = Percentiles()
    gap: Percentiles = Percentiles()
    event_age: Percentiles = Percentiles()
    late: Percentiles = Percentiles()


def send_time(started: float, rate: float, index: int) -> float:
    """When request `index` of an open loop should be sent; counted from the start, never from the last."""
    return started + index / rate


def request_count(load: Load) -> int:
    """How many requests an open loop sends."""
    return load.requests or max(1, round(load.rate * load.duration_s))


def fault(load: Load, status: int, body: bytes) -> str:
    """What is wrong with an answer, "" where it is whole."""
    if status != 200:
        return f"http_{status}"
    if not load.stream:
        return "" if END_OF_TEXT.encode() in body else "short"
    if b'data: {"error"' in body:
        return "error_event"
    if b"[DONE]" not in body[-64:]:
        return "no_end"
    return "short" if count_events(body) < load.min_events else ""


def count_events(body: bytes) -> int:
    """Events of a stream; the end marker is none."""
    return body.count(b"data:") - body.count(b"data: [DONE]")


def ages(data: bytes) -> list[float]:
    """How long the first event of a read was on its way, in milliseconds; [] where it does not say."""
    begin = data.find(STAMP) + len(STAMP)
    digits = data[begin : begin + STAMP_DIGITS]
    if begin < len(STAMP) or len(digits) < STAMP_DIGITS or not digits.isdigit():
        return []
    return [(time.monotonic_ns() // 1000 - int(digits)) / 1000]


class _Connection(asyncio.Protocol):
    """One keep-alive connection; its owner gives it one request at a time."""

    def __init__(self, owner: LoadRun) -> None:
        self._owner = owner
        self._transport: asyncio.Transport
        self._parts: list[bytes] = []
        # The parser calls the list itself: no Python frame for each HTTP chunk.
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
        self._done = False
        self._stays = True
        self.busy = False
        self.intended = self.first = self._last = 0.0

    def ask(self, request: bytes, intended: float) -> None:
        """Send a request; the owner is told when its answer is whole."""
        self.busy, self._done = True, False
        self.intended, self.first = intended, 0.0
        self._parts.clear()
        self._transport.write(request)

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return not self._transport.is_closing()

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse, and note when body bytes came."""
        now = time.perf_counter()
        before = len(self._parts)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()
            return
        if len(self._parts) > before:
            if self.first:
                self._owner.gaps.append((now - self._last) * 1000)
            else:
                self.first = now
            self._last = now
            if self._owner.stamped and self._owner.all_due:
                self._owner.ages.extend(ages(data))
        if self._done:
            self._finish(now)

    def on_message_complete(self) -> None:
        """The answer's last byte is parsed; only now does the parser know whether the connection stays."""
        self._done = True
        self._stays = self._parser.should_keep_alive()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, who counts an unfinished answer as cut."""
        self._owner.lost(self)

    def _finish(self, now: float) -> None:
        self.busy = False
        if not self._stays:
            self._transport.close()
        self._owner.answered(self, self._parser.get_status_code(), b"".join(self._parts), now)


class LoadRun:
    """One load from its first connection to its last answer."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._head, self._body_parts = _request_parts(load)
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._waiting: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent = self._outstanding = self._whole = self._chunks = 0
        self._stopped = False
        self._over, self._closed = asyncio.Event(), asyncio.Event()
        self._errors: Counter[str] = Counter()
        self._latency, self._first, self._late = array("d"), array("d"), array("d")
        self._started = self._ended = self._began = 0.0
        self.gaps, self.ages = array("d"), array("d")
        self.stamped, self.all_due = load.stamped, False

    async def run(self) -> LoadResult:
        """Send everything, wait for the answers, count."""
        cpu = time.process_time()
        load = self._load
        await self._connect_all()
        self._started = self._ended = time.perf_counter()
        self._began = time.monotonic()
        if load.rate:
            pacer = threading.Thread(target=self._pace, args=(asyncio.get_running_loop(),), daemon=True)
            pacer.start()
        else:
            for connection in [self._idle.pop() for _ in range(len(self._idle))]:
                self._release(connection)
        self._check_over()
        try:
            async with asyncio.timeout(load.duration_s + load.grace_s):
                await self._over.wait()
        except TimeoutError:
            self._errors["unfinished"] += self._outstanding + len(self._waiting)
        await self._close()
        return self._result(time.process_time() - cpu)

    def answered(self, connection: _Connection, status: int, body: bytes, now: float) -> None:
        """Count an answer and give its connection the next request."""
        self._outstanding -= 1
        self._ended = now
        problem = fault(self._load, status, body)
        if problem:
            self._errors[problem] += 1
        else:
            self._whole += 1
            self._latency.append((now - connection.intended) * 1000)
            self._first.append((connection.first - connection.intended) * 1000)
            self._chunks += count_events(body) if self._load.stream else 0
        if connection.usable:
            self._release(connection)

    def lost(self, connection: _Connection) -> None:
        """Replace a connection that the other side closed; an answer under way is an error."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._stopped:
            self._check_closed()
            return
        if connection.busy:
            self._outstanding -= 1
            self._errors["cut"] += 1
        task = asyncio.get_running_loop().create_task(self._open())
        self._tasks.add(task)
        task.add_done_callback(self._reconnected)

    async def _connect_all(self) -> None:
        # In batches, as a server's backlog may be short.
        for begin in range(0, self._load.connections, 64):
            size = min(64, self._load.connections - begin)
            await asyncio.gather(*(self._open() for _ in range(size)))

    def _reconnected(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._idle and not self._stopped:
            self._release(self._idle.pop())
        self._check_over()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self), self._load.host, self._load.port
            )
        except OSError:
            self._errors["connect"] += 1
            return
        self._all.add(connection)
        self._idle.append(connection)

    def _pace(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the loop for each request (a thread sleeps to 0.1 ms, the loop's own timers to 1 ms)."""
        for index in range(request_count(self._load)):
            due = send_time(self._started, self._load.rate, index)
            time.sleep(max(0.0, due - time.perf_counter()))
            if self._stopped:
                return
            loop.call_soon_threadsafe(self._due, due)
        loop.call_soon_threadsafe(self._last_due)

    def _due(self, intended: float) -> None:
        self._late.append((time.perf_counter() - intended) * 1000)
        self._waiting.append(intended)
        if self._idle:
            self._release(self._idle.pop())

    def _last_due(self) -> None:
        self.all_due = True
        self._check_over()

    def _release(self, connection: _Connection) -> None:
        intended = self._next_send_time()
        if intended is None:
            self._idle.append(connection)
            self._check_over()
            return
        self._sent += 1
        self._outstanding += 1
        connection.ask(self._request(), intended)

    def _next_send_time(self) -> float | None:
        if self._load.rate:
            return self._waiting.popleft() if self._waiting else None
        return time.perf_counter() if self._more() else None

    def _more(self) -> bool:
        """Whether requests are still to come: by the clock in a closed loop, by the pacer in an open one."""
        if self._load.rate:
            return bool(self._waiting) or not self.all_due
        below_limit = not self._load.requests or self._sent < self._load.requests
        return below_limit and time.perf_counter() - self._started < self._load.duration_s

    def _check_over(self) -> None:
        if not self._outstanding and (not self._more() or not (self._all or self._tasks)):
            self._over.set()

    def _check_closed(self) -> None:
        if not self._all:
            self._closed.set()

    def _request(self) -> bytes:
        if len(self._body_parts) == 1:
            return self._head + self._body_parts[0]
        return self._head + b"".join(
            (self._body_parts[0], _unique(self._load, self._sent), self._body_parts[1])
        )

    async def _close(self) -> None:
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        for connection in list(self._all):
            connection.abort()
        self._check_closed()
        await self._closed.wait()

    def _result(self, cpu_s: float) -> LoadResult:
        return LoadResult(
            requests=self._whole,
            errors=dict(self._errors),
            chunks=self._chunks,
            began=self._began,
            elapsed_s=self._ended - self._started,
            cpu_s=cpu_s,
            latency=percentiles(self._latency),
            first_chunk=percentiles(self._first),
            gap=percentiles(self.gaps),
            event_age=percentiles(self.ages),
            late=percentiles(self._late),
        )


def _request_parts(load: Load) -> tuple[bytes, list[bytes]]:
    parts = [part.encode() for part in load.body.split(ID_MARK, 1)]
    length = sum(map(len, parts)) + (len(_unique(load, 0)) if len(parts) > 1 else 0)
    headers = "".join(f"{name}: {value}\r\n" for name, value in load.headers.items())
    head = (
        f"POST {load.path} HTTP/1.1\r\nhost: {load.host}:{load.port}\r\n{headers}"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
    return head.encode(), parts


def _unique(load: Load, number: int) -> bytes:
    return b"%b-%09d" % (load.run.encode(), number)


async def _answer(line: bytes) -> None:
    result = await LoadRun(msgspec.json.decode(line, type=Load)).run()
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Run the loads that come on the standard input, one after another."""
    # The pacer shares the interpreter with the loop; the usual 5 ms would be its lateness.
    sys.setswitchinterval(0.0005)
    for line in sys.stdin.buffer:
        run(_answer(line))


if __name__ == "__main__":
    main()

"""An upstream on loopback that fails on demand: the address, or a header, says how.

    http://127.0.0.1:8400/stall:2/v1          says two words, then nothing more
    http://127.0.0.1:8400/status:503+ok/v1    the first request fails, all others are answered

`modelway bench upstream --faulty` serves it, and `FaultyUpstream` is the same inside a test. What it was
sent is in `heard`, and as JSON at /heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from modelway.bench.faults import FAULTS, MODEL, Act, Asked, Step, plain
from modelway.bench.loopback import LoopbackConnection

HEADER = "x-fault"
CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key", "cookie"})
MAX_HEARD = 1000


class Heard(Struct, frozen=True):
    """A request as it came, and what was done with it. Header names are in lower case."""

    fault: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def key(self) -> str:
        """The credential that came with it."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return bearer or self.headers.get("x-api-key", "") or self.headers.get("api-key", "")


class FaultyUpstream:
    """See the module. `connections` counts those that are open."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.heard: deque[Heard] = deque(maxlen=MAX_HEARD)
        self.port = port
        self._host = host
        self._played: Counter[str] = Counter()
        self._open: set[LoopbackConnection] = set()
        self._server: asyncio.Server | None = None
        self._refusing = socket.socket()

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    @property
    def refused_url(self) -> str:
        """The base URL of a port on which nobody listens; it stays so until the end."""
        return f"http://{self._host}:{self._refusing.getsockname()[1]}/v1"

    def url(self, fault: str = "ok") -> str:
        """The base URL under which this goes wrong; several, joined by "+", one after another."""
        return f"http://{self._host}:{self.port}/{fault}/v1"

    def heard_by(self, fault: str) -> list[Heard]:
        """What came for one fault (as it was written in the URL)."""
        return [one for one in self.heard if one.path.startswith(f"/{fault}/")]

    def forget(self) -> None:
        """Begin anew: nothing was heard, and faults that follow each other begin with the first."""
        self.heard.clear()
        self._played.clear()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._refusing.bind((self._host, 0))
        self._server = await loop.create_server(lambda: _Connection(self), self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._refusing.close()
        if self._server is not None:
            self._server.close()
        for connection in list(self._open):
            await connection.end()

    def _steps_for(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Iterable[Step]:
        first, _, rest = path.lstrip("/").partition("/")
        if first == "healthz":
            return [plain(200, b"ok", "text/plain")]
        if first == "heard":
            return [plain(200, _encoded(self.heard))]
        if rest.partition("?")[0].endswith("models"):
            listed = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
            return [plain(200, json.dumps(listed).encode())]
        written = headers.get(HEADER, first)
        chosen = written.split("+")
        turn = min(self._played[written], len(chosen) - 1)
        self._played[written] += 1
        name, _, argument = chosen[turn].partition(":")
        self.heard.append(Heard(chosen[turn], method, path, headers, body))
        fault = FAULTS.get(name)
        if fault is None:
            said = {"error": {"message": f"no such fault; there are {', '.join(FAULTS)}"}}
            return [plain(404, json.dumps(said).encode())]
        return fault.play(Asked(argument, _wants_stream(body), self.port, path))


class _Connection(LoopbackConnection):
    def __init__(self, upstream: FaultyUpstream) -> None:
        super().__init__(upstream._open)
        self._upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Writing waits until all has left: a reset would throw away what has not.
        self.transport.set_write_buffer_limits(0)

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> Coroutine[Any, Any, None]:
        steps = self._upstream._steps_for(method, target, headers, body)
        return self._play(steps, stays=self.parser.should_keep_alive())

    async def _play(self, steps: Iterable[Step], *, stays: bool) -> None:
        for step in steps:
            match step:
                case bytes():
                    self.transport.write(step)
                    await self.writable.wait()
                    await asyncio.sleep(0)
                case float():
                    await asyncio.sleep(step)
                case Act.HANG:
                    await self.lost.wait()
                case Act.CLOSE:
                    self.transport.close()
                case Act.RESET:
                    self.reset()
        if not stays:
            self.transport.close()


async def serve(port: int, announce: Callable[[FaultyUpstream], None]) -> None:
    """Serve until the process is told to end. Raises OSError where the port is taken."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, stop.set)
    async with FaultyUpstream(port=port) as upstream:
        announce(upstream)
        await stop.wait()


def _wants_stream(body: bytes) -> bool:
    try:
        return json.loads(body or b"{}").get("stream") is True
    except (ValueError, AttributeError):
        return False


def _encoded(heard: Iterable[Heard]) -> bytes:
    return json.dumps(
        [
            {
                "fault": one.fault,
                "method": one.method,
                "path": one.path,
                # Enough of a key to tell it from another.
                "key": one.key and f"…{one.key[-4:]}",
                "headers": {name: one.headers[name] for name in one.headers if name not in CREDENTIALS},
                "body": one.body.decode("utf-8", "replace"),
            }
            for one in heard
        ]
    ).encode()

"""Many clients at once: good ones, slow ones, and some that do not read at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import httpx

from tests.e2e.running import Running


def stream_of(mark: str, **fields: object) -> dict[str, object]:
    """The body of a request that the benchmark's upstream answers as `mark` says."""
    return {"messages": [{"role": "user", "content": f"bench:{mark}"}], "stream": True, **fields}


async def read_stream(client: httpx.AsyncClient, body: Mapping[str, object]) -> str:
    """All lines of an answer."""
    async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        return "\n".join([line async for line in reply.aiter_lines()])


def talking_to(server: Running) -> httpx.AsyncClient:
    """A client with as many connections as it likes."""
    return httpx.AsyncClient(base_url=server.address, limits=httpx.Limits(max_connections=None), timeout=60)


async def healthy_ms(client: httpx.AsyncClient, times: int) -> list[float]:
    """How long small requests take, one after another, in milliseconds."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        reply = await client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]}
        )
        assert reply.status_code == 200, reply.text
        taken.append((time.perf_counter() - begun) * 1000)
    return taken


def told(taken: list[float]) -> str:
    """Latencies in words."""
    return (
        f"others answered in {median(taken):.1f} ms (median), {max(taken):.0f} ms (slowest of {len(taken)})"
    )


@contextmanager
def sockets(address: str, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Connections on which these bytes have been sent, and of which nothing is read."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            # With a small buffer, what is not read stands still soon.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", int(address.rpartition(":")[2])))
            connection.sendall(sent)
            connection.setblocking(False)
            opened.append(connection)
        yield opened


def has_come(connection: socket.socket) -> bool:
    """Whether something has come that is not read yet."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def resident_mb(pid: int) -> float:
    """Resident memory, in megabytes."""
    return _status(pid, "VmRSS") / 1024


def threads(pid: int) -> int:
    """How many threads a process has."""
    return _status(pid, "Threads")


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def worked_ticks(pid: int) -> int:
    """How long a process has had the processor, in the system's ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def connections(pid: int) -> int:
    """How many sockets a process has open."""
    return sum(_leads_to(link).startswith("socket:") for link in Path(f"/proc/{pid}/fd").iterdir())


def _leads_to(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        # It has been closed meanwhile.
        return ""


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

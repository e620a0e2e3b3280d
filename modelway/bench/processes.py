"""Starts the processes of a measurement, ends them, and reads from /proc what they use.

Where there is no /proc (not Linux) the readings are None, and the columns that need them stay empty.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

_PROC = Path("/proc")
_LISTEN = "0A"


class BenchError(Exception):
    """The measurement cannot go on; the message says why and what to do."""


class Usage(Struct, frozen=True):
    """CPU seconds, by process id, that a group of process trees has used so far."""

    seconds: dict[int, float]

    def since(self, before: Usage) -> float:
        """CPU seconds used between two readings; a process that ended in between counts as far as seen."""
        return sum(used - before.seconds.get(pid, 0.0) for pid, used in self.seconds.items())


def tree(roots: Collection[int]) -> set[int]:
    """The living processes of `roots` and all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name may hold spaces and brackets; the fields go on behind its last bracket.
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: set[int] = set()
    pending = list(roots)
    while pending:
        pid = pending.pop()
        if pid not in found and (_PROC / str(pid)).exists():
            found.add(pid)
            pending.extend(children.get(pid, []))
    return found


def cpu_usage(roots: Collection[int]) -> Usage | None:
    """CPU time of the trees, with all their threads."""
    if not roots or not _has_proc():
        return None
    seconds = {}
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            seconds[pid] = time.clock_gettime(_cpu_clock(pid))
    return Usage(seconds)


def resident_bytes(roots: Collection[int]) -> int | None:
    """Resident memory of the trees; pages that processes share count in each of them."""
    if not roots or not _has_proc():
        return None
    pages = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            pages += int((_PROC / str(pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def listeners(port: int) -> set[int]:
    """The processes that listen on a TCP port, as far as we may see them."""
    sockets = set(_listening_sockets(port))
    return {int(link.parts[2]) for link in _open_files("[0-9]*") if _target(link) in sockets}


def check_ours(port: int, roots: Collection[int], name: str) -> None:
    """Refuse to measure where a process that we did not start listens on the same port.

    With SO_REUSEPORT a left-over process silently takes part of the load.
    """
    if not _has_proc():
        return
    ours = {_target(link) for pid in tree(roots) for link in _open_files(str(pid))}
    listening = set(_listening_sockets(port))
    if not listening or listening - ours:
        strangers = ", ".join(str(pid) for pid in sorted(listeners(port) - tree(roots)))
        raise BenchError(
            f"port {port} of {name} is not ours alone (process {strangers or 'unknown'}); end it"
        )


def free_port(wanted: int = 0) -> int:
    """A port of 127.0.0.1 that nobody listens on. Raises BenchError where `wanted` is taken."""
    with socket.socket() as probe:
        if os.name == "posix":
            # Connections of a listener that has ended linger for a minute. On Windows it means sharing.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as exc:
            raise BenchError(f"port {wanted} is taken; choose another one") from exc
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def started(
    command: Sequence[str],
    *,
    log: Path,
    settings: Mapping[str, str] | None = None,
    pipes: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process and end it at last; what it complains about goes to `log`."""
    channel = subprocess.PIPE if pipes else subprocess.DEVNULL
    with log.open("ab") as errors:
        process = subprocess.Popen(  # noqa: S603 - the commands are our own
            command,
            stdin=channel,
            stdout=channel if pipes else errors,
            stderr=errors,
            env=child_environment(settings or {}),
        )
    try:
        yield process
    finally:
        _end(process)


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment without the user's own settings of Modelway, which would change what is measured."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MODELWAY_")}
    return {**inherited, **settings}


def wait_until_answers(port: int, process: subprocess.Popen[bytes], log: Path, *, wait_s: float = 30) -> None:
    """Return as soon as the port answers HTTP, whatever the status."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"{_name(process)} ended at once: {_last_lines(log)}")
        with contextlib.suppress(OSError):
            if exchange(port, b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"):
                return
        time.sleep(0.005)
    raise BenchError(f"{_name(process)} did not answer within {wait_s:.0f} s: {_last_lines(log)}")


def exchange(port: int, request: bytes, *, wait_s: float = 10) -> bytes:
    """Send one request on a connection of its own and read until the other side closes it."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_s) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def raise_file_limit() -> None:
    """Allow this process and its children as many connections as the system permits."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - there is none on Windows

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def file_limit() -> int | None:
    """How many files a process may have open; None where nobody says."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - there is none on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def ask_line(process: subprocess.Popen[bytes], line: bytes) -> bytes:
    """Write a line to a child and read the one that it answers."""
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(line)
            process.stdin.flush()
    return readline(process)


def readline(process: subprocess.Popen[bytes]) -> bytes:
    """The next line that a child writes. Raises BenchError where it ended instead."""
    line = process.stdout.readline() if process.stdout else b""
    if not line:
        raise BenchError(f"{_name(process)} ended unexpectedly")
    return line


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _has_proc() -> bool:
    return (_PROC / "self" / "statm").exists()


def _cpu_clock(pid: int) -> int:
    # clock_getcpuclockid(3) of Linux: exact to the nanosecond, where /proc counts in ticks of 10 ms.
    return (~pid << 3) | 2


def _listening_sockets(port: int) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[9]}]"


def _open_files(pid: str) -> Iterator[Path]:
    for folder in _PROC.glob(f"{pid}/fd"):
        with contextlib.suppress(OSError):
            yield from folder.iterdir()


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _name(process: subprocess.Popen[bytes]) -> str:
    command = process.args if isinstance(process.args, list) else []
    return " ".join(str(part) for part in command[:5])


def _last_lines(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").splitlines()[-3:]) or "it wrote nothing"

"""Measures how long it takes until Modelway is there, beside an interpreter that does nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from modelway.bench.contestants import MODELWAY, Contestant
from modelway.bench.gateways import PROVIDER, serve_command
from modelway.bench.processes import (
    BenchError,
    child_environment,
    cpu_usage,
    exchange,
    free_port,
    started,
    wait_until_answers,
)
from modelway.bench.stats import Spread, ratios, spread

NOTHING = "python -c pass"
READY, FIRST_ANSWER = "server ready", "first answer of the server"


class StartupRow(Struct, frozen=True, kw_only=True):
    """One kind of start: CPU and wall time in milliseconds, and both as ratios to `python -c pass`."""

    what: str
    cpu_ms: Spread | None
    cpu_ratio: Spread | None
    wall_ms: Spread | None
    wall_ratio: Spread | None


class Start(Struct, frozen=True):
    """One measured start, in seconds; `cpu_s` is None where the system does not tell."""

    cpu_s: float | None
    wall_s: float


def measure_startup(
    rounds: int, upstream_port: int, folder: Path, step: Callable[[str], None]
) -> list[StartupRow]:
    """Start everything once a round, in a new order each round."""
    starts: dict[str, list[Start]] = {name: [] for name in (*commands(), READY, FIRST_ANSWER)}
    for number in range(rounds):
        for name in random.sample([*commands(), READY], len(commands()) + 1):
            step(f"start, round {number + 1}: {name}")
            if name == READY:
                own = folder / f"{number}-start"
                own.mkdir()
                ready, answered = _start_server(own, upstream_port)
                starts[READY].append(ready)
                starts[FIRST_ANSWER].append(answered)
            else:
                starts[name].append(_run(commands()[name]))
    return [startup_row(name, taken, starts[NOTHING]) for name, taken in starts.items()]


def commands() -> dict[str, list[str]]:
    """What is run to its end."""
    python = sys.executable
    return {
        NOTHING: [python, "-c", "pass"],
        "import modelway": [python, "-c", "import modelway"],
        "modelway --help": [python, "-m", "modelway", "--help"],
    }


def startup_row(what: str, starts: Sequence[Start], nothing: Sequence[Start]) -> StartupRow:
    """Medians, and ratios inside each round."""
    cpu, wall = [start.cpu_s for start in starts], [start.wall_s for start in starts]
    return StartupRow(
        what=what,
        cpu_ms=spread([used * 1000 if used is not None else None for used in cpu]),
        cpu_ratio=ratios(cpu, [start.cpu_s for start in nothing]),
        wall_ms=spread([passed * 1000 for passed in wall]),
        wall_ratio=ratios(wall, [start.wall_s for start in nothing]),
    )


def _run(command: Sequence[str]) -> Start:
    cpu, begun = _children_cpu(), time.perf_counter()
    done = subprocess.run(  # noqa: S603 - the commands are our own
        command, check=False, capture_output=True, env=child_environment({}), timeout=60
    )
    wall, used = time.perf_counter() - begun, _children_cpu()
    if done.returncode:
        raise BenchError(f"{' '.join(command[1:])} ended with status {done.returncode}")
    return Start(used - cpu if used is not None and cpu is not None else None, wall)


def _start_server(folder: Path, upstream_port: int) -> tuple[Start, Start]:
    port, log = free_port(), folder / "modelway.log"
    command, settings = serve_command(folder, upstream_port, port)
    begun = time.perf_counter()
    with started(command, log=log, settings=settings) as process:
        wait_until_answers(port, process, log)
        ready = _since(begun, process.pid)
        _ask(port)
        return ready, _since(begun, process.pid)


def _since(begun: float, pid: int) -> Start:
    wall, usage = time.perf_counter() - begun, cpu_usage([pid])
    return Start(sum(usage.seconds.values()) if usage else None, wall)


def _ask(port: int) -> None:
    body = Contestant(name=MODELWAY, port=port, provider=PROVIDER).body("bench:json", stream=False).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    answer = exchange(port, head.encode() + body)
    if b" 200 " not in answer.partition(b"\r\n")[0]:
        raise BenchError(f"the server's first answer was {json.dumps(answer[:200].decode(errors='replace'))}")


def _children_cpu() -> float | None:
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - there is none on Windows

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

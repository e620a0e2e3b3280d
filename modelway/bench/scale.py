"""Measures how costs grow: with open streams, servers on one store, the length of a conversation."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from msgspec import Struct, field, structs

from modelway.bench.contestants import DIRECT, Contestant, Entrant, LoadProcess, load_process, upstream
from modelway.bench.gateways import beside, entrants, modelway
from modelway.bench.load import LoadResult
from modelway.bench.memory import stream_load, warm_up
from modelway.bench.processes import (
    BenchError,
    cpu_usage,
    file_limit,
    raise_file_limit,
    resident_bytes,
)
from modelway.bench.report import Machine, this_machine
from modelway.bench.stats import Spread, spread
from modelway.bench.turns import WAYS, TurnRow, measure_turns

EVENTS_PER_S = 5000
_LEAST_INTERVAL_MS = 20
_SAMPLE_S = 0.1
_SETTLE_S = 0.3
_WHOLE_CORE = 0.95
# Of one stream: the gateway has a connection to the client and one to the upstream.
_FILES_EACH, _FILES_BESIDE = 2, 100

Step = Callable[[str, int], None]


class ScaleOptions(Struct, frozen=True, kw_only=True):
    """Numbers of streams and of servers, lengths of conversations; empty: none of these."""

    streams: tuple[int, ...] = (100, 1000, 5000)
    servers: tuple[int, ...] = (1, 2)
    turns: tuple[int, ...] = (10, 100, 1000)
    rounds: int = 3
    hold_s: float = 4.0
    duration_s: float = 2.0


class StreamRow(Struct, frozen=True, kw_only=True):
    """A freshly started contestant with `streams` answers under way, an event every `interval_ms` in each.

    `cpu_us` is that of an event, without the opening of the streams; `age` how long events were on their way.
    `busiest` is the share of a core that the upstream or the load generator used, whichever used more.
    """

    contestant: str
    streams: int
    interval_ms: int
    cpu_us: float | None
    per_stream_kb: float | None
    age_p50: float | None
    age_p99: float | None
    delivered: int
    expected: int
    errors: dict[str, int]
    busiest: float


class ServerRow(Struct, frozen=True, kw_only=True):
    """So many servers on one store, each kept busy with stored answers of 1 KB."""

    servers: int
    requests_per_s: Spread | None
    cpu_us: Spread | None
    errors: int


class ScaleReport(Struct, kw_only=True):
    """Everything that was measured."""

    version: int = 1
    machine: Machine
    options: ScaleOptions
    streams: list[StreamRow] = field(default_factory=list)
    servers: list[ServerRow] = field(default_factory=list)
    turns: list[TurnRow] = field(default_factory=list)

    @property
    def doubts(self) -> list[str]:
        """What a reader should know before believing the figures."""
        found = [
            f"{row.streams} streams through {row.contestant} failed: {row.errors}"
            for row in self.streams
            if row.errors
        ]
        found += [
            f"the upstream or the load generator used a whole core for {row.streams} streams beside "
            f"{row.contestant}: they may be what was late"
            for row in self.streams
            if row.busiest > _WHOLE_CORE
        ]
        most = max(self.options.servers, default=0)
        if self.servers and most + 2 > self.machine.cpus:
            found.append(
                f"{most} servers, their upstream and the load share {self.machine.cpus} CPUs: trust the CPU "
                "time"
            )
        return found


def measure_scale(options: ScaleOptions, step: Step) -> ScaleReport:
    """Measure what the options ask for. Raises BenchError, before anything, where files would not suffice."""
    raise_file_limit()
    check_files(max(options.streams, default=0))
    report = ScaleReport(machine=this_machine(), options=options)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        direct = stack.enter_context(upstream(folder))
        everyone = [Entrant(DIRECT, lambda _: nullcontext(direct)), *entrants(direct.port)]
        total = (
            len(everyone) * len(options.streams)
            + options.rounds * len(options.servers)
            + options.rounds * len(WAYS) * len(options.turns)
        )

        def next_step(what: str) -> None:
            step(what, total)

        for count in options.streams:
            for entrant in everyone:
                next_step(f"{count} streams: {entrant.name}")
                own = folder / f"{count}-{len(report.streams)}"
                own.mkdir()
                with load_process(own) as load, entrant.start(own) as contestant:
                    row = _measure_streams(contestant, direct, count, load, options.hold_s)
                    report.streams.append(row)
        for count in options.servers:
            report.servers.append(
                _measure_servers(count, direct, folder / f"{count}-servers", options, next_step)
            )
        if options.turns:
            own = folder / "turns"
            own.mkdir()
            with modelway(own, direct.port, stored=False) as contestant:
                report.turns = measure_turns(contestant, options.turns, options.rounds, next_step)
    return report


def check_files(streams: int, limit: int | None = None) -> None:
    """Raise BenchError where a process may not open as many files as so many streams need."""
    needed = streams * _FILES_EACH + _FILES_BESIDE
    most = file_limit() if limit is None else limit
    if streams and most is not None and most < needed:
        raise BenchError(
            f"{streams} streams need {needed} open files in one process, and {most} are allowed; raise the "
            f"limit with `ulimit -Hn {needed}` (as root) or ask for fewer with --streams"
        )


class Reading(Struct, frozen=True):
    """What a process tree has used until a moment of the clock that all processes share."""

    at: float
    cpu_s: float | None
    resident: int


def _measure_streams(
    contestant: Contestant, direct: Contestant, count: int, load: LoadProcess, hold_s: float
) -> StreamRow:
    interval_ms = max(_LEAST_INTERVAL_MS, round(count * 1000 / EVENTS_PER_S))
    load.run(warm_up(contestant))
    idle = resident_bytes(contestant.roots)
    asked, events = stream_load(contestant, count, hold_s, interval_ms)
    before = cpu_usage(direct.roots)
    with _watched(contestant) as readings:
        result = load.run(asked)
    after = cpu_usage(direct.roots)
    upstream_s = after.since(before) if before and after else 0.0
    peak = max((reading.resident for reading in readings), default=0)
    begun = result.began + count / asked.rate + _SETTLE_S
    return StreamRow(
        contestant=contestant.name,
        streams=count,
        interval_ms=interval_ms,
        cpu_us=cpu_per_event(readings, begun, begun + hold_s - 2 * _SETTLE_S, count * 1000 / interval_ms),
        per_stream_kb=(peak - idle) / count / 1e3 if idle is not None else None,
        age_p50=result.event_age.p50,
        age_p99=result.event_age.p99,
        delivered=result.chunks,
        expected=count * events,
        errors=result.errors,
        busiest=max(upstream_s, result.cpu_s) / result.elapsed_s if result.elapsed_s else 0.0,
    )


def cpu_per_event(readings: Sequence[Reading], begin: float, end: float, events_per_s: float) -> float | None:
    """Microseconds of CPU for an event between two moments; None where they were not read."""
    within = [reading for reading in readings if begin <= reading.at <= end and reading.cpu_s is not None]
    if len(within) < 2 or within[0].cpu_s is None or within[-1].cpu_s is None:
        return None
    passed = within[-1].at - within[0].at
    return (within[-1].cpu_s - within[0].cpu_s) / (passed * events_per_s) * 1e6


@contextmanager
def _watched(contestant: Contestant) -> Iterator[list[Reading]]:
    """Read over and over, on a thread, what a contestant uses while the block runs."""
    readings: list[Reading] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(_SAMPLE_S):
            usage = cpu_usage(contestant.roots)
            used = sum(usage.seconds.values()) if usage else None
            readings.append(Reading(time.monotonic(), used, resident_bytes(contestant.roots) or 0))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield readings
    finally:
        stop.set()
        thread.join()


def _measure_servers(
    count: int, direct: Contestant, folder: Path, options: ScaleOptions, step: Callable[[str], None]
) -> ServerRow:
    folder.mkdir()
    with ExitStack() as stack:
        first = stack.enter_context(modelway(folder, direct.port, stored=True))
        servers = [first]
        servers += [stack.enter_context(beside(first, folder, direct.port)) for _ in range(count - 1)]
        loads = [stack.enter_context(load_process(folder)) for _ in servers]
        rates, costs, failed = [], [], 0
        for number in range(options.rounds):
            step(f"{count} servers, round {number + 1}")
            before = [cpu_usage(server.roots) for server in servers]
            results = _at_once(servers, loads, f"{count}-{number}", options.duration_s)
            after = [cpu_usage(server.roots) for server in servers]
            used = [b.since(a) if a and b else None for a, b in zip(before, after, strict=True)]
            answered = sum(result.requests for result in results)
            rates.append(sum(r.requests / r.elapsed_s for r in results if r.elapsed_s))
            costs.append(sum(filter(None, used)) / answered * 1e6 if answered and None not in used else None)
            failed += sum(sum(result.errors.values()) for result in results)
    return ServerRow(servers=count, requests_per_s=spread(rates), cpu_us=spread(costs), errors=failed)


def _at_once(
    servers: Sequence[Contestant], loads: Sequence[LoadProcess], run: str, duration_s: float
) -> list[LoadResult]:
    """Keep all servers busy at the same time."""
    with ThreadPoolExecutor(len(servers)) as threads:
        asked = [
            structs.replace(
                server.load("bench:json", stream=False, run=f"{run}-{number}"),
                connections=16,
                duration_s=duration_s,
            )
            for number, server in enumerate(servers)
        ]
        return list(threads.map(lambda pair: pair[0].run(pair[1]), zip(loads, asked, strict=True)))

"""Sums the rounds of a measurement up: a row for each contestant, and what is doubtful about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from modelway.bench.contestants import DIRECT, NGINX
from modelway.bench.load import LoadResult
from modelway.bench.stats import Spread, differences, ratios, spread

Samples = Mapping[str, Sequence["Sample"]]


class Shape(Struct, frozen=True):
    """A kind of work. `unit` is what its CPU time is divided by: "request" or "event"."""

    name: str
    mark: str
    stream: bool
    min_events: int
    unit: str


class Sample(Struct, frozen=True):
    """One contestant in one round. `steady` is the open loop; a paced shape has only that."""

    busy: LoadResult
    steady: LoadResult
    cpu_us: float | None
    cpu_us_at_rate: float | None
    upstream_share: float | None


class Row(Struct, frozen=True, kw_only=True):
    """One contestant in the report.

    CPU times are microseconds of its whole process tree for each unit of work; "vs" are ratios. `added`
    is what it takes longer than the upstream asked directly, at the fixed rate; for events it is the time on
    their way. Times are milliseconds.
    """

    contestant: str
    requests: int
    errors: dict[str, int]
    cpu_us: Spread | None
    cpu_vs_upstream: Spread | None
    cpu_vs_nginx: Spread | None
    cpu_us_at_rate: Spread | None
    cpu_vs_nginx_at_rate: Spread | None
    requests_per_s: Spread | None
    chunks_per_s: Spread | None
    p50: Spread | None
    p99: Spread | None
    added_p50: Spread | None
    added_p99: Spread | None
    first_chunk: Spread | None
    added_first_chunk: Spread | None
    gap_p99: Spread | None
    added_event_p50: Spread | None
    added_event_p99: Spread | None


class ShapeReport(Struct, frozen=True):
    """All contestants at one kind of work, and what is doubtful about their figures."""

    shape: str
    unit: str
    rows: list[Row]
    doubts: list[str]


def row(name: str, shape: Shape, samples: Samples) -> Row:
    """What a contestant's rounds come to, beside the upstream's and nginx's."""
    own, direct = samples[name], samples[DIRECT]
    nginx = samples.get(NGINX, ())
    whole = shape.unit == "request"
    cpu, at_rate = _each(own, _cpu), _each(own, _cpu_at_rate)
    return Row(
        contestant=name,
        requests=sum(sample.busy.requests for sample in own),
        errors=_all_errors(own, twice=whole),
        cpu_us=spread(cpu),
        cpu_vs_upstream=ratios(cpu, _each(direct, _cpu)),
        cpu_vs_nginx=ratios(cpu, _each(nginx, _cpu)) if nginx else None,
        cpu_us_at_rate=spread(at_rate),
        cpu_vs_nginx_at_rate=ratios(at_rate, _each(nginx, _cpu_at_rate)) if nginx else None,
        requests_per_s=spread(_each(own, _requests_per_s)) if whole else None,
        chunks_per_s=spread(_each(own, _chunks_per_s)) if shape.stream else None,
        p50=spread(_each(own, _p50)) if whole else None,
        p99=spread(_each(own, _p99)) if whole else None,
        added_p50=differences(_each(own, _p50), _each(direct, _p50)) if whole else None,
        added_p99=differences(_each(own, _p99), _each(direct, _p99)) if whole else None,
        first_chunk=spread(_each(own, _first)) if shape.stream else None,
        added_first_chunk=differences(_each(own, _first), _each(direct, _first)) if shape.stream else None,
        gap_p99=None if whole else spread(_each(own, _gap)),
        added_event_p50=None if whole else differences(_each(own, _age), _each(direct, _age)),
        added_event_p99=None if whole else differences(_each(own, _old_age), _each(direct, _old_age)),
    )


def doubts(shape: Shape, samples: Samples) -> list[str]:
    """What a reader should know before believing the figures."""
    found = []
    for name, own in samples.items():
        failed = sum(_all_errors(own, twice=shape.unit == "request").values())
        if failed:
            found.append(f"{shape.name}: {failed} answers through {name} failed; its figures are void")
        if name != DIRECT:
            found += _limits(shape, name, own, samples[DIRECT])
    return found


def _limits(shape: Shape, name: str, own: Sequence[Sample], direct: Sequence[Sample]) -> list[str]:
    is_closed_loop = shape.unit == "request"
    margin = ratios(_each(direct, _requests_per_s), _each(own, _requests_per_s)) if is_closed_loop else None
    busiest = max((max(sample.upstream_share or 0.0, _load_share(sample)) for sample in own), default=0.0)
    if margin and margin.median < 2:
        return [
            f"{shape.name}: the upstream asked directly is only {margin.median:.1f} times as fast as {name}: "
            "the upstream or the load generator may be the limit; trust the CPU columns"
        ]
    if busiest > 0.95:
        return [f"{shape.name}: the upstream or the load generator used a whole core beside {name}"]
    return []


def _each(samples: Sequence[Sample], figure: Callable[[Sample], float | None]) -> list[float | None]:
    return [figure(sample) for sample in samples]


def _cpu(sample: Sample) -> float | None:
    return sample.cpu_us


def _cpu_at_rate(sample: Sample) -> float | None:
    return sample.cpu_us_at_rate


def _requests_per_s(sample: Sample) -> float | None:
    return sample.busy.requests / sample.busy.elapsed_s if sample.busy.elapsed_s else None


def _chunks_per_s(sample: Sample) -> float | None:
    return sample.busy.chunks / sample.busy.elapsed_s if sample.busy.elapsed_s else None


def _p50(sample: Sample) -> float | None:
    return sample.steady.latency.p50


def _p99(sample: Sample) -> float | None:
    return sample.steady.latency.p99


def _first(sample: Sample) -> float | None:
    return sample.steady.first_chunk.p50


def _gap(sample: Sample) -> float | None:
    return sample.steady.gap.p99


def _age(sample: Sample) -> float | None:
    return sample.steady.event_age.p50


def _old_age(sample: Sample) -> float | None:
    return sample.steady.event_age.p99


def _all_errors(samples: Sequence[Sample], *, twice: bool) -> dict[str, int]:
    total: dict[str, int] = {}
    for sample in samples:
        for result in (sample.busy, sample.steady) if twice else (sample.busy,):
            for error, count in result.errors.items():
                total[error] = total.get(error, 0) + count
    return total


def _load_share(sample: Sample) -> float:
    return sample.busy.cpu_s / sample.busy.elapsed_s if sample.busy.elapsed_s else 0.0

"""Writes the figures in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from modelway.telemetry.figures import Figures, Histogram, Key, Line

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_NAMES = ("provider", "model", "dialect")

Sample = tuple[str, float]


def expose(figures: Figures, left_alone: Mapping[str, int] = {}) -> bytes:
    """Every counter, gauge and histogram; `left_alone` counts, by provider, models that fail too often."""
    gauge = ((_labels(("provider",), (name,)), count) for name, count in left_alone.items())
    what = "Models that are not asked for a while, as they failed too often."
    return "".join([*_families(figures), _family("models_left_alone", "gauge", what, gauge)]).encode()


def _families(figures: Figures) -> Iterator[str]:
    lines = figures.lines
    yield _family(
        "requests_running", "gauge", "Requests that are being answered now.", [("", figures.running)]
    )
    open_now = [("", len(figures.streams))]
    yield _family("streams_open", "gauge", "Of them, answers that are read as streams.", open_now)
    yield _family("requests_total", "counter", "Requests that have ended.", _by_status(lines))
    yield _family(
        "errors_total",
        "counter",
        "Requests that ended in an error, by its code.",
        ((_labels(("provider", "code"), key), count) for key, count in figures.errors.items()),
    )
    yield _family(
        "attempts_answered_total",
        "counter",
        "Calls of upstreams that were answered.",
        ((_labels(_NAMES, key), line.answered) for key, line in lines.items() if key[0]),
    )
    yield _family(
        "attempts_failed_total",
        "counter",
        "Calls of upstreams that failed, by the error's code.",
        ((_labels(("provider", "model", "code"), key), count) for key, count in figures.failures.items()),
    )
    yield from _totals(lines)
    yield from _histograms(lines)
    yield _family(
        "start_time_seconds", "gauge", "When the server started, since the epoch.", [("", figures.since)]
    )


def _by_status(lines: dict[Key, Line]) -> Iterator[Sample]:
    for key, line in lines.items():
        for hundreds, count in enumerate(line.statuses):
            if count:
                yield _labels((*_NAMES, "status"), (*key, f"{hundreds}xx")), count


def _totals(lines: dict[Key, Line]) -> Iterator[str]:
    for name, field, what in (
        ("input_tokens_total", "input_tokens", "Tokens of requests, as upstreams counted them."),
        ("output_tokens_total", "output_tokens", "Tokens of answers, as upstreams counted them."),
        ("request_bytes_total", "bytes_in", "Bytes of the bodies of requests."),
        ("reply_bytes_total", "bytes_out", "Bytes of the bodies of replies."),
        ("cost_dollars_total", "cost", "What answers cost, where prices are known."),
    ):
        samples = ((_labels(_NAMES, key), getattr(line, field)) for key, line in lines.items() if key[0])
        yield _family(name, "counter", what, samples)


def _histograms(lines: dict[Key, Line]) -> Iterator[str]:
    for name, field, what in (
        ("first_token_seconds", "first", "From the request to the first token."),
        ("request_seconds", "total", "From the request to the end of the reply."),
        ("tokens_per_second", "rate", "How fast answers came after their first token."),
    ):
        yield _head(name, "histogram", what)
        for key, line in lines.items():
            if key[0]:
                yield from _histogram(f"modelway_{name}", _labels(_NAMES, key), getattr(line, field))


def _histogram(name: str, labels: str, values: Histogram) -> Iterator[str]:
    count = 0
    inner = labels[1:-1]
    for bound, inside in zip((*map(str, values.bounds), "+Inf"), values.counts, strict=True):
        count += inside
        yield f'{name}_bucket{{{inner},le="{bound}"}} {count}\n'
    yield f"{name}_sum{labels} {values.sum!r}\n{name}_count{labels} {count}\n"


def _family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    lines = (f"modelway_{name}{labels} {value!r}\n" for labels, value in samples)
    return _head(name, kind, what) + "".join(lines)


def _head(name: str, kind: str, what: str) -> str:
    return f"# HELP modelway_{name} {what}\n# TYPE modelway_{name} {kind}\n"


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    pairs = (f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"

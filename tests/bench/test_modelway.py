"""Modelway itself as a contestant: started, asked, measured, ended."""

from pathlib import Path

import pytest
from msgspec import structs

from modelway.bench.contestants import Contestant, LoadProcess
from modelway.bench.gateways import modelway
from modelway.bench.load import ID_MARK
from modelway.bench.measure import Options, measure_shape, shapes
from modelway.bench.processes import exchange
from modelway.bench.startup import FIRST_ANSWER, NOTHING, READY, measure_startup
from modelway.bench.stats import Spread

from .conftest import needs_proc


@needs_proc
@pytest.mark.parametrize("stored", [False, True])
def test_every_request_through_modelway_is_answered_whole(
    direct: Contestant, load: LoadProcess, tmp_path: Path, stored: bool
) -> None:
    folder = tmp_path / "modelway"
    folder.mkdir()
    options = Options(duration_s=0.1, rounds=1, connections=2, rate=50, streams=2)
    with modelway(folder, direct.port, stored=stored) as contestant:
        for shape in shapes(options).values():
            report = measure_shape(shape, [direct, contestant], load, options, lambda _: None)
            own = report.rows[1]
            assert (own.contestant, own.errors) == (contestant.name, {})
            assert own.requests > 0
            assert own.cpu_vs_upstream is not None


def test_a_stored_request_is_a_conversation_of_its_own(
    direct: Contestant, load: LoadProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "modelway"
    folder.mkdir()
    with modelway(folder, direct.port, stored=True) as contestant:
        asked = contestant.load("bench:json", stream=False, run="mine")
        result = load.run(structs.replace(asked, requests=5, connections=1))
        page = exchange(
            contestant.port,
            f"GET /v1/conversations/mine-000000003 HTTP/1.1\r\nhost: localhost:{contestant.port}\r\n"
            f"authorization: Bearer {contestant.api_key}\r\nconnection: close\r\n\r\n".encode(),
        )
    assert (result.requests, result.errors) == (5, {})
    assert b"mine-000000003" in page
    assert page.startswith(b"HTTP/1.1 200")


def test_a_stored_request_needs_its_key_and_is_counted(
    direct: Contestant, load: LoadProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "modelway"
    folder.mkdir()
    with modelway(folder, direct.port, stored=True) as contestant:
        stranger = structs.replace(contestant, api_key="bench")
        refused = load.run(
            structs.replace(stranger.load("bench:json", stream=False, run="a"), requests=3, connections=1)
        )
        body = contestant.body("bench:json", stream=False).replace(ID_MARK, "told")
        told = exchange(
            contestant.port,
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:{contestant.port}\r\n"
            f"authorization: Bearer {contestant.api_key}\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode(),
        ).lower()
    assert refused.errors == {"http_401": 3}
    assert b"x-ratelimit-remaining-requests" in told
    assert b"x-modelway-provider: bench\r\n" in told


def test_starts_are_measured_beside_an_interpreter_that_does_nothing(
    direct: Contestant, tmp_path: Path
) -> None:
    steps: list[str] = []
    rows = {row.what: row for row in measure_startup(1, direct.port, tmp_path, steps.append)}
    assert list(rows) == [NOTHING, "import modelway", "modelway --help", READY, FIRST_ANSWER]
    assert len(steps) == 4
    for row in rows.values():
        assert row.wall_ms is not None
        assert row.wall_ratio is not None
    assert rows[NOTHING].wall_ratio == Spread(1, 1, 1)

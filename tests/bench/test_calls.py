"""How many functions a request goes through: what no clock can tell a test, a count can.

A change that makes one of these more has made every request dearer. That may be worth it: then the number
here is raised in the same commit, which says why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.profile_path import ALL, CONNECTIONS, EVENTS, RELAYED, STORED, bench_of, profiled

pytestmark = pytest.mark.anyio

REQUESTS = 8 * CONNECTIONS
# Calls of functions of Modelway's own. How many turns share a commit differs a little from run to run.
MOST = {
    ("json", RELAYED): 200,
    ("json", STORED): 335,
    ("json", ALL): 382,
    ("sse50", RELAYED): 222,
    ("sse50", ALL): 420,
}
MOST_OF_AN_EVENT = {RELAYED: 25, STORED: 29}


async def calls(folder: Path, kind: str, work: str) -> float:
    """Of one request, with its share of what is done once for many."""
    async with bench_of(folder, kind, work) as bench:
        await bench.ask(4 * CONNECTIONS)
        stats = await profiled(bench, REQUESTS)
    found: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = vars(stats)["stats"]
    return sum(numbers[1] for (file, _, _), numbers in found.items() if "/modelway/" in file) / REQUESTS


@pytest.mark.parametrize(("kind", "work"), MOST)
async def test_a_request_goes_through_no_more_functions_than_it_did(
    tmp_path: Path, kind: str, work: str
) -> None:
    assert await calls(tmp_path, kind, work) <= MOST[kind, work]


@pytest.mark.parametrize("work", MOST_OF_AN_EVENT)
async def test_an_event_goes_through_no_more_functions_than_it_did(tmp_path: Path, work: str) -> None:
    slowly = await calls(tmp_path / "slowly", "paced", work)
    at_once = await calls(tmp_path / "at once", "sse50", work)
    assert (slowly - at_once) / EVENTS <= MOST_OF_AN_EVENT[work]

"""A server that is killed at any moment loses and doubles nothing that it acknowledged."""

from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from tests.reliability.killing import WORD_LENGTH, Outcome, kill_many

pytestmark = [pytest.mark.anyio, pytest.mark.check(1)]

# 250 ms of a stream that brings a word every 20 ms, and 2 KB.
MOST_BEHIND = 2048 + WORD_LENGTH * 13
READY_S = 2.0
# An interpreter that does nothing is there in a twenty-fifth of a second where nothing else goes on.
BUSY = 50


async def test_kills_at_random_moments_lose_and_double_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    outcome = await kill_many(tmp_path, kills=3, streams=10, seed=1)
    record_property("figure", outcome.figure)
    check(outcome)


@pytest.mark.long
async def test_two_hundred_kills_under_fifty_streams_lose_and_double_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    outcome = await kill_many(tmp_path, kills=200, streams=50, seed=200)
    record_property("figure", outcome.figure)
    check(outcome)


def check(outcome: Outcome) -> None:
    assert outcome.faults == []
    assert outcome.acknowledged > 0
    assert outcome.cut > 0
    assert outcome.furthest_behind <= MOST_BEHIND
    # The slowest is one of the machine's moments, too; and on a busy machine everything takes longer.
    busy_s = BUSY * median(outcome.empty_starts_s)
    assert median(outcome.starts_s) < max(READY_S, busy_s)

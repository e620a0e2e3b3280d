"""The statistics add up."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.bench.stats import Spread, differences, percentile, percentiles, ratios, spread

floats = st.floats(min_value=-1e6, max_value=1e6)


def test_percentile_interpolates_between_neighbours() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([10.0, 20.0], 0.25) == 12.5
    assert percentile([7.0], 0.99) == 7.0


def test_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 0.5))


@given(st.lists(floats, min_size=1, max_size=50))
def test_percentile_meets_minimum_median_and_maximum(values: list[float]) -> None:
    assert percentile(values, 0) == min(values)
    assert percentile(values, 1) == max(values)
    assert percentile(values, 0.5) == pytest.approx(statistics.median(values), abs=1e-6)


def test_percentiles_count_the_samples() -> None:
    summary = percentiles([float(n) for n in range(101)])
    assert (summary.count, summary.p50, summary.p90, summary.p99, summary.max) == (101, 50, 90, 99, 100)
    assert percentiles([]).p50 is None


def test_spread_leaves_out_rounds_without_a_value() -> None:
    assert spread([3.0, None, 1.0, math.nan, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([None]) is None


def test_ratios_are_taken_inside_a_round_before_the_median() -> None:
    # The second round was disturbed tenfold on both sides: its ratio is as good as the others.
    slow_machine = ratios([2.0, 30.0, 2.0], [1.0, 10.0, 1.0])
    assert slow_machine == Spread(2.0, 2.0, 3.0)


def test_ratios_leave_out_rounds_that_lack_a_side() -> None:
    assert ratios([2.0, 6.0, None, 5.0], [1.0, None, 3.0, 0.0]) == Spread(2.0, 2.0, 2.0)


def test_differences_are_taken_inside_a_round() -> None:
    assert differences([1.5, 11.0, None], [1.0, 10.0, 1.0]) == Spread(0.75, 0.5, 1.0)

"""What the page about mutants says of a sample."""

from __future__ import annotations

import pytest

from tests.mutation import Results, Survivor, change, choose, likely, page

DIFF = """--- modelway/answer.py
+++ modelway/answer.py
@@ -1,3 +1,3 @@
 def f() -> int:
-    return 1
+    return 2
"""


@pytest.mark.parametrize(
    ("noticed", "tried", "low", "high"),
    [(8, 10, 0.490, 0.943), (80, 100, 0.711, 0.867), (0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0)],
)
def test_a_sample_leaves_a_range_open(noticed: int, tried: int, low: float, high: float) -> None:
    assert likely(noticed, tried) == pytest.approx((low, high), abs=0.001)


def test_a_larger_sample_holds_the_smaller_one() -> None:
    names = [f"m{number}" for number in range(50)]
    assert choose(reversed(names), 20, seed=1)[:10] == choose(names, 10, seed=1)
    assert choose(names, 10, seed=1) != choose(names, 10, seed=2)
    assert sorted(choose(names, 99, seed=1)) == sorted(names)


def test_the_page_says_what_was_tried_and_what_became_of_it() -> None:
    survivors = [
        Survivor(
            "modelway.answer.x_f__mutmut_1", "modelway/answer.py", "survived", DIFF, "tests/a.py::test_b"
        ),
        Survivor("modelway.answer.x_f__mutmut_2", "modelway/answer.py", "no tests", DIFF),
    ]
    text = page(
        Results(
            day="2026-11-21",
            seed=1,
            seconds_each=0.5,
            there={"modelway/answer.py": 100},
            refused={"modelway/answer.py": 60},
            outcomes={"modelway/answer.py": {"killed": 7, "timeout": 1, "survived": 1, "no tests": 1}},
            survivors=survivors,
        ),
        {},
    )
    assert "Of 100 mutants the type check refuses 60 (60 %)" in text
    assert "**80.0 %**" in text
    assert "between 49.0 % and 94.3 %" in text
    assert "about 92 % of all" in text
    assert "| `modelway/answer.py` | 100 | 60 | 10 | 7 | 1 | 1 | 1 | 80 % |" in text
    assert "`modelway/answer.py`: tried again, noticed by `tests/a.py::test_b`" in text
    assert change(DIFF) == "- return 1\n+ return 2"

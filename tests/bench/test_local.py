"""The embedded model beside its engine: what is read from an answer, and what rounds come to."""

import pytest

from modelway.bench.contestants import Contestant
from modelway.bench.local import ENGINE, GATEWAY, Talker, figures, measure_local
from modelway.bench.processes import BenchError
from modelway.bench.stats import Spread

HISTORY = [
    {"role": "user", "content": "bench:paced:5:20 first"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "bench:paced:5:10 second"},
]


def test_an_answer_tells_its_first_piece_and_its_tokens(direct: Contestant) -> None:
    answer = Talker(ENGINE, direct.port, "key", False).ask(HISTORY, "c", 8)
    assert answer.text.count("sent at") == 8
    assert 0 < answer.first_s < answer.whole_s
    assert (answer.tokens, answer.read, answer.kept) == (50, 20, 0)


def test_ratios_are_those_of_each_round() -> None:
    def rounds(*values: float) -> list[dict[str, float]]:
        names = [figure.what for figure in figures({ENGINE: [], GATEWAY: []})]
        return [dict.fromkeys(names, value) for value in values]

    first = figures({ENGINE: rounds(100, 200), GATEWAY: rounds(110, 240)})[0]
    assert (first.unit, first.engine, first.modelway) == ("ms", Spread(150, 100, 200), Spread(175, 110, 240))
    assert first.ratio is not None
    assert (first.ratio.low, first.ratio.high) == pytest.approx((1.1, 1.2))


def test_a_model_that_is_not_here_is_told_with_the_remedy() -> None:
    with pytest.raises(BenchError, match="no-such-model"):
        measure_local("no-such-model", 1, lambda what, total: None)

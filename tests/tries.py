"""Tries mutants in forks of one process that has collected the tests: `python -m tests.tries` in `mutants/`.

It reads what to try from standard input (`Asked`) and writes a line for each mutant (`Outcome`) as it comes
out. To begin with all tests are run without a mutant: how long each takes, and which functions it reaches.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

import msgspec
import pytest
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state


class Asked(msgspec.Struct):
    """What to try, for how long, by tests of how many seconds, pytest's arguments, and where to write."""

    names: list[str]
    limit_s: float | None
    enough_s: float
    arguments: list[str]
    tried: str
    tests: str


class Outcome(msgspec.Struct):
    """How a mutant came out, by which test, and how long it took."""

    name: str
    outcome: Literal["killed", "timeout", "survived", "no tests"]
    test: str = ""
    tests: int = 0
    took_s: float = 0.0


class Test(msgspec.Struct):
    """What is known of a test before the first mutant."""

    took_s: float
    reaches: set[str]


class Failed(msgspec.Struct):
    """Which of the tests failed first, and whether it had not ended in time."""

    at: int
    is_late: bool


class Fork:
    """A child process that runs a function, which is given a pipe to write to."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self._read, write = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            self._be_the_child(work, write)
        os.close(write)

    def told(self, silence_s: float) -> bytes:
        """What it wrote until it closed the pipe, died, or was silent for so long."""
        told = b""
        try:
            while select.select([self._read], [], [], silence_s)[0]:
                piece = os.read(self._read, 1 << 20)
                told += piece
                if not piece:
                    break
        finally:
            os.close(self._read)
            for end in (os.killpg, os.kill):
                with suppress(ProcessLookupError):
                    end(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        return told

    def _be_the_child(self, work: Callable[[int], None], write: int) -> NoReturn:
        os.setpgid(0, 0)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        try:
            work(write)
        finally:
            os._exit(0)


class Tries:
    """The plugin: instead of the tests once, their loop runs those of each mutant."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._failed: dict[str, bool] = {}
        self._took: dict[str, float] = defaultdict(float)
        self._killers: dict[str, list[str]] = defaultdict(list)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        """Of made-up input that shows a mutant, the first one found will do."""
        import hypothesis

        phases = hypothesis.Phase.explicit, hypothesis.Phase.generate
        hypothesis.settings.register_profile(
            "mutants", max_examples=10, deadline=None, database=None, phases=phases
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._took[report.nodeid] += report.duration
        if report.failed:
            self._failed.setdefault(report.nodeid, "from pytest-timeout" in report.longreprtext)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        tests = self._tests = self._known()
        Path(self._asked.tests).write_bytes(msgspec.json.format(msgspec.json.encode(tests)))
        for name, item in self._items.items():
            item.add_marker(pytest.mark.timeout(5 + 10 * tests[name].took_s), append=False)
        reaching = self._reaching()
        # Or each fork would look through, and thereby copy, all that was imported.
        gc.collect()
        gc.freeze()
        until = time.monotonic() + (self._asked.limit_s or float("inf"))
        with Path(self._asked.tried).open("ab", buffering=0) as tried:
            for mutant in self._asked.names:
                if time.monotonic() < until:
                    tried.write(msgspec.json.encode(self._try(mutant, reaching)) + b"\n")
        return True

    def _reaching(self) -> dict[str, list[str]]:
        """The tests of each function, as many as there is time for.

        The quick ones come first, and of those that differ in their arguments only each a little later.
        """
        alike: dict[str, int] = defaultdict(int)
        order = []
        for name in sorted(self._tests, key=lambda name: self._tests[name].took_s):
            alike[name.partition("[")[0]] += 1
            order.append((self._tests[name].took_s * alike[name.partition("[")[0]] ** 0.5, name))
        reaching: dict[str, list[str]] = defaultdict(list)
        spent: dict[str, float] = defaultdict(float)
        for _, name in sorted(order):
            for function in self._tests[name].reaches:
                if not reaching[function] or spent[function] < self._asked.enough_s:
                    reaching[function].append(name)
                    spent[function] += self._tests[name].took_s
        return reaching

    def _known(self) -> dict[str, Test]:
        """What all tests reach and take. They have to pass, or no mutant can be told from none."""
        known: dict[str, Test] = {}
        left = list(self._items)
        # The second time for those that fail on a busy machine by themselves.
        for _ in range(2):
            told = Fork(partial(self._watch, left)).told(1800.0)
            known |= msgspec.json.decode(told, type=dict[str, Test])
            left = [name for name in left if name not in known]
        if left:
            pytest.exit(f"fail without a mutant: {left}", 1)
        return known

    def _watch(self, names: Iterable[str], write: int) -> None:
        set_mutant_under_test("stats")
        known = {}
        for name in names:
            state()._stats.clear()
            self._run(self._items[name])
            known[name] = Test(self._took[name], set(state()._stats))
        with os.fdopen(write, "wb") as told:
            passed = {name: test for name, test in known.items() if name not in self._failed}
            told.write(msgspec.json.encode(passed))

    def _try(self, mutant: str, reaching: dict[str, list[str]]) -> Outcome:
        """A test that fails has to fail twice: the machine may have been busy."""
        began, function = time.monotonic(), mutant.rpartition("__mutmut_")[0]
        before = self._killers[function]
        tests = [*before, *(name for name in reaching[function] if name not in before)]
        left = tests
        while (failed := self._first_failure(mutant, left)) is not None:
            culprit = left[failed.at]
            if (again := self._first_failure(mutant, [culprit])) is not None:
                self._killers[function] = [culprit, *(name for name in before if name != culprit)]
                outcome: Literal["timeout", "killed"] = "timeout" if again.is_late else "killed"
                return Outcome(mutant, outcome, culprit, len(tests), time.monotonic() - began)
            left = left[failed.at + 1 :]
        return Outcome(mutant, "survived" if tests else "no tests", "", len(tests), time.monotonic() - began)

    def _first_failure(self, mutant: str, tests: Sequence[str]) -> Failed | None:
        """None where they all pass: then there is a dot for each."""
        # A test that is late is ended by pytest, unless a mutant keeps even that from being done.
        silence_s = 10.0 + 10 * max((self._tests[name].took_s for name in tests), default=0.0)
        told = Fork(lambda write: self._run_all(mutant, tests, write)).told(silence_s)
        passed = told.count(b".")
        # Where it broke off without a word it was killed, or late.
        return None if passed == len(tests) else Failed(passed, told[-1:] != b"F")

    def _run_all(self, mutant: str, tests: Iterable[str], write: int) -> None:
        set_mutant_under_test(mutant)
        for name in tests:
            self._run(self._items[name])
            os.write(write, b"." if not self._failed else b"T" if any(self._failed.values()) else b"F")
            if self._failed:
                return

    def _run(self, item: pytest.Item) -> None:
        # Without a next test everything that this one was given is taken down, as if it were alone.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def main() -> int:
    """Collect the tests and try what is asked for."""
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)
    return int(pytest.main(asked.arguments, plugins=[Tries(asked)]))


if __name__ == "__main__":
    sys.exit(main())

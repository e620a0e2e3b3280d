"""Runs every test that names a check and writes docs/reliability.md: `python -m tests.reliability.report`."""

from __future__ import annotations

import platform
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from modelway import __version__

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent.parent / "docs" / "reliability.md"
_WORST = ("failed", "skipped", "passed")
_SIGN = {"passed": "holds", "failed": "**fails**", "skipped": "not tried here", "": "**no test**"}


class Check(NamedTuple):
    """What has to hold."""

    number: int
    title: str
    expected: str


class Seen(NamedTuple):
    """One test: its sentence, how it came out, and the figures that it noted."""

    sentence: str
    outcome: str
    figures: tuple[str, ...]


def checks() -> list[Check]:
    """All of them, by number."""
    return [Check(**row) for row in tomllib.loads((FOLDER / "checks.toml").read_text())["check"]]


class Observer:
    """A pytest plug-in that notes how the tests of each check come out."""

    def __init__(self) -> None:
        self.seen: dict[int, list[Seen]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that has run, or could not."""
        if report.when != "call" and report.outcome == "passed":
            return
        told = report.user_properties
        seen = Seen(sentence(report.nodeid), report.outcome, tuple(str(v) for k, v in told if k == "figure"))
        for number in {int(str(value)) for key, value in told if key == "check"}:
            self.seen.setdefault(number, []).append(seen)


def sentence(nodeid: str) -> str:
    """What a test's name says; its parameters are left out, as they are its cases."""
    name = nodeid.rpartition("::")[2].partition("[")[0].removeprefix("test_")
    if name.startswith("check_"):
        name = name.removeprefix("check_").lstrip("0123456789_")
    return name.replace("_", " ")


def page(observed: dict[int, list[Seen]]) -> str:
    """The document."""
    lines = [
        "# Reliability",
        "",
        "What has to hold, what was done to break it, what came of it. `make reliability` writes this page:",
        "it runs every test that names a check, the long ones included, and nothing here is typed by hand.",
        "",
        f"Modelway {__version__}, Python {platform.python_version()}, {platform.platform()}.",
        "",
        "| # | check | expected | what was done | figures | result |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(row(check, observed.get(check.number, [])) for check in checks()), ""])


def row(check: Check, seen: Sequence[Seen]) -> str:
    """One line of the table."""
    cases: dict[str, int] = {}
    for test in seen:
        cases[test.sentence] = cases.get(test.sentence, 0) + 1
    done = "; ".join(text if count == 1 else f"{text} ({count} cases)" for text, count in cases.items())
    figures = "; ".join(dict.fromkeys(figure for test in seen for figure in test.figures))
    found = {test.outcome for test in seen}
    worst = next((outcome for outcome in _WORST if outcome in found), "")
    # A case that this machine cannot try says nothing against those that were tried.
    outcome = "passed" if worst == "skipped" and "passed" in found else worst
    return f"| {check.number} | {check.title} | {check.expected} | {done} | {figures} | {_SIGN[outcome]} |"


def main() -> int:
    observer = Observer()
    code = pytest.main(
        ["-m", "check", "--timeout=7200", "-p", "no:randomly", *sys.argv[1:]], plugins=[observer]
    )
    PAGE.write_text(page(observer.seen))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

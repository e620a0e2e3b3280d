"""Runs the tests that name a check and writes docs/reliability.md: `python -m tests.reliability.report`.

pytest's arguments choose some of them (`-k kills`, `-m "check and not long"`); what the others showed last is
kept in results.json.
"""

from __future__ import annotations

import platform
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from modelway import __version__

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent.parent / "docs" / "reliability.md"
RESULTS = FOLDER / "results.json"
_SIGN = {"passed": "holds", "failed": "**fails**", "skipped": "not tried here", "": "**no test**"}


class Check(NamedTuple):
    """What has to hold."""

    number: int
    title: str
    expected: str


class Seen(msgspec.Struct, frozen=True):
    """One test: the checks that it shows, how it came out and when, and the figures that it noted."""

    checks: tuple[int, ...]
    outcome: str
    figures: tuple[str, ...]
    day: str


def checks() -> list[Check]:
    """All of them, by number."""
    return [Check(**row) for row in tomllib.loads((FOLDER / "checks.toml").read_text())["check"]]


class Observer:
    """A pytest plug-in that notes how the tests of checks come out, and which there are."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.there: set[str] = set()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note a test that exists, whether it is run this time or not."""
        self.there.add(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that has run, or could not."""
        if report.when != "call" and report.outcome == "passed":
            return
        told = report.user_properties
        self.seen[report.nodeid] = Seen(
            checks=tuple(sorted({int(str(value)) for key, value in told if key == "check"})),
            outcome=report.outcome,
            figures=tuple(str(value) for key, value in told if key == "figure"),
            day=datetime.now(UTC).date().isoformat(),
        )


def sentence(nodeid: str) -> str:
    """What a test's name says; its parameters are left out, as they are its cases."""
    name = nodeid.partition("[")[0].rpartition("::")[2].removeprefix("test_")
    if name.startswith("check_"):
        name = name.removeprefix("check_").lstrip("0123456789_")
    return name.replace("_", " ")


def page(observed: Mapping[str, Seen]) -> str:
    """The document."""
    lines = [
        "# Reliability",
        "",
        "What has to hold, what was done to break it, what came of it. `make reliability` writes this page:",
        "it runs every test that names a check, the long ones included, and nothing here is typed by hand.",
        "",
        f"Modelway {__version__}, Python {platform.python_version()}, {platform.system()}.",
        "",
        "| # | check | expected | what was done | figures | last tried | result |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(row(check, observed) for check in checks()), ""])


def row(check: Check, observed: Mapping[str, Seen]) -> str:
    """One line of the table."""
    seen = {name: test for name, test in sorted(observed.items()) if check.number in test.checks}
    cases = Counter(sentence(name) for name in seen)
    done = "; ".join(text if count == 1 else f"{text} ({count} cases)" for text, count in cases.items())
    figures = "; ".join(dict.fromkeys(figure for test in seen.values() for figure in test.figures))
    day = min((test.day for test in seen.values()), default="")
    found = {test.outcome for test in seen.values()}
    # A case that this machine cannot try says nothing against those that were tried.
    outcome = next((name for name in ("failed", "passed", "skipped") if name in found), "")
    told = (check.number, check.title, check.expected, done, figures, day, _SIGN[outcome])
    return f"| {' | '.join(map(str, told))} |"


def main() -> int:
    """Run the tests, all of them or those that pytest's own arguments choose, and write the page."""
    observer = Observer()
    arguments = ["-m", "check", "--timeout=7200", "-p", "no:randomly", *sys.argv[1:]]
    code = pytest.main(arguments, plugins=[observer])
    before = msgspec.json.decode(RESULTS.read_bytes(), type=dict[str, Seen]) if RESULTS.exists() else {}
    # The workers of pytest-xdist collect for themselves, so that here nothing is known to have gone.
    kept = {name: test for name, test in before.items() if name in observer.there or not observer.there}
    observed = dict(sorted({**kept, **observer.seen}.items()))
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(observed)) + b"\n")
    PAGE.write_text(page(observed))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

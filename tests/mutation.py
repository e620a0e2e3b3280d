"""Tries a sample of mutants and writes docs/mutants.md: `python -m tests.mutation --sample 200 --seed 1`.

A mutant is the code with one small mistake in it; one that no test notices has survived. mutmut makes them,
in `mutants/`, and `tests.tries` tries them; what is mutated, and which tests see it, says `[tool.mutmut]` of
pyproject.toml. What the type check refuses is not tried: `make test` ends there.
"""

from __future__ import annotations

import argparse
import math
import platform
import random
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from modelway import __version__

ROOT = Path(__file__).parent.parent
MUTANTS = ROOT / "mutants"
RESULTS = ROOT / "tests" / "mutation.json"
LOOKED_AT = ROOT / "tests" / "mutation.toml"
PAGE = ROOT / "docs" / "mutants.md"
LOG, TRIED, TESTS = MUTANTS / "tries.log", MUTANTS / "tried.jsonl", MUTANTS / "tests.json"
# Why a change that no test notices is no mistake, by the file and the change.
Reasons = Mapping[tuple[str, str], str]
SURVIVED = ("survived", "no tests")
# What tests that take so long together do not notice has survived; tried again, it is given more.
ENOUGH_S, MUCH_S = 12.0, 60.0


class Survivor(msgspec.Struct):
    """A mutant that no test noticed: what was changed, and the test that did when it was tried again."""

    name: str
    file: str
    outcome: str
    diff: str
    killed_since_by: str = ""


class Results(msgspec.Struct):
    """One run: of each file, how many mutants there are, how many the types refuse, and the outcomes."""

    day: str
    seed: int
    seconds_each: float
    there: dict[str, int]
    refused: dict[str, int]
    outcomes: dict[str, dict[str, int]]
    survivors: list[Survivor]


class Outcome(msgspec.Struct):
    """What tests.tries says of one mutant."""

    name: str
    outcome: str
    test: str
    took_s: float


def main() -> int:
    """Try a sample, say what came of it, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="how many of those that pass the types")
    parser.add_argument("--seed", type=int, default=1, help="a larger sample holds the smaller one")
    parser.add_argument("--minutes", type=float, help="stop after so long; what was not tried is left out")
    parser.add_argument(
        "--again", action="store_true", help="try only what has survived and is not explained"
    )
    parser.add_argument("--page", action="store_true", help="write the page of the last run anew")
    asked = parser.parse_args()
    if not asked.page:
        limit_s = asked.minutes * 60 if asked.minutes else None
        if asked.again:
            results = tried_again(read(), looked_at(), limit_s)
        else:
            results = sampled(asked.sample, asked.seed, limit_s)
        RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    PAGE.write_text(page(read(), looked_at()))
    print(PAGE.read_text())
    return 0


def read() -> Results:
    """The last run."""
    return msgspec.json.decode(RESULTS.read_bytes(), type=Results)


def sampled(count: int, seed: int, limit_s: float | None) -> Results:
    """Make the mutants and try so many of them."""
    from tests import mutants

    mutants.make()
    there, refused = mutants.names(), mutants.refused()
    chosen = choose((name for name in there if name not in refused), count, seed)
    came_out = try_all(chosen, limit_s, ENOUGH_S)
    outcomes: dict[str, Counter[str]] = {file_of(name): Counter() for name in sorted(there)}
    for one in came_out:
        outcomes[file_of(one.name)][one.outcome] += 1
    return Results(
        datetime.now(UTC).date().isoformat(),
        seed,
        round(sum(one.took_s for one in came_out) / max(1, len(came_out)), 1),
        count_by_file(there),
        count_by_file(refused),
        {file: dict(counts) for file, counts in outcomes.items()},
        [
            Survivor(one.name, file_of(one.name), one.outcome, mutants.difference(one.name))
            for one in sorted(came_out, key=lambda one: one.name)
            if one.outcome in SURVIVED
        ],
    )


def tried_again(results: Results, reasons: Reasons, limit_s: float | None) -> Results:
    """The same run, with the tests that notice a survivor by now, or when they are given more time."""
    from tests import mutants

    mutants.make()
    there = set(mutants.names())
    still = {
        one.name: one
        for one in results.survivors
        if not verdict(one, reasons) and one.name in there and mutants.difference(one.name) == one.diff
    }
    for one in try_all(list(still), limit_s, MUCH_S):
        still[one.name].killed_since_by = one.test
    return results


def choose(names: Iterable[str], count: int, seed: int) -> list[str]:
    """As many at random; the same ones for the same seed, as long as the code is the same."""
    ordered = sorted(names)
    random.Random(seed).shuffle(ordered)
    return ordered[:count]


def count_by_file(names: Iterable[str]) -> dict[str, int]:
    """How many mutants there are of each file."""
    return dict(sorted(Counter(map(file_of, names)).items()))


def file_of(mutant: str) -> str:
    """The file of a mutant, which is called `package.module.function__mutmut_1`."""
    return f"{mutant.rpartition('.')[0].replace('.', '/')}.py"


def try_all(names: Sequence[str], limit_s: float | None, enough_s: float) -> list[Outcome]:
    """Have them tried, for so long at most, and show how far that is."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    arguments = [*settings["pytest_add_cli_args"], *settings["pytest_add_cli_args_test_selection"]]
    asked: dict[str, Any] = {"names": names, "limit_s": limit_s, "enough_s": enough_s, "arguments": arguments}
    asked |= {"tried": str(TRIED), "tests": str(TESTS)}
    TRIED.write_bytes(b"")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    command = [sys.executable, "-m", "tests.tries"]
    with LOG.open("wb") as log, Progress(*columns) as progress:
        task = progress.add_task("trying them", total=len(names))
        with subprocess.Popen(command, cwd=MUTANTS, stdin=subprocess.PIPE, stdout=log, stderr=log) as process:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(asked))
            process.stdin.close()
            while process.poll() is None:
                time.sleep(1)
                progress.update(task, completed=TRIED.read_bytes().count(b"\n"))
    if process.returncode:
        raise SystemExit(f"the tests do not run:\n{LOG.read_text()[-2000:]}")
    return [msgspec.json.decode(line, type=Outcome) for line in TRIED.read_bytes().splitlines()]


def looked_at() -> Reasons:
    """What tests/mutation.toml says."""
    rows = tomllib.loads(LOOKED_AT.read_text())["survivor"] if LOOKED_AT.exists() else []
    return {(row["file"], row["change"].strip()): row["why"] for row in rows}


def change(diff: str) -> str:
    """The lines of a diff that differ, without their indentation."""
    lines = [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines)


def likely(noticed: int, tried: int) -> tuple[float, float]:
    """Between which shares that of all lies, with 95 % certainty, after a sample (Wilson's interval)."""
    z = 1.96
    share, weight = noticed / tried, z * z / tried
    middle = (share + weight / 2) / (1 + weight)
    away = z / (1 + weight) * math.sqrt(share * (1 - share) / tried + weight / (4 * tried))
    return middle - away, middle + away


def page(results: Results, reasons: Reasons) -> str:
    """The document."""
    lines = [
        "# Mutants",
        "",
        "Small mistakes were made in the code on purpose, one by one, and the tests that reach them were",
        "run. Where a test fails, the mutant is killed; where none does, it has survived: a case that no",
        "test tries, or no mistake at all. `make mutants SAMPLE=200 SEED=1` tries so many at random and",
        "writes this page; no figure is typed by hand.",
        "",
        *said(results, reasons),
        "",
        "A mutant counts as noticed where a test fails twice, or twice does not end in time (the column",
        "timeout). The tests are those that `[tool.mutmut]` of pyproject.toml names, and of them no more",
        "than take some seconds together: a survivor may be noticed by others.",
        "",
        "| file | mutants | types refuse | tried | killed | timeout | survived | no test | noticed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for file, there in results.there.items():
        lines.append(row(f"`{file}`", there, results.refused.get(file, 0), results.outcomes[file]))
    lines += [
        row("all", sum(results.there.values()), sum(results.refused.values()), everything(results)),
        "",
        "## Survivors",
        "",
    ]
    for one in results.survivors:
        what = verdict(one, reasons)
        lines += [f"`{one.file}`{': ' if what else ''}{what}", "", "```diff", change(one.diff), "```", ""]
    return "\n".join(lines)


def said(results: Results, reasons: Reasons) -> list[str]:
    """What the figures mean, in sentences."""
    counts, there = everything(results), sum(results.there.values())
    refused, tried = sum(results.refused.values()), sum(counts.values())
    noticed = tried - sum(counts[outcome] for outcome in SURVIVED)
    low, high = likely(noticed, tried)
    both = (refused + (there - refused) * noticed / tried) / there
    since = sum(bool(one.killed_since_by) for one in results.survivors)
    harmless = sum(
        not one.killed_since_by and (one.file, change(one.diff)) in reasons for one in results.survivors
    )
    silent = tried - noticed - since - harmless
    return [
        f"{results.day}, Modelway {__version__}, Python {platform.python_version()}, seed {results.seed}; "
        f"{results.seconds_each} seconds for each.",
        "",
        f"- Of {there:,} mutants the type check refuses {refused:,} ({100 * refused / there:.0f} %), and",
        "  `make test` with it. They were not tried.",
        f"- Of the other {there - refused:,} a sample was tried: {tried:,}, drawn at random. A test noticed",
        f"  {noticed:,} of them, **{100 * noticed / tried:.1f} %**. As it is a sample, the share of all may",
        f"  differ: with 95 % certainty it lies between {100 * low:.1f} % and {100 * high:.1f} %.",
        f"- The types or a test notice about {100 * both:.0f} % of all.",
        f"- Of the {tried - noticed:,} that survived {since:,} were noticed when they were tried again, by",
        f"  tests that are newer or take long, {harmless:,} are no mistake, and of the other {silent:,}",
        "  nothing is said below. The shares above are those of the first time.",
    ]


def verdict(one: Survivor, reasons: Reasons) -> str:
    """What is to be said of a survivor, if anything is."""
    if one.killed_since_by:
        return f"tried again, noticed by `{one.killed_since_by}`"
    return reasons.get((one.file, change(one.diff)), "")


def everything(results: Results) -> Counter[str]:
    """How often each outcome came, whatever the file."""
    return sum(map(Counter, results.outcomes.values()), Counter[str]())


def row(title: str, there: int, refused: int, counts: Mapping[str, int]) -> str:
    """One line of the table."""
    tried = sum(counts.values())
    each = [counts.get(outcome, 0) for outcome in ("killed", "timeout", *SURVIVED)]
    share = f"{100 * (each[0] + each[1]) / tried:.0f} %" if tried else ""
    return f"| {' | '.join(map(str, (title, there, refused, tried, *each, share)))} |"


if __name__ == "__main__":
    sys.exit(main())

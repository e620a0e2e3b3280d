"""Tries a sample of mutants and writes docs/mutants.md: `python -m tests.mutation --sample 200 --seed 1`.

A mutant is the code with one small mistake in it; one that no test notices has survived. mutmut makes and
tries them, in `mutants/`; what is mutated, and which tests see it, says `[tool.mutmut]` of pyproject.toml.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from modelway import __version__

ROOT = Path(__file__).parent.parent
MUTANTS = ROOT / "mutants"
RESULTS = ROOT / "tests" / "mutation.json"
LOOKED_AT = ROOT / "tests" / "mutation.toml"
PAGE = ROOT / "docs" / "mutants.md"
LOG = MUTANTS / "mutmut.log"
MUTMUT = str(Path(sys.executable).parent / "mutmut")
# All are made, and the tests timed, before the first one is tried: it is asked for alone.
FIRST = "modelway.routing.retrying.*__mutmut_1"
SURVIVED = ("survived", "no tests")
UNTRIED = ("not checked", "check was interrupted by user")


class Tried(msgspec.Struct, frozen=True):
    """One mutant of the sample: its name, the file, how it came out, and of a survivor what was changed."""

    name: str
    file: str
    outcome: str
    diff: str = ""


class Results(msgspec.Struct, frozen=True):
    """One run: `there` is how many mutants each file has."""

    day: str
    seed: int
    there: dict[str, int]
    tried: list[Tried]


def outcomes() -> dict[str, tuple[str, str]]:
    """How each mutant came out that there is, by its name, and the file that it is of."""
    said = subprocess.run([MUTMUT, "results", "--all", "True"], cwd=ROOT, check=True, capture_output=True)
    told = dict(line.strip().rsplit(": ", 1) for line in said.stdout.decode().splitlines() if ": " in line)
    return {name: (file_of(name), outcome) for name, outcome in told.items()}


def file_of(mutant: str) -> str:
    """The file of a mutant, which is called `package.module.function__mutmut_1`."""
    return f"{mutant.rpartition('.')[0].replace('.', '/')}.py"


def choose(names: Iterable[str], count: int, seed: int) -> list[str]:
    """As many at random; the same ones for the same seed, as long as the code is the same."""
    ordered = sorted(names)
    return sorted(random.Random(seed).sample(ordered, min(count, len(ordered))))


def forget(chosen: Sequence[str]) -> None:
    """Take back how they came out before, so that it can be seen how far a run has come."""
    for path, told in _notes():
        codes = told["exit_code_by_key"]
        codes.update(dict.fromkeys(codes.keys() & set(chosen)))
        path.write_text(json.dumps(told, indent=4))


def count_done(chosen: Sequence[str]) -> int:
    """How many of them have come out."""
    codes = {name: code for _, told in _notes() for name, code in told["exit_code_by_key"].items()}
    return sum(codes.get(name) is not None for name in chosen)


def _notes() -> list[tuple[Path, dict[str, dict[str, object]]]]:
    found = []
    for path in MUTANTS.glob("modelway/**/*.meta"):
        try:
            found.append((path, json.loads(path.read_text())))
        except json.JSONDecodeError:  # just being written
            continue
    return found


def run(
    names: Sequence[str], children: int, title: str, total: int | None = None, limit_s: float | None = None
) -> None:
    """Let mutmut try them, for so long at most, and show how far it is."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    command = [MUTMUT, "run", "--max-children", str(children), *names]
    until = time.monotonic() + limit_s if limit_s else None
    MUTANTS.mkdir(exist_ok=True)
    with LOG.open("wb") as log, Progress(*columns) as progress:
        task = progress.add_task(title, total=total)
        with subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as process:
            while process.poll() is None:
                time.sleep(1)
                if total is not None:
                    progress.update(task, completed=count_done(names))
                if until is not None and time.monotonic() > until:
                    process.send_signal(signal.SIGINT)
                    until = None
    if process.returncode:
        raise SystemExit(f"mutmut failed:\n{LOG.read_text()[-2000:]}")


def difference(name: str) -> str:
    """What was changed, as a unified diff."""
    said = subprocess.run([MUTMUT, "show", name], cwd=ROOT, check=True, capture_output=True)
    return said.stdout.decode().partition("\n")[2].strip()


def looked_at() -> dict[str, str]:
    """Why a change that no test notices is no mistake, by the change."""
    rows = tomllib.loads(LOOKED_AT.read_text())["survivor"] if LOOKED_AT.exists() else []
    return {row["change"].strip(): row["why"] for row in rows}


def change(diff: str) -> str:
    """The lines of a diff that differ, without their indentation."""
    lines = [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines)


def share(counts: Mapping[str, int]) -> str:
    """How many of a hundred were noticed: a mutant that never ends is."""
    tried = sum(counts.values())
    noticed = tried - sum(counts[outcome] for outcome in SURVIVED)
    return f"{100 * noticed / tried:.0f} %" if tried else ""


def page(results: Results) -> str:
    """The document."""
    by_file: dict[str, Counter[str]] = {file: Counter() for file in sorted(results.there)}
    for mutant in results.tried:
        by_file[mutant.file][mutant.outcome] += 1
    everything = sum(by_file.values(), Counter[str]())
    lines = [
        "# Mutants",
        "",
        "Small mistakes were made in the code on purpose, one by one, and the tests that see them were run.",
        "Where a test fails, the mutant is killed; where none does, it has survived: a case that no test",
        "tries, or no mistake at all. `make mutants SAMPLE=200 SEED=1` tries so many at random and writes",
        "this page; no figure is typed by hand. What none of the tests reaches that `[tool.mutmut]` of",
        "pyproject.toml names (most end-to-end tests are not among them) counts as not noticed. Where",
        "a run is ended early (`--minutes`), those mutants are missing whose tests take longest.",
        "",
        f"{results.day}, Modelway {__version__}, Python {platform.python_version()}, seed {results.seed}: "
        f"{len(results.tried):,} of {sum(results.there.values()):,} mutants.",
        "",
        "| file | mutants | tried | killed | timeout | survived | no test | noticed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *(row(f"`{file}`", results.there[file], counts) for file, counts in by_file.items()),
        row("all", sum(results.there.values()), everything),
        "",
        "## Survivors",
        "",
    ]
    reasons = looked_at()
    for mutant in results.tried:
        if mutant.outcome in SURVIVED:
            why = reasons.get(change(mutant.diff), "")
            lines += [
                f"`{mutant.file}`{': ' if why else ''}{why}",
                "",
                "```diff",
                change(mutant.diff),
                "```",
                "",
            ]
    return "\n".join(lines)


def row(title: str, there: int, counts: Counter[str]) -> str:
    """One line of the table; a mutant that breaks the tests' own process counts as killed."""
    left = sum(counts.values()) - sum(counts[name] for name in ("timeout", *SURVIVED))
    told = (
        *(title, there, sum(counts.values()), left, counts["timeout"]),
        *(counts["survived"], counts["no tests"], share(counts)),
    )
    return f"| {' | '.join(map(str, told))} |"


def main() -> int:
    """Try a sample, say what came of it, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--children", type=int, default=2, help="how many at once")
    parser.add_argument("--minutes", type=float, help="stop after so long; what was not tried is left out")
    parser.add_argument("--page", action="store_true", help="write the page of the last run anew")
    asked = parser.parse_args()
    if not asked.page:
        results = sampled(asked.sample, asked.seed, asked.children, asked.minutes)
        RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    PAGE.write_text(page(msgspec.json.decode(RESULTS.read_bytes(), type=Results)))
    print(PAGE.read_text())
    return 0


def sampled(count: int, seed: int, children: int, minutes: float | None) -> Results:
    """Make the mutants and try so many of them."""
    run([FIRST], children, "making the mutants")
    there = outcomes()
    chosen = choose(there, count, seed)
    forget(chosen)
    run(chosen, children, "trying them", len(chosen), minutes * 60 if minutes else None)
    tried = [
        Tried(name, file, outcome, difference(name) if outcome in SURVIVED else "")
        for name, (file, outcome) in sorted(outcomes().items())
        if name in chosen and outcome not in UNTRIED
    ]
    by_file = Counter(file for file, _ in there.values())
    return Results(datetime.now(UTC).date().isoformat(), seed, dict(sorted(by_file.items())), tried)


if __name__ == "__main__":
    sys.exit(main())

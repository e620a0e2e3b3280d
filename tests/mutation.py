"""Tries a sample of mutants and writes docs/mutants.md: `python -m tests.mutation --sample 200 --seed 1`.

A mutant is the code with one small mistake in it; one that no test notices has survived. mutmut makes and
tries them, in `mutants/`; what is mutated, and which tests see it, says `[tool.mutmut]` of pyproject.toml.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import time
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
PAGE = ROOT / "docs" / "mutants.md"
LOG = MUTANTS / "mutmut.log"
MUTMUT = str(Path(sys.executable).parent / "mutmut")
# All are made, and the tests timed, before the first one is tried: it is asked for alone.
FIRST = "modelway.routing.retrying.*__mutmut_1"
SURVIVED = ("survived", "no tests")


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


def run(names: Sequence[str], children: int, title: str, total: int | None) -> None:
    """Let mutmut try them, and show how far it is."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    command = [MUTMUT, "run", "--max-children", str(children), *names]
    MUTANTS.mkdir(exist_ok=True)
    with LOG.open("wb") as log, Progress(*columns) as progress:
        task = progress.add_task(title, total=total)
        with subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as process:
            while process.poll() is None:
                time.sleep(1)
                if total is not None:
                    progress.update(task, completed=count_done(names))
    if process.returncode:
        raise SystemExit(f"mutmut failed:\n{LOG.read_text()[-2000:]}")


def difference(name: str) -> str:
    """What was changed, as a unified diff."""
    said = subprocess.run([MUTMUT, "show", name], cwd=ROOT, check=True, capture_output=True)
    return said.stdout.decode().partition("\n")[2].strip()


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
        "this page; nothing here is typed by hand.",
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
    for mutant in results.tried:
        if mutant.outcome in SURVIVED:
            lines += ["```diff", mutant.diff, "```", ""]
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
    parser.add_argument("--children", type=int, default=2)
    asked = parser.parse_args()
    run([FIRST], asked.children, "making the mutants", None)
    there = Counter(file for file, _ in outcomes().values())
    chosen = choose(outcomes(), asked.sample, asked.seed)
    forget(chosen)
    run(chosen, asked.children, "trying them", len(chosen))
    after = outcomes()
    tried = [
        Tried(name, *after[name], diff=difference(name) if after[name][1] in SURVIVED else "")
        for name in chosen
    ]
    results = Results(datetime.now(UTC).date().isoformat(), asked.seed, dict(sorted(there.items())), tried)
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    PAGE.write_text(page(results))
    print(PAGE.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())

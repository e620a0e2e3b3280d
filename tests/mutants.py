"""Makes the mutants in `mutants/`, and tells which of them the type check refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

from mutmut.__main__ import create_mutants
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir

ROOT = Path(__file__).parent.parent
MUTANTS = ROOT / "mutants"
# The mutants of a function stand in one file below each other, so that what one of them defines, the others
# define again; and nothing says of what type an attribute is that only some of them have.
OF_THE_NEIGHBOURS = {
    *("assignment", "attr-defined", "has-type", "misc", "no-redef", "no-untyped-def"),
    *("unreachable", "unused-ignore", "var-annotated"),
}


def names() -> list[str]:
    """All mutants that there are."""
    return [name for path in _notes() for name in json.loads(path.read_text())["exit_code_by_key"]]


def refused() -> dict[str, str]:
    """Why the type check of `make test` would refuse a mutant, by its name."""
    files = [str(path.relative_to(MUTANTS)).removesuffix(".meta") for path in _notes()]
    command = [sys.executable, "-m", "mypy", "--output=json", "--config-file=pyproject.toml", *files]
    said = subprocess.run(command, cwd=MUTANTS, capture_output=True, check=False)
    found: dict[str, str] = {}
    spans = {file: _Spans(file) for file in files}
    for line in said.stdout.splitlines():
        told = json.loads(line)
        if told["severity"] == "error" and told["code"] not in OF_THE_NEIGHBOURS and told["file"] in spans:
            name = spans[told["file"]].at(told["line"])
            if name.endswith("__mutmut_orig"):
                raise SystemExit(f"the type check refuses what is no mutant: {told}")
            found.setdefault(name, told["message"])
    found.pop("", None)
    return found


def difference(name: str) -> str:
    """What a mutant changes, as a unified diff."""
    diff: str = get_diff_for_mutant(name, path=f"{name.rpartition('.')[0].replace('.', '/')}.py")
    return diff


class _Spans:
    """Which function of a file of mutants a line is of."""

    def __init__(self, file: str) -> None:
        spans: dict[str, list[int]] = json.loads((MUTANTS / f"{file}.spans").read_text())["spans"]
        self._rows = sorted((first, last, name) for name, (first, last) in spans.items())
        self._module = file.removesuffix(".py").replace("/", ".")

    def at(self, line: int) -> str:
        at = bisect_right(self._rows, line, key=lambda row: row[0]) - 1
        return f"{self._module}.{self._rows[at][2]}" if at >= 0 and line <= self._rows[at][1] else ""


def _notes() -> Iterable[Path]:
    return sorted((MUTANTS / "modelway").rglob("*.meta"))


def make() -> None:
    """Make them, and put the tests beside them; nothing is left there that has been renamed since."""
    shutil.rmtree(MUTANTS, ignore_errors=True)
    MUTANTS.mkdir()
    copy_src_dir()
    copy_also_copy_files()
    create_mutants(1)

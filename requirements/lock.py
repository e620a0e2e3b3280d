"""Writes what is pinned anew, with hashes and without addresses: the *.txt here, and Node's packages.

Needs uv (`pip install uv`), which resolves for every platform and Python at once, and npm.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent
COMPILE = [
    *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-header", "--no-annotate"),
]
EXTRAS = ("local", "bench", "bedrock", "copilot-github", "keyring", "otel", "vertex")
# What `pip install --no-build-isolation --editable .` needs.
BUILD = "hatchling>=1.27\neditables>=0.5\n"


def compile_requirements(output: Path, *arguments: str) -> None:
    subprocess.run([*COMPILE, *arguments, "--output-file", str(output)], check=True, cwd=PROJECT)  # noqa: S603


def lock_node(folder: Path) -> None:
    """Without their addresses npm finds the packages by name, wherever it is told to look."""
    command = [
        "npm",
        "install",
        "--package-lock-only",
        "--omit-lockfile-registry-resolved",
        "--no-audit",
        "--no-fund",
    ]
    subprocess.run(command, check=True, cwd=folder)  # noqa: S603


def main() -> int:
    dev = HERE / "dev.txt"
    extras = [word for name in EXTRAS for word in ("--extra", name)]
    compile_requirements(dev, "pyproject.toml", *extras, "--group", "dev")
    # The smaller sets take their versions from the largest.
    same = ("pyproject.toml", "--constraint", str(dev))
    compile_requirements(
        HERE / "test.txt", *same, "--extra", "keyring", "--extra", "vertex", "--group", "test"
    )
    compile_requirements(
        HERE / "mutants.txt", *same, "--extra", "keyring", "--extra", "vertex", "--group", "mutants"
    )
    # Programs of others, which want other versions.
    compile_requirements(HERE / "clients.txt", "pyproject.toml", "--extra", "local", "--group", "clients")
    lock_node(PROJECT / "tests" / "clients" / "node")
    with tempfile.TemporaryDirectory() as folder:
        build = Path(folder) / "build.in"
        build.write_text(BUILD)
        compile_requirements(HERE / "run.txt", *same, str(build), "--extra", "local")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What is installed, and what runs before anybody has asked for anything."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.check(43)

PROJECT = Path(__file__).parent.parent.parent
# Ends the program at the first name that it looks up, and the first connection that it makes.
ALONE = """
import runpy, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        sys.stderr.write(f"{event} {arguments}")
        sys.stderr.flush()
        import os
        os._exit(99)
sys.addaudithook(refuse)
sys.argv = ["modelway", *sys.argv[1:]]
"""


@pytest.mark.parametrize("name", ["run.txt", "test.txt", "dev.txt", "mutants.txt"])
def test_everything_is_pinned_with_its_hash_and_names_no_address(name: str) -> None:
    text = (PROJECT / "requirements" / name).read_text()
    packages = re.split(r"\n(?=\S)", text.strip())
    assert len(packages) > 20
    for package in packages:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", package), package[:80]
        assert "--hash=sha256:" in package, package[:80]
    assert "://" not in text


def test_nothing_is_built_while_it_is_installed() -> None:
    assert "--only-binary=:all:" in (PROJECT / "Makefile").read_text()


def test_no_package_of_ours_runs_code_at_every_start_of_python() -> None:
    text = (PROJECT / "requirements" / "run.txt").read_text()
    ours = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([\w.-]+)", text, re.M)}
    for folder in map(Path, sys.path):
        for metadata in folder.glob("*.dist-info"):
            if re.sub(r"[-_.]+", "-", metadata.name.rsplit("-", 1)[0]).lower() in ours:
                listed = (metadata / "RECORD").read_text().splitlines()
                assert not [line for line in listed if line.partition(",")[0].endswith(".pth")], metadata.name


@pytest.mark.parametrize(
    "program",
    [
        "import modelway",
        "runpy.run_module('modelway', run_name='__main__')",
        "import modelway.server.run, modelway.wiring, modelway.client",
    ],
    ids=["import", "--help", "server"],
)
def test_a_start_calls_nobody(program: str) -> None:
    command = [sys.executable, "-c", ALONE + program, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_call_would_be_seen() -> None:
    program = ALONE + "import socket; socket.create_connection(('127.0.0.1', 1))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)
    assert done.returncode == 99

"""Programs of users, unchanged, against the real command with the real embedded model.

The project's own are in examples/. Where CLIENT_PROGRAMS names a folder, the programs in it are run too:
they expect the server on port 1337.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest_local import few_words
from tests.e2e.running import Running

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
FOLDER = os.environ.get("CLIENT_PROGRAMS", "")
PROGRAMS = sorted(Path(FOLDER).glob("*.py")) if FOLDER else []

pytestmark = pytest.mark.timeout(180)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = ("--port", "1337") if PROGRAMS else ()
    environ = few_words()
    folder = tmp_path_factory.mktemp("server")
    with Running(folder, "--fallback", "Local", *port, environ=environ) as running:
        yield running


@pytest.mark.parametrize(
    ("example", "provider"),
    [("requests_iter_lines.py", "Copilot"), ("openai_sdk.py", "Local"), ("python_client.py", "Local")],
)
def test_an_example_in_python_gets_two_answers(server: Running, example: str, provider: str) -> None:
    printed = run(sys.executable, str(EXAMPLES / example), f"{server.address}/v1", provider)
    answers = [part for part in printed.split("\n\n") if part.strip()]
    assert len(answers) >= 2


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_example_with_curl_gets_two_answers(server: Running) -> None:
    printed = run("sh", str(EXAMPLES / "curl.sh"), f"{server.address}/v1", "Local")
    assert printed.count("data: [DONE]") == 2


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_program_of_the_founding_documents_runs_unchanged(server: Running, program: Path) -> None:
    assert server.address.endswith(":1337")
    printed = run(sys.executable, str(program))
    assert "error" not in printed
    assert len(printed.strip().splitlines()) >= 2


def test_the_client_without_a_server_keeps_the_conversation(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "python_client.py")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "MODELWAY_DATA_DIR": str(tmp_path),
            **few_words(),
        },
    )
    assert done.returncode == 0, done.stderr
    # What the model makes of it is its own affair; what it was given is in the store.
    with closing(sqlite3.connect(tmp_path / "conversations.sqlite3")) as store:
        said = [text for (text,) in store.execute("SELECT text FROM messages ORDER BY depth")]
    assert said[0] == "Hello, i am Heiner. How are you?"
    assert said[2] == "Tell me somethings about my name"
    assert all(answer in done.stdout for answer in said[1::2])

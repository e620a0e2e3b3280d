"""The examples in the documents, run as they stand; only the server's port is another."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modelway.auth import Auth
from modelway.config import ServerSettings
from modelway.server.app import Application
from modelway.telemetry import Telemetry
from tests.conftest_local import few_words
from tests.e2e.running import Running
from tests.scripted import Scripted
from tests.serving import gateway_of

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timeout(180)


def blocks(language: str, *documents: str) -> list[str]:
    found: list[str] = []
    for document in documents:
        text = (ROOT / document).read_text()
        found += re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    environ = few_words()
    with Running(tmp_path_factory.mktemp("server"), environ=environ) as running:
        yield running


def run(server: Running, folder: Path, *command: str, stdin: str = "") -> str:
    done = subprocess.run(
        command,
        input=stdin.replace("http://localhost:1337", server.address),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "MODELWAY_DATA_DIR": str(folder),
            "MODELWAY_CONFIG_DIR": str(folder),
            **few_words(),
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", blocks("python", "README.md"))
def test_the_python_examples_of_the_readme_print_an_answer(
    server: Running, tmp_path: Path, example: str
) -> None:
    assert len(run(server, tmp_path, sys.executable, stdin=example).strip()) > 3


def test_the_python_examples_of_the_client_s_page_run_one_after_the_other(
    server: Running, tmp_path: Path
) -> None:
    first, second = blocks("python", "docs/python-client.md")
    # The second goes on where a client is open.
    joined = first + "\nwith modelway.Client() as client:\n" + re.sub("^", "    ", second, flags=re.MULTILINE)
    printed = run(server, tmp_path, sys.executable, stdin=joined)
    assert "Local Usage(" in printed
    assert "nobody has signed in" in printed


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_curl_lines_of_the_readme_get_two_answers(server: Running, tmp_path: Path) -> None:
    first = next(block for block in blocks("sh", "README.md") if "curl" in block)
    assert run(server, tmp_path, "sh", stdin=first).count("data: [DONE]") == 2


def test_the_model_that_claude_is_pointed_to_is_there(server: Running) -> None:
    [line] = [
        line for block in blocks("sh", "docs/api.md") for line in block.splitlines() if "claude" in line
    ]
    variables = dict(re.findall(r"(\w+)=(\S+)", line))
    assert variables["ANTHROPIC_BASE_URL"] == "http://localhost:1337"
    body = {"model": variables["ANTHROPIC_MODEL"], "messages": [{"role": "user", "content": "Hi"}]}
    reply = httpx.post(f"{server.address}/v1/messages", json={**body, "max_tokens": 3}, timeout=60)
    assert reply.json()["role"] == "assistant"


def test_what_is_said_to_be_missing_is_missing(server: Running) -> None:
    text = (ROOT / "docs/api.md").read_text()
    missing = re.search(r"What changes models is not there: ([^;]*);", text)
    assert missing is not None
    addresses = re.findall(r"`(/api/\w+)`", missing[1])
    assert len(addresses) > 4
    for address in addresses:
        assert httpx.post(server.address + address, json={}).status_code == 404
    assert httpx.get(f"{server.address}/v1/messages/batches").status_code == 404


def test_every_address_is_in_the_document(tmp_path: Path) -> None:
    text = (ROOT / "docs/api.md").read_text()
    documented = set(re.findall(r"^\| `(\w+) (/[^`]*)` \|", text, re.MULTILINE))
    gateway = gateway_of([Scripted("Local")], tmp_path)
    routes = Application(gateway, Auth({}), Telemetry(), ServerSettings()).routes
    existing = {
        (method, route.path.replace(":path", ""))
        for route in routes
        for method in route.methods or {"GET"}
        if method != "HEAD"
    }
    assert documented == existing

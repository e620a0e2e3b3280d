"""`modelway routes`, and what is wrong with a route."""

import re
from pathlib import Path

import pytest

from modelway.cli.checks import check_routes
from modelway.cli.setup import Setup
from modelway.settings import Directories, check_file, load
from tests.cli.conftest import Home

ROUTE = '[routes.best]\ncandidates = ["Fake", "Groq"]\nweights = [3, 1]\n'


def test_routes_are_listed_and_tested_at_the_command_line(asking_home: Home) -> None:
    asking_home.config.write_text(asking_home.config.read_text() + ROUTE)
    listed = asking_home.run("routes", "list")
    assert "Fake/model-a 75%" in listed.out
    assert listed.out.count("Groq/") == 1
    told = asking_home.run("routes", "test", "best")
    assert "the first is drawn by weight" in told.out
    assert "GROQ_API_KEY" in told.out
    asked = asking_home.run("routes", "test", "Fake/x", "--ask", "--json").json
    assert (asked["is_route"], asked["asked"]["text"]) == (False, "Hello")
    assert asked["asked"]["trail"].startswith("Fake;ok;")


@pytest.mark.parametrize(
    ("written", "line", "told"),
    [
        ('[routes.best]\ncandidates = ["Nobody"]\n', "", "routes.best.candidates: no provider is called"),
        ('[routes.best]\ncandidates = ["Fake", "Fake"]\n', "line 10", "names a candidate twice"),
        ('[routes.best]\ncandidates = ["Fake"]\nweights = [1, 2]\n', "line 11", "has 2 numbers for 1"),
        (
            '[routes.best]\ncandidates = ["Fake"]\nidle_timeout_s = 999\n',
            "line 11",
            "upstream.idle_timeout_s",
        ),
        (
            '[routes.best]\ncandidates = ["Fake"]\n[routes.best.limits.X]\nidle_timeout_s = 1\n',
            "",
            "for none of",
        ),
        ('[routes.best]\ncandidates = ["Fake"]\nshadow = "Copilot"\n', "", "routes.best.shadow"),
    ],
)
def test_a_wrong_route_is_told_with_its_place(asking_home: Home, written: str, line: str, told: str) -> None:
    asking_home.config.write_text(asking_home.config.read_text() + written)
    done = asking_home.run("routes", "list")
    assert done.code == 3
    assert told in done.err
    assert line in done.err
    assert str(asking_home.config) in done.err


@pytest.mark.parametrize(
    ("candidates", "status", "message"),
    [
        ('"Groq", "Fake"', "ok", "best"),
        ('"Groq"', "warning", "nobody can answer on best"),
        ('"Nobody"', "failed", 'file config.toml: routes.best.candidates: no provider is called "Nobody"'),
    ],
)
def test_the_doctor_looks_at_routes(asking_home: Home, candidates: str, status: str, message: str) -> None:
    config = asking_home.config
    config.write_text(config.read_text() + f"[routes.best]\ncandidates = [{candidates}]\n")
    environ = {name: value for name, value in asking_home.environ.items() if value}
    check = check_routes(Setup(load(environ=environ), Directories.default(environ)))
    assert (check.status, check.message.replace(str(config), config.name)) == (status, message)


@pytest.mark.parametrize("document", ["routes.md", "testing-failover.md"])
def test_the_examples_in_the_documents_are_valid(tmp_path: Path, document: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / document).read_text()
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        (tmp_path / "config.toml").write_text(example)
        check_file(tmp_path / "config.toml")

"""What the documents promise, held against the code."""

import re
from pathlib import Path

import pytest

from modelway.errors import _FURTHER_CODES, all_errors
from modelway.server.anthropic import BETA_HEADER
from modelway.server.formats import ANTHROPIC_VERSION
from modelway.server.relay import TO_UPSTREAM

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def test_every_error_is_in_the_table_as_it_is() -> None:
    text = (ROOT / "docs/errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| (yes|no) \| (yes|no) \|$", text, re.MULTILINE)
    expected = [
        (
            kind.__name__,
            str(kind.status),
            kind.code,
            "yes" if kind.retryable else "no",
            "yes" if kind.failover else "no",
        )
        for kind in all_errors()[1:]
    ]
    assert rows == expected
    for code in _FURTHER_CODES:
        assert f"`{code}`" in text


def test_every_code_that_is_raised_is_known_to_the_client() -> None:
    known = {*_FURTHER_CODES, *(kind.code for kind in all_errors())}
    for module in (ROOT / "modelway").rglob("*.py"):
        for code in re.findall(r'\bcode="(\w+)"', module.read_text()):
            assert code in known, f"{module.name}: {code}"


def test_every_body_in_a_curl_line_says_that_it_is_json() -> None:
    for document in DOCUMENTS:
        for line in re.findall(r"^curl .*(?:\\\n.*)*", document.read_text(), re.MULTILINE):
            assert " -d " not in line or "Content-Type: application/json" in line, line


def test_the_tree_in_the_code_draws_every_error() -> None:
    import modelway.errors

    drawn = re.findall(r"─ (\w+) +(\d+)  (\w+)", modelway.errors.__doc__ or "")
    expected = [(kind.__name__, str(kind.status), kind.code) for kind in all_errors()[1:]]
    assert drawn == expected


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_every_header_that_reaches_an_upstream_is_named() -> None:
    promised = (ROOT / "SECURITY.md").read_text()
    for name in (*TO_UPSTREAM, ANTHROPIC_VERSION, BETA_HEADER):
        assert f"`{name.decode()}`" in promised

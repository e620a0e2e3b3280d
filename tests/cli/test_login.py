"""`modelway login`, `logout` and `status` where nobody outside need be asked."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.canary import CANARY, key
from tests.cli.conftest import Home

GITHUB = ("login", "copilot", "--transport", "github")


def program(home: Home, code: int) -> None:
    """A Copilot CLI that notes what it was told, and ends with this code."""
    folder = home.folder / "bin"
    folder.mkdir()
    script = folder / "copilot"
    told = '" ".join(sys.argv[1:]) + os.environ["COPILOT_HOME"]'
    noted = f'open({str(home.folder / "noted")!r}, "w").write({told})'
    script.write_text(f"#!{sys.executable}\nimport os, sys\n{noted}\nsys.exit({code})\n")
    script.chmod(0o755)
    home.environ["PATH"] = str(folder)


def test_status_tells_of_each_transport_that_nobody_has_signed_in(home: Home) -> None:
    done = home.run("status", "copilot", "--json")
    assert done.code == 4
    accounts = done.json["accounts"]
    assert [account["transport"] for account in accounts] == ["github", "workiq", "graph"]
    assert not any(account["signed_in"] or account["kept"] for account in accounts)


def test_status_tells_of_a_token_in_the_environment_and_shows_none(home: Home) -> None:
    home.environ |= {
        "MODELWAY_COPILOT__GITHUB__SIGN_IN": "environment",
        "GH_TOKEN": None,
        "GITHUB_TOKEN": None,
    }
    home.environ["COPILOT_GITHUB_TOKEN"] = None
    done = home.run("status", "copilot")
    assert (done.code, "none of COPILOT_GITHUB_TOKEN, GH_TOKEN" in done.out) == (4, True)
    home.environ["GH_TOKEN"] = key("gho")
    done = home.run("status", "copilot", "--json")
    assert (done.code, done.json["accounts"][0]["kept"]) == (0, "environment")
    assert CANARY not in done.out + done.err


@pytest.mark.skipif(os.name != "posix", reason="a script that is a program")
def test_the_copilot_cli_signs_in_where_it_is_installed(home: Home) -> None:
    program(home, 0)
    done = home.run(*GITHUB, "--json")
    assert (done.code, done.json["kept"]) == (0, "copilot-cli")
    assert (home.folder / "noted").read_text() == f"login --device-code{home.folder / 'copilot'}"
    assert home.run("status", "copilot").code == 0
    assert home.run("logout", "copilot").out == "signed out of github\n"


@pytest.mark.skipif(os.name != "posix", reason="a script that is a program")
def test_a_copilot_cli_that_fails_signs_nobody_in(home: Home) -> None:
    program(home, 1)
    assert home.run(*GITHUB).code == 4
    assert home.run("status", "copilot").code == 4


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (GITHUB, 3, "--with-token"),
        ((*GITHUB, "--browser"), 2, "leave --browser out"),
        ((*GITHUB, "--with-token"), 2, "no token on stdin"),
        (("login", "copilot", "--transport", "workiq", "--with-token"), 2, "--transport github"),
        (("login", "copilot", "--transport", "workiq"), 3, "client_id and tenant"),
        (("login", "copilot", "--transport", "workiq", "--browser"), 3, "client_id and tenant"),
        (("login", "copilot"), 3, "--with-token"),
    ],
)
def test_what_is_missing_for_a_sign_in_is_told(
    home: Home, tmp_path: Path, arguments: tuple[str, ...], code: int, hint: str
) -> None:
    home.environ["PATH"] = str(tmp_path)
    done = home.run(*arguments)
    assert done.code == code
    assert hint in done.err

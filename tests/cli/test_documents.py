"""docs/configuration.md and docs/command-line.md, held against the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomlkit
from typer.main import get_command

from modelway.cli.app import app
from modelway.cli.exits import ExitCode
from modelway.config import PriceSettings, ProviderSettings, RouteSettings, Settings
from modelway.setting_keys import setting_keys
from modelway.settings import (
    API_KEY_VARIABLE,
    BASE_URL_VARIABLE,
    DEBUG_VARIABLE,
    DIRECTORY_VARIABLES,
    check_file,
)
from tests.cli.conftest import Home

DOCS = Path(__file__).parents[2] / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text()
COMMANDS = (DOCS / "command-line.md").read_text()
SETTING_ROW = re.compile(r"^\| `([a-z_.<>]+)` \| (`[^`]*`|none) \| (\S.*) \|$", re.MULTILINE)


def default_of(key: tuple[str, ...]) -> str:
    """The default as the table writes it."""
    if "<name>" in key:
        kinds = {"providers": ProviderSettings, "routes": RouteSettings, "prices": PriceSettings}
        kind: Any = kinds.get(key[0])
        fields = {field.name: field.default for field in msgspec.structs.fields(kind)} if kind else {}
        value = fields.get(key[-1])
        return "none" if value in (None, msgspec.NODEFAULT) else f"`{tomlkit.item(value).as_string()}`"
    found: Any = Settings()
    for part in key:
        found = getattr(found, part)
    return f"`{tomlkit.item(list(found) if isinstance(found, tuple) else found).as_string()}`"


def test_every_setting_is_in_the_tables_with_its_default() -> None:
    rows = {key: default for key, default, _ in SETTING_ROW.findall(CONFIGURATION)}
    assert rows == {".".join(key): default_of(key) for key in setting_keys()}


def test_every_other_variable_is_in_the_table() -> None:
    for variable in (*DIRECTORY_VARIABLES.values(), DEBUG_VARIABLE, API_KEY_VARIABLE, BASE_URL_VARIABLE):
        assert f"| `{variable}` |" in CONFIGURATION


def test_the_example_file_is_valid(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert found
    (tmp_path / "config.toml").write_text(found[1])
    check_file(tmp_path / "config.toml")


def test_every_exit_code_is_in_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", COMMANDS, re.MULTILINE)
    assert rows == [(str(code.value), code.name) for code in ExitCode]


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name."""
    members = getattr(command, "commands", None)
    if members is None:
        yield name, command
    else:
        for member, inner in members.items():
            yield from commands(inner, f"{name} {member}")


ALL = dict(commands(get_command(app), "modelway"))


def options(command: Any) -> set[str]:
    return {name for param in command.params for name in param.opts if name.startswith("-")}


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_a_section_with_exactly_its_options(name: str) -> None:
    section = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", COMMANDS, re.DOTALL | re.MULTILINE)
    assert section, f"{name} has no section"
    firsts = "\n".join(re.findall(r"^\| (.*?) \|", section[1], re.MULTILINE))
    described = set(re.findall(r"`(--?[a-z-]+)", firsts))
    assert described == options(ALL[name])


def test_the_options_before_the_command_are_described() -> None:
    head = COMMANDS.partition("\n## ")[0]
    for option in options(get_command(app)):
        assert f"`{option}" in head


def test_no_section_describes_a_command_that_is_not_there() -> None:
    assert set(re.findall(r"^## (modelway .*)$", COMMANDS, re.MULTILINE)) == set(ALL)


@pytest.mark.parametrize("name", [name for name in ALL if name != "modelway bench"])
def test_every_command_explains_itself(home: Home, name: str) -> None:
    words = name.split()[1:]
    done = home.run(*words, "--help")
    assert done.code == ExitCode.OK
    for example in re.findall(r"^  (?:.*\| )?modelway (\S+)", done.out, re.MULTILINE):
        assert example == words[0]


def test_the_bench_has_its_own_help(home: Home) -> None:
    done = home.run("bench", "compare", "--help")
    assert done.code == ExitCode.OK
    assert "--quick" in done.out

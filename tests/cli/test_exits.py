import os
import subprocess
import sys

import pytest

from modelway.cli.exits import CommandError, ExitCode, exit_code, explain
from modelway.errors import (
    GatewayError,
    UpstreamError,
    all_errors,
)
from modelway.settings import SettingsError
from tests.cli.conftest import Home

EXPECTED = {
    "AuthenticationError": ExitCode.AUTH,
    "SignInRequired": ExitCode.AUTH,
    "NotEntitled": ExitCode.AUTH,
    "PermissionDenied": ExitCode.AUTH,
    "UpstreamRefusedCredential": ExitCode.AUTH,
    "IdempotencyKeyReused": ExitCode.USAGE,
    "InvalidRequest": ExitCode.USAGE,
    "ContextTooLong": ExitCode.USAGE,
    "RequestTooLarge": ExitCode.USAGE,
    "ConversationBusy": ExitCode.CONFIG,
    "ProviderNotConfigured": ExitCode.CONFIG,
    "StoreUnavailable": ExitCode.CONFIG,
}


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_each_error_has_its_exit_code(kind: type[GatewayError]) -> None:
    general = ExitCode.UPSTREAM if issubclass(kind, UpstreamError) else ExitCode.ERROR
    assert exit_code(kind("no")) == EXPECTED.get(kind.__name__, general)


def test_a_wrong_setting_is_the_files_fault_or_the_flags() -> None:
    assert exit_code(SettingsError("no")) == ExitCode.CONFIG
    assert exit_code(SettingsError("no", from_flag=True)) == ExitCode.USAGE
    assert exit_code(CommandError("no", code=ExitCode.AUTH)) == ExitCode.AUTH
    assert exit_code(FileNotFoundError(2, "No such file", "x")) == ExitCode.ERROR


def test_an_explanation_has_the_remedy_on_a_line_of_its_own() -> None:
    assert explain(GatewayError("it broke", hint="mend it")) == "it broke\n  mend it"
    assert explain(GatewayError("it broke")) == "it broke"
    assert explain(FileNotFoundError(2, "No such file", "x")) == "x: No such file"


def test_a_misspelt_command_gets_the_nearest_one(home: Home) -> None:
    done = home.run("provider")
    assert done.code == ExitCode.USAGE
    assert "Did you mean 'providers'?" in done.err
    assert done.err.count("\n") == 2


def test_a_misspelt_option_gets_the_nearest_ones(home: Home) -> None:
    done = home.run("serve", "--prot", "1")
    assert done.code == ExitCode.USAGE
    assert "--port" in done.err
    assert "`modelway serve --help`" in done.err


def test_a_group_without_a_command_shows_its_help(home: Home) -> None:
    done = home.run("models")
    assert done.code == ExitCode.USAGE
    assert done.err.startswith("Usage: modelway models")


def test_a_wrong_setting_is_told_in_two_lines(home: Home) -> None:
    home.config.write_text("[server]\nprot = 1")
    done = home.run("config", "show")
    assert done.code == ExitCode.CONFIG
    assert done.err.splitlines() == [
        f"modelway: file {home.config}, line 2: there is no setting server.prot",
        "  did you mean server.port?",
    ]
    assert not done.out


def test_the_traceback_is_for_those_who_ask(home: Home) -> None:
    home.config.write_text("[server]\nprot = 1")
    home.environ["MODELWAY_DEBUG"] = "1"
    with pytest.raises(SettingsError):
        home.run("config", "show")


def python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        check=False,
    )


def test_a_bug_is_told_in_two_lines_without_a_traceback() -> None:
    code = "from modelway.cli.exits import hide_tracebacks; hide_tracebacks(); {}['x']"
    done = python(code)
    assert done.returncode == ExitCode.ERROR
    assert done.stderr.splitlines() == [
        "modelway: internal error: KeyError: 'x'",
        "  MODELWAY_DEBUG=1 shows where",
    ]
    assert "Traceback" in python(code, MODELWAY_DEBUG="1").stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from modelway.cli.app import run; code = run(['--help']);"
        "heavy = {'rich', 'sqlalchemy', 'uvicorn', 'starlette', 'prompt_toolkit', 'xllamacpp', 'matplotlib',"
        "'modelway.bench', 'asyncio'} & set(sys.modules); print(code, sorted(heavy), file=sys.stderr)"
    )
    assert python(code).stderr == "0 []\n"

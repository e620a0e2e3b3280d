"""`modelway doctor`: looks at everything that has to be right, and says what to do where it is not."""

from __future__ import annotations

from typing import Annotated

import typer

from modelway.cli.exits import ExitCode
from modelway.cli.output import say, say_json


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check this machine; exit code 1 where something fails."""
    from modelway.cli.checks import check_all

    checks = check_all(context)
    failed = any(check.status == "failed" for check in checks)
    if as_json:
        say_json({"ok": not failed, "checks": checks})
    else:
        for check in checks:
            say(f"{check.status:<8} {check.name}: {check.message}")
            if check.hint:
                say(f"{'':<8} {check.hint}")
    if failed:
        raise typer.Exit(ExitCode.ERROR)

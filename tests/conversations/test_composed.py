"""The statements that the server runs are those that statements.py composes."""

import ast
import subprocess
import sys

from modelway.conversations import composing


def test_what_is_composed_is_up_to_date() -> None:
    written = ast.dump(ast.parse(composing.TARGET.read_text()))
    assert written == ast.dump(ast.parse(composing.composed())), "run `make sql`"


def test_the_server_never_loads_what_composes_them() -> None:
    program = "import sys, modelway.server.run; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

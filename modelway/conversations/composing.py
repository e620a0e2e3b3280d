"""Writes composed.py anew: `make sql`, after a change of schema.py or statements.py.

To load SQLAlchemy and compose the statements took a quarter of the server's start; they are always the same.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from modelway.conversations.schema import VERSION, metadata
from modelway.conversations.statements import compose

TARGET = Path(__file__).with_name("composed.py")
_HEAD = '''"""The schema and the statements in SQLite's words. Written by `make sql` out of statements.py."""

from modelway.conversations.sql import Statements

'''


def composed() -> str:
    """The text of composed.py, before it is formatted."""
    dialect = SQLiteDialect_pysqlite(paramstyle="named")
    schema: list[str] = []
    for table in metadata.sorted_tables:
        schema.append(_one_line(str(CreateTable(table).compile(dialect=dialect))))
        indexes = [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]
        schema += sorted(map(_one_line, indexes))
    texts = msgspec.structs.asdict(compose(dialect))
    tables = "".join(f"    {_literal(text)},\n" for text in schema)
    statements = "".join(f"    {name}={_literal(text)},\n" for name, text in texts.items())
    return f"{_HEAD}VERSION = {VERSION}\n\nSCHEMA = (\n{tables})\n\nSTATEMENTS = Statements(\n{statements})\n"


def write(target: Path) -> None:
    """Write it, formatted like all code here."""
    target.write_text(composed())
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", target], check=True)  # noqa: S603


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _literal(text: str) -> str:
    """A string in pieces that fit into a line."""
    pieces = textwrap.wrap(_one_line(text), 90, drop_whitespace=False, break_long_words=False)
    return repr(pieces[0]) if len(text) < 60 else "(" + "\n".join(map(repr, pieces)) + ")"


if __name__ == "__main__":
    write(TARGET)

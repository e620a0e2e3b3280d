"""The command line."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    from modelway.cli.app import run
    from modelway.cli.exits import hide_tracebacks

    hide_tracebacks()
    sys.exit(run(sys.argv[1:]))

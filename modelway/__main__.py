"""Runs the command line as `python -m modelway`."""

from modelway.cli import main

main()

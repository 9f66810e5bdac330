"""The command line: parse, call one function, print, exit code."""

from balancesim.cli.group import main

__all__ = ["main"]

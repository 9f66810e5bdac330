"""What goes to stdout: tables for people, one JSON document for programs."""

import json
from typing import Any

import click

_WIDTH_WITHOUT_TERMINAL = 200


def print_table(table: Any) -> None:
    """Print a rich table, or text; wide enough for every column where stdout is no terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_WITHOUT_TERMINAL)
    console.print(table)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))

"""``balancesim show``: what a run directory holds."""

from pathlib import Path

import click


@click.command("show")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def show_command(run: Path, as_json: bool) -> None:
    """Show the state and the table of the run directory RUN (out/RUN if there is no such folder here)."""
    from balancesim.cli.output import print_json, print_table
    from balancesim.report import find_report
    from balancesim.sweep import RunDirectory, group_records, read_configuration
    from balancesim.sweep.preview import preview
    from balancesim.sweep.seeds import seeds_text
    from balancesim.sweep.store import recorded_figures

    below = Path("out") / run
    directory = RunDirectory(below if below.exists() and not run.exists() else run)
    configuration = read_configuration(directory)
    cells = preview(directory, configuration).cells
    states = ("done", "failed", "lost", "to do")
    count = {state: sum(cell.state == state for cell in cells) for state in states}
    report = find_report(configuration.report)
    frame = report.summarise(directory) if count["done"] else None
    if as_json:
        print_json(
            {
                "experiment": configuration.name,
                "directory": str(directory.path),
                "configuration": configuration.document(),
                "cells": count,
                "groups": [] if frame is None else group_records(frame),
                "figures": [str(path) for path in recorded_figures(directory)],
            }
        )
        return
    click.echo(f"{configuration.name} in {directory.path}, seeds {seeds_text(configuration.seeds)}")
    click.echo(", ".join(f"{number} cells {state}" for state, number in count.items() if number))
    if frame is not None:
        print_table(report.table(frame))
    for path in recorded_figures(directory):
        click.echo(str(path))

"""``balancesim run``: run an experiment, or continue it."""

import importlib
import shlex
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from balancesim.cli.completion import complete_experiments, complete_overrides
from balancesim.cli.group import INTERRUPTED

if TYPE_CHECKING:
    import pandas as pd

    from balancesim.sweep import Outcome, RunDirectory
    from balancesim.sweep.configuration import Configuration

SOME_FAILED = 1
DEFAULT_EXECUTOR = "thread"


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes
    ----------
    name : str or None
        A named experiment.
    config : Path or None
        An experiment file, alone or over the named one.
    overrides : tuple of str
        ``--set`` texts.
    seeds : str or None
        ``--seeds``.
    out : Path or None
        ``--out``.
    jobs : int or None
        Tasks at a time; by default one per core.
    executor : str
        How tasks are spread.
    backend : str or None
        ``--backend``.
    fresh, fail_fast, as_json, quiet : bool
        The flags.
    """

    name: str | None
    config: Path | None
    overrides: tuple[str, ...]
    seeds: str | None
    out: Path | None
    jobs: int | None
    executor: str
    backend: str | None
    fresh: bool
    fail_fast: bool
    as_json: bool
    quiet: bool

    def resuming(self) -> str:
        """The command that continues this one: the same, without ``--fresh``."""
        words = ["balancesim", "run", *([self.name] if self.name else [])]
        words += ["--config", str(self.config)] if self.config else []
        for text in self.overrides:
            words += ["--set", text]
        words += ["--seeds", self.seeds] if self.seeds else []
        words += ["--jobs", str(self.jobs)] if self.jobs else []
        words += ["--executor", self.executor] if self.executor != DEFAULT_EXECUTOR else []
        words += ["--backend", self.backend] if self.backend else []
        words += ["--out", str(self.out)] if self.out else []
        words += ["--fail-fast"] if self.fail_fast else []
        words += ["--json"] if self.as_json else []
        words += ["--quiet"] if self.quiet else []
        return shlex.join(words)


@click.command("run")
@click.argument("name", required=False, shell_complete=complete_experiments)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="An experiment file; with NAME, its keys replace that experiment's.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=V1,V2",
    shell_complete=complete_overrides,
    help="Set a key; a comma makes a grid axis and replaces the file's. May be repeated.",
)
@click.option("--seeds", metavar="FIRST:END", help="The seeds, END excluded, as in 0:20.")
@click.option("--jobs", type=click.IntRange(min=1), help="Tasks at a time.  [default: one per core]")
@click.option(
    "--executor",
    type=click.Choice(["thread", "process", "serial"]),
    default=DEFAULT_EXECUTOR,
    show_default=True,
    help="How tasks are spread over cores; results do not depend on it.",
)
@click.option(
    "--backend",
    type=click.Choice(["numba", "cupy"]),
    help="Where steps run: the processor, or a CUDA card, for ALF-LB; sets run.backend.  [default: numba]",
)
@click.option("--out", type=click.Path(path_type=Path), help="The run directory.  [default: out/NAME]")
@click.option("--fresh", is_flag=True, help="Remove what earlier runs left in the directory first.")
@click.option("--dry-run", is_flag=True, help="List the cells and say how many are done; run nothing.")
@click.option(
    "--keep-going/--fail-fast",
    "keep_going",
    default=True,
    show_default=True,
    help="Whether to go on after a cell has failed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option("--quiet", "-q", is_flag=True, help="No progress and no notes.")
@click.pass_context
def run_command(
    ctx: click.Context,
    name: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    seeds: str | None,
    jobs: int | None,
    executor: str,
    backend: str | None,
    out: Path | None,
    fresh: bool,
    dry_run: bool,
    keep_going: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the experiment NAME, or continue it.

    Finished cells are never run again: the same command continues an interrupted run, and more seeds add to
    a finished one. What is printed on stdout is the result; progress goes to stderr.
    """
    from balancesim.report import check_report
    from balancesim.sweep import RunDirectory

    request = Request(
        name, config, overrides, seeds, out, jobs, executor, backend, fresh, not keep_going, as_json, quiet
    )
    configuration, notes = _configure(request)
    check_report(configuration)
    if not quiet:
        for note in notes:
            click.echo(f"note: {note}", err=True)
    run = RunDirectory(out or Path("out") / configuration.name)
    if dry_run:
        _list_cells(run, configuration, request)
        return
    if "cupy" in configuration.run["backend"]:
        from balancesim.driver_cupy import require

        require()
    try:
        ctx.exit(_execute(run, configuration, request))
    except KeyboardInterrupt:
        _say_interrupted(run, configuration, request)
        ctx.exit(INTERRUPTED)


def _configure(request: Request) -> "tuple[Configuration, tuple[str, ...]]":
    from dataclasses import replace

    from balancesim.sweep.configuration import python_rules, resolve
    from balancesim.sweep.experiment import Setting, load_draft
    from balancesim.sweep.overrides import apply_overrides

    draft, notes = apply_overrides(load_draft(request.name, request.config), request.overrides)
    if request.seeds is not None:
        draft = replace(draft, run={**draft.run, "seeds": Setting(request.seeds, "--seeds")})
    if request.backend is not None:
        draft = replace(draft, run={**draft.run, "backend": Setting(request.backend, "--backend")})
    configuration = resolve(draft)
    slow = python_rules(configuration)
    if slow:
        notes += (f"called in Python at every step, slower than the compiled loop: {', '.join(slow)}",)
    return configuration, notes


def _execute(run: "RunDirectory", configuration: "Configuration", request: Request) -> int:
    from balancesim.batches import n_cores
    from balancesim.cli.progress import ProgressBar
    from balancesim.report import find_report
    from balancesim.sweep import run_sweep
    from balancesim.sweep.summary import figures_are_current

    if request.fresh or not figures_are_current(run, configuration.report):
        # Plotting takes a second to import: time that the cells need anyway.
        threading.Thread(
            target=importlib.import_module, args=["balancesim.report.write"], daemon=True
        ).start()
    outcome = run_sweep(
        run,
        configuration,
        executor=request.executor,  # type: ignore[arg-type]  # the option's choices are the executors
        jobs=request.jobs or n_cores(),
        fresh=request.fresh,
        fail_fast=request.fail_fast,
        reporter=ProgressBar(quiet=request.quiet),
    )
    if outcome.n_before == outcome.n_cells and figures_are_current(run, configuration.report):
        if request.as_json:
            rows = find_report(configuration.report).summarise(run)
            _print_document(run, configuration, outcome, rows)
        else:
            click.echo(f"nothing to do: {outcome.n_cells} of {outcome.n_cells} cells are done in {run.path}")
        return 0
    _finish(run, configuration, outcome, request)
    return SOME_FAILED if outcome.failures else 0


def _finish(
    run: "RunDirectory", configuration: "Configuration", outcome: "Outcome", request: Request
) -> None:
    from balancesim.cli.output import print_table
    from balancesim.cli.progress import working
    from balancesim.report import find_report, write_report
    from balancesim.sweep.summary import record_figures

    for label, message in outcome.failures.items():
        click.echo(f"failed: {label}: {message}", err=True)
    n_done = outcome.n_before + outcome.n_done
    report = find_report(configuration.report)
    rows = None
    if n_done:
        with working("fitting and drawing", quiet=request.quiet):
            rows = report.summarise(run)
            record_figures(run, write_report(run, rows), configuration.report)
    if request.as_json:
        _print_document(run, configuration, outcome, rows)
    elif rows is not None:
        print_table(report.table(rows))
        click.echo(f"{n_done} of {outcome.n_cells} cells are done; table and figures are in {run.path}")
    if outcome.stopped or n_done < outcome.n_cells:
        click.echo(
            f"{outcome.n_cells - n_done} of {outcome.n_cells} cells are not done "
            f"({outcome.n_failed} failed, {outcome.n_lost} lost); try them again with:\n"
            f"  {request.resuming()}",
            err=True,
        )


def _say_interrupted(run: "RunDirectory", configuration: "Configuration", request: Request) -> None:
    from balancesim.sweep.preview import preview

    cells = preview(run, configuration).cells
    n_done = sum(cell.state == "done" for cell in cells)
    click.echo(
        f"interrupted: {n_done} of {len(cells)} cells are done and kept in {run.path}; "
        f"continue with:\n  {request.resuming()}",
        err=True,
    )


def _print_document(
    run: "RunDirectory", configuration: "Configuration", outcome: "Outcome", rows: "pd.DataFrame | None"
) -> None:
    from balancesim.cli.output import print_json
    from balancesim.sweep import group_records
    from balancesim.sweep.store import recorded_figures

    print_json(
        {
            "experiment": configuration.name,
            "directory": str(run.path),
            "cells": {
                "requested": outcome.n_cells,
                "done_before": outcome.n_before,
                "done_now": outcome.n_done,
                "failed": outcome.n_failed,
                "lost": outcome.n_lost,
            },
            "failures": dict(outcome.failures),
            "groups": [] if rows is None else group_records(rows),
            "figures": [str(path) for path in recorded_figures(run)],
        }
    )


def _list_cells(run: "RunDirectory", configuration: "Configuration", request: Request) -> None:
    from balancesim.cli.output import print_json
    from balancesim.sweep.preview import preview

    found = preview(run, configuration, fresh=request.fresh)
    if found.conflict is not None and not request.quiet:
        click.echo(f"note: {found.conflict}", err=True)
    n_done = sum(cell.state == "done" for cell in found.cells)
    n_cells = len(found.cells)
    if request.as_json:
        print_json(
            {
                "experiment": configuration.name,
                "directory": str(run.path),
                "conflict": found.conflict,
                "cells": {"requested": n_cells, "done": n_done, "to_do": n_cells - n_done},
                "list": [cell.__dict__ for cell in found.cells],
            }
        )
        return
    for cell in found.cells:
        click.echo(f"{cell.key}  {cell.state:<6}  {cell.source}  |  {cell.rule}  |  seed {cell.seed}")
    click.echo(f"{n_cells} cells: {n_done} done, {n_cells - n_done} to do in {run.path}")

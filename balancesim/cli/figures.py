"""``balancesim figures``: remake the figures that the project shows."""

import functools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from balancesim.cli.completion import complete_figures
from balancesim.cli.group import INTERRUPTED

if TYPE_CHECKING:
    from balancesim.checks import Statement
    from balancesim.report.gallery import Exhibit, Picture

SOME_FAILED = 1
_CHECKS = "checks"


@click.command("figures")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_figures)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("figures"),
    show_default=True,
    help="Where the figures and their page go.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("out") / "figures",
    show_default=True,
    help="Where the runs behind them are kept: what is done there is not run again.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Tasks at a time.  [default: one per core]")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.pass_context
def figures_command(
    ctx: click.Context, names: tuple[str, ...], out: Path, work: Path, jobs: int | None, quiet: bool
) -> None:
    """Remake the figures of NAME, a statement such as D1 or an experiment; all of them by default.

    Written are SVG and PNG files and README.md, a page with every figure's caption and command. All of them
    take some twenty minutes on two cores, most of it the experiments; an interrupted command continues.
    """
    from balancesim.batches import n_cores
    from balancesim.report.gallery import index
    from balancesim.sweep.atomic import write_text

    statements, exhibits = _chosen(names)
    jobs = jobs or n_cores()
    try:
        complete = _check(statements, work / _CHECKS, out / _CHECKS, jobs, quiet)
        for exhibit in exhibits:
            complete &= _run(exhibit, work / exhibit.experiment, out / exhibit.experiment, jobs, quiet)
    except KeyboardInterrupt:
        click.echo(f"interrupted: what is done is kept in {work}; the same command continues", err=True)
        ctx.exit(INTERRUPTED)
    shown = [picture for picture in _gallery() if (out / f"{picture.name}.png").is_file()]
    write_text(out / "README.md", index(shown))
    click.echo(f"{len(shown)} figures are in {out}")
    ctx.exit(0 if complete else SOME_FAILED)


def _chosen(names: Iterable[str]) -> "tuple[list[Statement], list[Exhibit]]":
    """Statements with a figure, and experiments, by name; a letter stands for all of its statements."""
    from balancesim.checks import find_statements
    from balancesim.errors import ConfigurationError, unknown_name
    from balancesim.report.gallery import EXHIBITS

    drawn = {found.label: found for found in find_statements() if found.figure is not None}
    experiments = {exhibit.experiment: exhibit for exhibit in EXHIBITS}
    chosen = dict.fromkeys(drawn if not names else ())
    shown = dict.fromkeys(experiments if not names else ())
    for name in names:
        labels = [label for label in drawn if name.upper() in (label, label.rstrip("0123456789"))]
        chosen.update(dict.fromkeys(labels))
        if name in experiments:
            shown[name] = None
        elif not labels:
            raise ConfigurationError(unknown_name("figure", name, [*drawn, *experiments]))
    return [drawn[label] for label in chosen], [experiments[name] for name in shown]


def _gallery() -> "list[Picture]":
    from balancesim.checks import find_statements
    from balancesim.report.gallery import EXHIBITS, Picture

    checks = [
        Picture(
            f"{_CHECKS}/{found.label}", f"{found.title}. {found.caption}", f"balancesim figures {found.label}"
        )
        for found in find_statements()
        if found.figure is not None
    ]
    return [*checks, *(picture for exhibit in EXHIBITS for picture in exhibit.shown())]


def _check(statements: "list[Statement]", work: Path, out: Path, jobs: int, quiet: bool) -> bool:
    from balancesim.checks import run_checks
    from balancesim.cli.check import say_outcome

    outcomes = run_checks(statements, work, jobs=jobs, report=None if quiet else say_outcome)
    done = [outcome.statement.label for outcome in outcomes if outcome.findings is not None]
    _copy({label: work / "figures" / label for label in done}, out)
    return len(done) == len(statements)


def _run(exhibit: "Exhibit", work: Path, out: Path, jobs: int, quiet: bool) -> bool:
    from dataclasses import replace

    from balancesim.cli.progress import ProgressBar, working
    from balancesim.report import write_report
    from balancesim.sweep import RunDirectory, run_sweep
    from balancesim.sweep.configuration import resolve
    from balancesim.sweep.experiment import Setting, load_draft

    draft = load_draft(exhibit.experiment, None)
    if exhibit.seeds is not None:
        draft = replace(draft, run={**draft.run, "seeds": Setting(exhibit.seeds, "the gallery")})
    if not quiet:
        click.echo(f"running {exhibit.experiment}", err=True)
    run = RunDirectory(work)
    outcome = run_sweep(run, resolve(draft), jobs=jobs, reporter=ProgressBar(quiet=quiet))
    for label, message in outcome.failures.items():
        click.echo(f"failed: {label}: {message}", err=True)
    if outcome.n_before + outcome.n_done < outcome.n_cells:
        return False
    with working("drawing", quiet=quiet):
        write_report(run)
    _copy({name: run.figures / file for name, (file, _) in exhibit.pictures.items()}, out)
    return True


def _copy(sources: dict[str, Path], folder: Path) -> None:
    """Copy figures, SVG and PNG, under new names."""
    from balancesim.sweep.atomic import storage_error, write_atomically

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    for name, source in sources.items():
        for ending in (".svg", ".png"):
            file = source.with_name(source.name + ending)
            write_atomically(folder / f"{name}{ending}", functools.partial(shutil.copyfile, file))

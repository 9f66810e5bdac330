"""``balancesim bench``: speed and memory against named peers, measured in one run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from balancesim.bench import AREAS
from balancesim.cli.group import INTERRUPTED

if TYPE_CHECKING:
    from balancesim.bench.rows import Row

FIGURES = (".svg", ".png", ".pdf")


@click.command("bench")
@click.argument("areas", nargs=-1, type=click.Choice(list(AREAS)), metavar="[AREA]...")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=21, show_default=True, help="Rounds of each comparison."
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0.0, min_open=True),
    metavar="SECONDS",
    help="Time that the rounds of one area aim at: slow peers get fewer, 3 at least.  [default: the area's]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option(
    "--figure",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw the ratios against their goals; SVG, PNG or PDF by the file's ending.",
)
@click.option(
    "--against",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What an earlier run printed with --json: say which ratios are better or worse than then.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.pass_context
def bench_command(
    ctx: click.Context,
    areas: tuple[str, ...],
    rounds: int,
    budget: float | None,
    as_json: bool,
    figure: Path | None,
    against: Path | None,
    quiet: bool,
) -> None:
    """Measure AREAs: exact, routing, online, sweep, scaling, gpu, memory, startup; all of them by default.

    Rounds of ours and each peer's alternate after a warm-up; figures are medians, with intervals. A goal that
    is missed and a peer that is not installed are said in the table; neither makes the command fail.
    """
    from balancesim.bench.against import changes, read_ratios
    from balancesim.bench.report import document, table
    from balancesim.cli.output import print_json, print_table

    if figure is not None:
        _check_figure(figure)
    before = None if against is None else read_ratios(against)
    rows: list[Row] = []
    complete = False
    try:
        for row in _rows(tuple(dict.fromkeys(areas or AREAS)), rounds, budget, quiet):
            rows.append(row)  # noqa: PERF402 - an interrupt must not lose what was measured
        complete = True
    except KeyboardInterrupt:
        click.echo("interrupted: the table holds what was measured before", err=True)
    since = [] if before is None else changes(rows, before)
    if as_json:
        print_json(document(rows, rounds=rounds, budget=budget, complete=complete, changes=since))
    else:
        print_table(table(rows, since))
    if figure is not None and rows:
        from balancesim.bench.figure import draw

        draw(rows, figure)
        if not quiet:
            click.echo(f"figure: {figure}", err=True)
    if not complete:
        ctx.exit(INTERRUPTED)


def _check_figure(path: Path) -> None:
    """Refuse a file that could not be written, before minutes of measuring."""
    from balancesim.errors import ConfigurationError

    if path.suffix not in FIGURES:
        raise ConfigurationError(f"`--figure` must end in {', '.join(FIGURES)}, got {path.name!r}")
    if not path.parent.is_dir():
        raise ConfigurationError(f"`--figure` must lie in an existing folder, got {path}")


def _rows(areas: tuple[str, ...], rounds: int, budget: float | None, quiet: bool) -> "Iterator[Row]":
    from balancesim.bench.timing import Plan

    with _progress(quiet) as say:
        for name in areas:
            area = AREAS[name]
            say(f"{name}: loading")
            measure: Callable[[Plan], Iterator[Row]] = getattr(import_module(area.module), name)
            yield from measure(Plan(rounds, budget or area.seconds, _prefixed(say, name)))


def _prefixed(say: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda text: say(f"{name}: {text}")


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Give a function that says on stderr what is measured: a live line on a terminal, lines elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
    elif console.is_terminal:
        with console.status("measuring") as status:
            yield status.update
    else:
        yield lambda text: click.echo(text, err=True)

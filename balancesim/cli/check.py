"""``balancesim check``: try the statements of the papers, and draw what was found."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from balancesim.cli.completion import complete_statements
from balancesim.cli.group import INTERRUPTED

if TYPE_CHECKING:
    from balancesim.checks import Outcome

SOME_FAILED = 1
DEFAULT_OUT = Path("out") / "checks"


@click.command("check")
@click.argument("labels", nargs=-1, metavar="[ID]...", shell_complete=complete_statements)
@click.option("--deep", is_flag=True, help="More instances, seeds and steps: the better part of an hour.")
@click.option("--jobs", type=click.IntRange(min=1), help="Checks at a time.  [default: one per core]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=DEFAULT_OUT,
    show_default=True,
    help="Where findings (JSON) and figures go.",
)
@click.option("--fresh", is_flag=True, help="Check again what was checked with the same code.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.pass_context
def check_command(
    ctx: click.Context,
    labels: tuple[str, ...],
    deep: bool,
    jobs: int | None,
    out: Path,
    fresh: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check the statements ID (such as D1, or S for all of S1, S2, ...); all by default.

    Each statement is tried on instances that meet its hypotheses and on negative controls that do not, which
    must fail. The exit code is 1 if something that should hold fails, or a negative control does not.
    `balancesim describe ID` says what is claimed. An interrupted check continues with the same command.
    """
    from balancesim.batches import n_cores
    from balancesim.checks import Depth, find_statements, run_checks
    from balancesim.checks.document import document, table
    from balancesim.cli.output import print_json, print_table
    from balancesim.sweep.atomic import write_json

    statements = find_statements(labels)
    depth = Depth.DEEP if deep else Depth.DEFAULT
    try:
        outcomes = run_checks(
            statements,
            out,
            depth=depth,
            jobs=jobs or n_cores(),
            fresh=fresh,
            report=None if quiet else say_outcome,
        )
    except KeyboardInterrupt:
        click.echo(
            f"interrupted: what is checked is kept in {out}; continue with:\n  {_resuming(ctx)}", err=True
        )
        ctx.exit(INTERRUPTED)
    found = document(outcomes, depth)
    write_json(out / "checks.json", found)
    if as_json:
        print_json(found)
    else:
        print_table(table(outcomes))
        click.echo(f"findings and figures are in {out}")
    ctx.exit(0 if found["passed"] else SOME_FAILED)


def say_outcome(outcome: "Outcome") -> None:
    """Say on stderr how a check came out."""
    about, found = outcome.statement, outcome.findings
    how = outcome.error if found is None else str(found.verdict)
    taken = f"{outcome.seconds:.1f} s" if outcome.seconds else "found before"
    click.echo(f"{about.label:<3} {about.title}: {how} ({taken})", err=True)


def _resuming(ctx: click.Context) -> str:
    """The command that continues this one: the same, without ``--fresh``."""
    given = ctx.params
    words = ["balancesim", "check", *given["labels"]]
    words += [f"--{flag}" for flag in ("deep", "quiet") if given[flag]]
    words += ["--json"] if given["as_json"] else []
    words += ["--jobs", str(given["jobs"])] if given["jobs"] else []
    words += ["--out", str(given["out"])] if given["out"] != DEFAULT_OUT else []
    return shlex.join(words)

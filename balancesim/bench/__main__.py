"""``python -m balancesim.bench [AREA...]``: print every comparison and whether it reaches its goal."""

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from balancesim.bench.numeric import online, routing
from balancesim.bench.process import memory, startup
from balancesim.bench.timing import Row

AREAS = {"routing": routing, "online": online, "memory": memory, "startup": startup}


@click.command()
@click.argument("areas", nargs=-1, type=click.Choice(list(AREAS)), metavar="[AREA]...")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=21, show_default=True, help="Interleaved rounds."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def main(areas: tuple[str, ...], rounds: int, as_json: bool) -> None:
    """Measure AREAs (routing, online, memory, startup; all of them by default).

    Times are medians of interleaved rounds within this run, warm-up first; so are ratios.
    """
    rows = []
    for area in areas or AREAS:
        click.echo(f"measuring {area} ...", err=True)
        rows += list(AREAS[area](rounds))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    else:
        console = Console()
        (console if console.is_terminal else Console(width=160)).print(_table(rows))


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title, justify in (
        ("area", "left"), ("case", "left"), ("ours", "right"), ("peer", "right"), ("unit", "left"),
        ("peer is", "left"), ("ratio", "right"), ("goal", "left"), ("", "left"),
    ):  # fmt: skip
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(
            row.area, row.case, f"{row.ours:.3g}", f"{row.peer:.3g}", row.unit, row.peer_name,
            f"{row.ratio:.3g}", row.goal, "reached" if row.met else "missed",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main(prog_name="python -m balancesim.bench")

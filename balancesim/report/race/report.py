"""A race from its run directory: the rows, the table, the figures."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from balancesim.report.race.measures import CURVES, curves_of
from balancesim.report.race.rows import race_rows
from balancesim.report.race.table import race_table
from balancesim.report.registry import Report
from balancesim.sweep import RunDirectory, load_summary, load_trajectories

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def summarise(run: RunDirectory) -> "pd.DataFrame":
    """One row per source, rule and reported setting; see `race_rows`.

    Raises
    ------
    RunDirectoryError
        If the directory is no run directory, has no finished cell, or a part is damaged.
    """
    return race_rows(load_summary(run), curves_of(load_trajectories(run, CURVES)))


def figures(run: RunDirectory, rows: "pd.DataFrame") -> "Iterator[tuple[str, Figure]]":
    """Draw ``summary``, one figure per source, and one ``recovery-`` per source that suddenly shifts.

    Settings that ended early on every seed are not drawn; where there is no other one, nothing is.
    """
    from balancesim.report.race.front import source_figure, summary_figure
    from balancesim.report.race.recovery import recovery_figure
    from balancesim.report.style import source_name

    rows = rows[rows["n_seeds"] > 0]
    if rows.empty:
        return
    yield "summary", summary_figure(rows)
    for index, own in rows.groupby("group", sort=False):
        yield source_name(index, str(own["source"].iloc[0])), source_figure(own)
    shifted = rows[rows["shift"] > 0]
    if shifted.empty:
        return
    cells, curves = load_summary(run), curves_of(load_trajectories(run, CURVES))
    for index, own in shifted.groupby("group", sort=False):
        name = source_name(index, str(own["source"].iloc[0])).replace("source", "recovery", 1)
        yield name, recovery_figure(own, cells, curves)


REPORT = Report(summarise, race_table, figures)
